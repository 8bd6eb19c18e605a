"""Receives and deletes with boto3, in so many threads, until it is killed."""

import sys
import threading

import boto3
from botocore.config import Config

url, threads = sys.argv[1], int(sys.argv[2])
sqs = boto3.client("sqs", config=Config(max_pool_connections=threads))


def drain():
    while True:
        messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=10).get("Messages", [])
        if messages:
            entries = [{"Id": str(i), "ReceiptHandle": m["ReceiptHandle"]} for i, m in enumerate(messages)]
            sqs.delete_message_batch(QueueUrl=url, Entries=entries)


workers = [threading.Thread(target=drain) for _ in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
