// Receives and deletes with sqs-consumer, so many consumers at once, until it is killed.
const { createRequire } = require("node:module");
const modules = createRequire(process.env.NODE_MODULES + "/");
const { Consumer } = modules("sqs-consumer");
const { SQSClient } = modules("@aws-sdk/client-sqs");

const [queueUrl, consumers] = [process.argv[2], Number(process.argv[3])];
// The queue does not compute MD5 sums.
const sqs = new SQSClient({ md5: false });
for (let i = 0; i < consumers; i++) {
  const consumer = Consumer.create({ queueUrl, sqs, batchSize: 10, waitTimeSeconds: 10, handleMessageBatch: async (messages) => messages });
  consumer.on("error", (error) => { console.error(error); process.exit(1); });
  consumer.start();
}
