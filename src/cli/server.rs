//! What the verbs ask a running worker: its `/status`, over plain HTTP.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::{StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::model::{Incident, ServiceKey};

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
        self.ask("status").await?.context("the worker has no /status")
    }

    /// The `/status` of a worker that acts.
    ///
    /// # Errors
    /// When there is none, or it stands by.
    pub(super) async fn acting(&self) -> anyhow::Result<Value> {
        let status = self.status().await?;
        acts(&status)?;
        Ok(status)
    }

    /// The newest incidents, of one service or of all, the newest first.
    ///
    /// # Errors
    /// When nobody answers there, or not with incidents.
    pub(super) async fn incidents(&self, of: Option<&ServiceKey>) -> anyhow::Result<Vec<Incident>> {
        let query = of.map_or_else(String::new, |key| format!("?service={key}"));
        let found = self.ask(&format!("incidents{query}")).await?.context("the worker has no /incidents")?;
        Ok(serde_json::from_value(found)?)
    }

    /// One incident, if the worker knows it.
    ///
    /// # Errors
    /// When nobody answers there, or not with an incident.
    pub(super) async fn incident(&self, id: &str) -> anyhow::Result<Option<Incident>> {
        let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        ensure!(id.chars().all(fit), "{id:?} is no incident: their ids are as in rollback-4420815973316504711");
        Ok(self.ask(&format!("incidents/{id}")).await?.map(serde_json::from_value).transpose()?)
    }

    /// `None` when there is no such thing.
    async fn ask(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let url = format!("{}/{path}", self.server.trim_end_matches('/'));
        let asked = tokio::time::timeout(PATIENCE, fetch(&url)).await;
        let answer = asked.map_err(|_| anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs())).flatten();
        answer.with_context(|| format!("ask the worker at {url}; --server names another one"))
    }
}

/// Fails where another replica acts: what is not in the status of one that stands by may go on all the same.
///
/// # Errors
/// When it stands by.
pub(super) fn acts(status: &Value) -> anyhow::Result<()> {
    let acts = status["worker"]["role"] != "standby";
    ensure!(acts, "this replica stands by and does not see what goes on; ask the one that acts (--server)");
    Ok(())
}

/// One service in a status.
pub(super) fn service<'a>(status: &'a Value, key: &ServiceKey) -> Option<&'a Value> {
    let is_it =
        |view: &&Value| view["service"]["cluster"] == *key.cluster && view["service"]["service"] == *key.service;
    status["services"].as_array()?.iter().find(is_it)
}

/// Status and body of a page.
pub(super) async fn get(url: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let uri: Uri = url.parse()?;
    ensure!(uri.scheme_str() == Some("http"), "a worker speaks plain HTTP: write http://HOST:PORT");
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.get(uri).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
    Ok((status, body))
}

async fn fetch(url: &str) -> anyhow::Result<Option<Value>> {
    let (status, body) = get(url).await?;
    if status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    if !status.is_success() {
        bail!("{status}: {}", String::from_utf8_lossy(&body).chars().take(300).collect::<String>().trim());
    }
    Ok(Some(serde_json::from_slice(&body)?))
}
