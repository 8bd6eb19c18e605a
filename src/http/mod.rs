//! The HTTP face of a worker: metrics, liveness, readiness, status, incidents and the status page. It reads and never acts;
//! everything but GET is refused.

mod page;

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::model::{Incident, humane};
use crate::ports::JournalError;
use crate::runtime::Handle;

/// What Prometheus asks for.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the page may do: nothing but ask this server. Whatever got past the escaping would not run.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Incidents in one answer, unless `limit` says less or more.
const INCIDENTS: usize = 100;

/// Incidents in one answer, at most.
const MOST_INCIDENTS: usize = 1_000;

/// Answers under way that ask the loop or read the journal; others wait. They share both with what acts.
const AT_A_TIME: usize = 4;

/// Connections at once; others wait to be accepted. Many more than scrapers, health checks and people have.
const CONNECTIONS: usize = 128;

/// Whoever has connected says what he wants within this time, and so he does after an answer, or is cut off.
const ASKS_WITHIN: Duration = Duration::from_secs(10);

/// A connection lasts no longer than this, and what is asked by then no longer than this again: also with somebody who does not read.
const LASTS: Duration = Duration::from_mins(1);

/// When there is no room for another connection, until the next try.
const NO_ROOM: Duration = Duration::from_secs(1);

/// The address can't be used.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}: {cause}. Give another address as --listen")]
pub struct BindError {
    address: SocketAddr,
    cause: io::Error,
}

/// Takes the address, before anything else begins, so that a port in use is seen at once.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|cause| BindError { address, cause })
}

/// Answers until `shutdown`; requests in flight are answered still. Nobody who is slow, or silent, keeps others out for long.
pub async fn serve(listener: TcpListener, worker: Handle, shutdown: CancellationToken) {
    let service = TowerToHyperService::new(router(worker));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(ASKS_WITHIN);
    let rooms = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    let accepting = async {
        loop {
            // It is never closed.
            let room = Arc::clone(&rooms).acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection = http.serve_connection(TokioIo::new(stream), service.clone());
                    let shutdown = shutdown.clone();
                    connections.spawn(async move {
                        let _room = room;
                        until_its_end(connection, &shutdown).await;
                    });
                }
                // Out of descriptors, for one: others are given back meanwhile.
                Err(error) => {
                    tracing::debug!("A connection was not accepted: {error}");
                    tokio::time::sleep(NO_ROOM).await;
                }
            }
        }
    };
    shutdown.run_until_cancelled(accepting).await;
    connections.close();
    connections.wait().await;
}

type Connection = http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Router>>;

/// Errors are the peer's: he hung up, or did not speak HTTP.
async fn until_its_end(connection: Connection, shutdown: &CancellationToken) {
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = shutdown.cancelled() => {}
        () = tokio::time::sleep(LASTS) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LASTS, connection).await;
}

fn router(worker: Handle) -> Router {
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    Router::new()
        .route("/", get(index))
        .route("/status", get(status))
        .route("/incidents", get(incidents))
        .route("/incidents/{id}", get(incident))
        .route_layer(from_fn_with_state(places, few_at_a_time))
        .route("/page.css", get(|| async { asset("text/css; charset=utf-8", page::STYLE) }))
        .route("/page.js", get(|| async { asset("text/javascript; charset=utf-8", page::SCRIPT) }))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(|| async {
            (StatusCode::NOT_FOUND, "No such page. There are /, /metrics, /status, /incidents, /healthz and /readyz.\n")
        })
        .with_state(worker)
}

/// Whoever hangs up while he waits has given up his place.
async fn few_at_a_time(State(places): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    // It is never closed.
    let _place = places.acquire().await;
    next.run(request).await
}

async fn metrics(State(worker): State<Handle>) -> Response {
    match worker.metrics().render(worker.now()) {
        Ok(text) => ([(header::CONTENT_TYPE, EXPOSITION)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn healthz(State(worker): State<Handle>) -> (StatusCode, String) {
    match worker.stuck_for() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(standing) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("the loop has not turned for {}\n", humane(standing)))
        }
    }
}

async fn readyz(State(worker): State<Handle>) -> (StatusCode, String) {
    let missing = worker.health().missing();
    if missing.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    let mut text = String::from("not ready\n");
    for (part, reason) in missing {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{part}: {reason}");
    }
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

#[derive(Serialize)]
struct Trouble {
    error: String,
}

async fn status(State(worker): State<Handle>) -> Response {
    if let Some(reply) = worker.status().await {
        return Json(reply).into_response();
    }
    let trouble = Trouble { error: "the worker does not answer: it begins, ends or is stuck".to_owned() };
    (StatusCode::SERVICE_UNAVAILABLE, Json(trouble)).into_response()
}

fn asset(content_type: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, content_type), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], text).into_response()
}

async fn index(State(worker): State<Handle>) -> Response {
    let (status, incidents) = tokio::join!(worker.status(), worker.incidents(page::INCIDENTS));
    let code = if status.is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // A journal that can't be read is in `readyz`; the rest of the page is needed all the more.
    let document = page::document(status.as_ref(), &incidents.unwrap_or_default(), worker.history());
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (code, headers, document.into_string()).into_response()
}

#[derive(Deserialize)]
struct Wanted {
    /// As `CLUSTER/SERVICE`.
    service: Option<String>,
    limit: Option<usize>,
}

