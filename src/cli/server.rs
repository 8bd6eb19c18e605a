//! What the verbs ask a running worker: its `/status`, over plain HTTP.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Uri;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// A worker answers within milliseconds; one that does not is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// A status of ten thousand services has a tenth of it.
const LARGEST: usize = 256 * 1024 * 1024;

/// Which worker is asked.
#[derive(Clone, Debug, Args)]
pub(super) struct ServerArg {
    /// The running worker
    #[arg(long, value_name = "URL", env = "TASKSET_GUARDIAN_SERVER", default_value = "http://127.0.0.1:9464")]
    server: String,
}

impl ServerArg {
    /// The worker at this URL.
    pub(super) fn new(url: &str) -> Self {
        Self { server: url.to_owned() }
    }

    /// The worker's `/status`.
    ///
    /// # Errors
    /// When nobody answers there, or not with a status.
    pub(super) async fn status(&self) -> anyhow::Result<Value> {
        let url = format!("{}/status", self.server.trim_end_matches('/'));
        let asked = tokio::time::timeout(PATIENCE, fetch(&url)).await;
        let answer = asked.map_err(|_| anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs())).flatten();
        answer.with_context(|| format!("ask the worker at {url}; --server names another one"))
    }
}

async fn fetch(url: &str) -> anyhow::Result<Value> {
    let uri: Uri = url.parse()?;
    ensure!(uri.scheme_str() == Some("http"), "a worker speaks plain HTTP: write http://HOST:PORT");
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.get(uri).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
    if !status.is_success() {
        bail!("{status}: {}", String::from_utf8_lossy(&body).chars().take(300).collect::<String>().trim());
    }
    Ok(serde_json::from_slice(&body)?)
}
