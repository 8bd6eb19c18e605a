//! The wire: any backend behind the real AWS protocols on loopback, so that unmodified AWS clients talk to it.
//!
//! One port serves all services; what a request carries tells them apart, as on AWS:
//!
//! | service | protocol | told by |
//! |---|---|---|
//! | ECS, EventBridge, Resource Groups Tagging | awsJson 1.1 | `X-Amz-Target` |
//! | SQS | awsJson 1.0 | `X-Amz-Target` |
//! | ELBv2 | query and XML | a form body with `Action` |
//! | CloudWatch | Smithy RPC v2 CBOR | the path `/service/…/operation/…` |
//! | CloudWatch, of boto3 | awsJson 1.0 | `X-Amz-Target` |
//!
//! Signatures are not checked, lists come on one page, and SQS's MD5 sums are left out. A member that the sandbox does
//! not know is refused rather than ignored: an answer that silently disregards a filter would teach a client wrongly.
//!
//! The backend lives in virtual time. Every call first brings it up to the clock; between calls a driver does, whenever
//! its next event is due, and wakes those who wait for messages.

mod cloudwatch;
mod ecs;
mod elb;
mod elb_actions;
mod events;
mod form;
mod input;
mod route;
mod shared;
mod sqs;
mod tagging;
#[cfg(test)]
mod tests;
mod xml;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::shared::Shared;
use super::api::{ApiError, Timed};
use crate::model::Timestamp;
use crate::ports::Clock;

/// Twice the largest SQS message: no honest request is larger.
const BODY_LIMIT: usize = 2 * 1024 * 1024;

/// How long a shutdown waits, in real time, for answers under way. They take milliseconds; only a client that never
/// finishes its request takes longer, and is not waited for.
const GRACE: Duration = Duration::from_secs(1);

/// How the sandbox listens and answers.
#[derive(Clone, Copy, Debug)]
pub struct WireSettings {
    /// Where to listen. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// Real time that every call takes on top, as a network would.
    pub latency: Duration,
}

impl Default for WireSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), latency: Duration::ZERO }
    }
}

/// A running sandbox. Dropping it stops it; [`Sandbox::shutdown`] also waits until it has stopped.
pub struct Sandbox<B> {
    shared: Arc<Shared<B>>,
    address: SocketAddr,
    server: JoinHandle<io::Result<()>>,
    driver: JoinHandle<()>,
    stop: DropGuard,
}

impl<B: Timed> Sandbox<B> {
    /// Listens, and serves `backend` in the time of `clock` until shut down or dropped.
    ///
    /// # Errors
    /// When the address can't be bound.
    pub async fn start(backend: B, clock: Arc<dyn Clock>, settings: WireSettings) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared::new(backend, clock, settings.latency, stop.clone()));
        // Small answers must not wait for the client to acknowledge the one before. A socket that refuses is only slower.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let router = Router::new()
            .fallback(route::answer::<B>)
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .with_state(Arc::clone(&shared));
        let stopped = stop.clone().cancelled_owned();
        let server = tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await });
        let driver = tokio::spawn(shared::drive(Arc::clone(&shared)));
        Ok(Self { shared, address, server, driver, stop: stop.drop_guard() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint URL for clients.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Looks into the backend, or changes it, at the clock's now. Those who wait for messages look again afterwards.
    pub fn with<R>(&self, look: impl FnOnce(&mut B) -> R) -> R {
        self.shared.with(look)
    }

    /// Looks into the backend, as [`Sandbox::with`], and wakes nobody.
    pub fn peek<R>(&self, look: impl FnOnce(&B) -> R) -> R {
        self.shared.peek(look)
    }

    /// Ends waiting receives, answers what is under way, and stops.
    ///
    /// # Errors
    /// When the server had failed.
    pub async fn shutdown(mut self) -> io::Result<()> {
        drop(self.stop);
        self.driver.await.map_err(io::Error::other)?;
        let Ok(ended) = tokio::time::timeout(GRACE + self.shared.latency(), &mut self.server).await else {
            self.server.abort();
            return Ok(());
        };
        ended.map_err(io::Error::other)?
    }
}

/// The backend answered with a reply that does not belong to the call.
fn misfit(operation: &str) -> ApiError {
    let message = format!("the backend answered {operation} with another call's reply");
    ApiError { code: "InternalFailure".to_owned(), message, status: 500 }
}

/// Not an operation that the sandbox has.
fn unknown_operation(operation: &str) -> ApiError {
    ApiError::client("UnknownOperationException", format!("the sandbox does not know the operation {operation:?}"))
}

/// Seconds since the epoch, as all protocols but XML write times. A fraction is taken up to the next float, because
/// clients cut it down to milliseconds and would lose one whenever the nearest float lies below.
fn epoch_seconds(at: Timestamp) -> f64 {
    let seconds = at.since(Timestamp::EPOCH).as_secs_f64();
    if at.as_millis() % 1000 == 0 { seconds } else { seconds.next_up() }
}