async fn incidents(State(worker): State<Handle>, Query(wanted): Query<Wanted>) -> Response {
    let limit = wanted.limit.unwrap_or(INCIDENTS).min(MOST_INCIDENTS);
    let read = if wanted.service.is_some() { MOST_INCIDENTS } else { limit };
    let wanted = |incident: &Incident| wanted.service.as_ref().is_none_or(|name| incident.service.to_string() == *name);
    match worker.incidents(read).await {
        Ok(found) => Json(found.into_iter().filter(wanted).take(limit).collect::<Vec<_>>()).into_response(),
        Err(error) => unavailable(&error),
    }
}

async fn incident(State(worker): State<Handle>, Path(id): Path<String>) -> Response {
    match worker.incidents(MOST_INCIDENTS).await {
        Ok(found) => match found.into_iter().find(|incident| incident.id.as_str() == id) {
            Some(incident) => Json(incident).into_response(),
            None => {
                (StatusCode::NOT_FOUND, Json(Trouble { error: "there is no such incident".to_owned() })).into_response()
            }
        },
        Err(error) => unavailable(&error),
    }
}

fn unavailable(error: &JournalError) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, Json(Trouble { error: error.to_string() })).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::engine;
    use crate::runtime::fakes::World;
    use crate::runtime::{Settings, Worker};
    use crate::telemetry::Metrics;

    fn worker(world: &Arc<World>) -> Worker {
        let settings = engine::Settings { dry_run: true, sweep: Duration::from_secs(30), fleet_brake: 3 };
        let metrics = Arc::new(Metrics::new().unwrap());
        Worker::new(world.ports(), Settings { engine: settings, receivers: 1 }, metrics, Vec::new())
    }

    async fn begin(handle: Handle) -> (SocketAddr, CancellationToken) {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(serve(listener, handle, shutdown.clone()));
        (address, shutdown)
    }

    /// Status code and body.
    async fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (code, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    #[tokio::test]
    async fn a_worker_that_is_not_begun_is_alive_but_not_ready_and_a_stuck_one_is_neither() {
        let worker = worker(&Arc::default());
        let handle = worker.handle();
        let (address, _shutdown) = begin(handle.clone()).await;
        assert_eq!(ask(address, "GET", "/healthz").await, (200, "ok\n".into()));
        let (code, text) = ask(address, "GET", "/readyz").await;
        assert_eq!(code, 503);
        assert!(text.contains("queue: no receive succeeded yet\n"), "{text}");
        handle.health().turned(Duration::ZERO);
        let (code, text) = ask(address, "GET", "/healthz").await;
        assert_eq!((code, text.contains("has not turned for")), (503, true), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_nothing_or_half_of_it_keeps_nobody_out_for_long() {
        let (address, shutdown) = begin(worker(&Arc::default()).handle()).await;
        let mut silent = Vec::new();
        for number in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let half: &[u8] = if number % 2 == 0 { b"" } else { b"GET /healthz HTTP/1.1\r\nHost:" };
            stream.write_all(half).await.unwrap();
            silent.push(stream);
        }
        assert_eq!(ask(address, "GET", "/healthz").await.0, 200, "they are cut off");
        for mut stream in silent {
            // Closed, or reset.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        shutdown.cancel();
        let gone = async { while TcpStream::connect(address).await.is_ok() {} };
        tokio::time::timeout(Duration::from_mins(5), gone).await.expect("and it ends");
    }

    #[tokio::test]
    async fn a_running_worker_tells_its_state_and_takes_no_orders() {
        let world: Arc<World> = Arc::default();
        world.deliver(&[]);
        let worker = worker(&world);
        let handle = worker.handle();
        let stop = CancellationToken::new();
        tokio::spawn(worker.run(stop));
        let ready = async {
            while !handle.health().missing().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ready).await.unwrap();
        let (address, _shutdown) = begin(handle.clone()).await;
        assert_eq!(ask(address, "GET", "/readyz").await, (200, "ready\n".into()));

        let (code, text) = ask(address, "GET", "/status").await;
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((code, &status["dry_run"], &status["worker"]["ready"]), (200, &true.into(), &true.into()), "{text}");
        assert_eq!(status["worker"]["version"], env!("CARGO_PKG_VERSION"));

        let (code, text) = ask(address, "GET", "/metrics").await;
        assert_eq!((code, text.contains("\ntaskset_guardian_leader 1\n")), (200, true), "{text}");

        let (code, text) = ask(address, "GET", "/").await;
        assert_eq!((code, text.contains("Nothing is protected yet")), (200, true), "{text}");
        assert!(ask(address, "GET", "/page.css").await.1.contains("color-scheme"));
        assert!(ask(address, "GET", "/page.js").await.1.contains("replaceChildren"));
        assert_eq!(ask(address, "GET", "/incidents?service=prod/web&limit=3").await, (200, "[]".into()));
        assert_eq!(ask(address, "GET", "/incidents/rollback-1").await.0, 404);
        assert_eq!(ask(address, "GET", "/rollback").await.0, 404);
        for method in ["POST", "PUT", "DELETE"] {
            assert_eq!(ask(address, method, "/status").await.0, 405);
        }
    }

    #[tokio::test]
    async fn an_address_in_use_is_named_with_the_cure() {
        let taken = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = bind(taken.local_addr().unwrap()).await.unwrap_err().to_string();
        assert!(error.contains("can't listen on 127.0.0.1:") && error.contains("--listen"), "{error}");
    }
}
