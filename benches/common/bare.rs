//! The limit: a loop of the same SDK that does nothing with what it receives.

/// Receives and deletes, as simply as the SDK allows.
pub fn drain(url: &str, receivers: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = aws_config::defaults(aws_config::BehaviorVersion::v2026_01_12()).load().await;
        let client = aws_sdk_sqs::Client::new(&config);
        let mut loops = tokio::task::JoinSet::new();
        for _ in 0..receivers {
            let (client, url) = (client.clone(), url.to_owned());
            loops.spawn(async move {
                loop {
                    let receive =
                        client.receive_message().queue_url(&url).max_number_of_messages(10).wait_time_seconds(10);
                    let messages = receive.send().await.unwrap().messages.unwrap_or_default();
                    if messages.is_empty() {
                        continue;
                    }
                    let entries = messages.into_iter().enumerate().map(|(index, message)| {
                        let entry = aws_sdk_sqs::types::DeleteMessageBatchRequestEntry::builder().id(index.to_string());
                        entry.receipt_handle(message.receipt_handle.unwrap()).build().unwrap()
                    });
                    let delete =
                        client.delete_message_batch().queue_url(&url).set_entries(Some(entries.collect::<Vec<_>>()));
                    // The next receive does not wait for it, as in the worker.
                    tokio::spawn(async move { delete.send().await.unwrap() });
                }
            });
        }
        loops.join_next().await;
    });
}
