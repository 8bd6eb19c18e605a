//! A queue with the wire of SQS and nothing else: lean enough that the client is what is measured. Messages are made as they
//! are received; what is not deleted comes back after the visibility time-out.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;

const VISIBILITY: Duration = Duration::from_secs(30);

/// As long as those of SQS.
const HANDLE: &str = "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a8tW1b0pK4h2m6c9xq5dE7fG3hJ8kL1nO2pQ4rS6tU8vW0xY2zA4bC6dE8fG0hI2jK4lM6nO8pQ0rS2tU4vW6xY8zA0bC2dE4fG6hI8jK0lM2nO4pQ6rS8tU0vW2xY4zA6bC8dE0fG2hI4jK6lM8n";

/// Writes the body of a message, as it is inside of a JSON string.
pub type Make = Box<dyn Fn(usize, &mut Vec<u8>) + Send + Sync>;

/// What the queue has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub first_receive: Option<Instant>,
    /// When the last message that there was had been deleted.
    pub drained: Option<Instant>,
    pub received: usize,
    pub deleted: usize,
    pub calls: usize,
}

struct State {
    count: usize,
    fresh: usize,
    back: VecDeque<usize>,
    in_flight: BTreeMap<usize, Instant>,
    gone: Vec<bool>,
    seen: Seen,
}

struct Shared {
    make: Make,
    state: Mutex<State>,
    drained: Notify,
}

/// A running queue, on a thread of its own.
pub struct Queue {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Queue {
    pub fn start(count: usize, make: Make) -> Self {
        let state = State {
            count,
            fresh: 0,
            back: VecDeque::new(),
            in_flight: BTreeMap::new(),
            gone: vec![false; count],
            seen: Seen::default(),
        };
        let shared = Arc::new(Shared { make, state: Mutex::new(state), drained: Notify::new() });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    let shared = Arc::clone(&serving);
                    tokio::spawn(async move {
                        let answer = service_fn(move |request| answer(Arc::clone(&shared), request));
                        let mut server = hyper::server::conn::http1::Builder::new();
                        // A client that is killed ends its connection with an error.
                        let _ = server.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answer).await;
                    });
                }
            });
        });
        Self { shared, address }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn url(&self) -> String {
        format!("http://{}/111122223333/events", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn seen(&self) -> Seen {
        self.shared.state().seen
    }

    /// From the first receive until the queue was empty; `None` while it is not.
    pub fn took(&self) -> Option<Duration> {
        let seen = self.seen();
        Some(seen.drained? - seen.first_receive?)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<usize> {
        let now = Instant::now();
        let mut state = self.state();
        let state = &mut *state;
        state.seen.first_receive.get_or_insert(now);
        let mut taken = Vec::with_capacity(10);
        if state.back.is_empty() && state.fresh == state.count {
            let due: Vec<_> = state.in_flight.iter().filter(|(_, until)| **until <= now).map(|(id, _)| *id).collect();
            state.back.extend(due);
        }
        while taken.len() < 10 {
            let number = match state.back.pop_front() {
                Some(number) if state.gone[number] => continue,
                Some(number) => number,
                None if state.fresh < state.count => {
                    state.fresh += 1;
                    state.fresh - 1
                }
                None => break,
            };
            state.in_flight.insert(number, now + VISIBILITY);
            taken.push(number);
        }
        state.seen.received += taken.len();
        taken
    }

    fn delete(&self, number: usize) {
        let mut state = self.state();
        if number < state.count && !std::mem::replace(&mut state.gone[number], true) {
            state.in_flight.remove(&number);
            state.seen.deleted += 1;
            if state.seen.deleted == state.count {
                state.seen.drained = Some(Instant::now());
                self.drained.notify_waiters();
            }
        }
    }

    fn extend(&self, number: usize, by: Duration) {
        if let Some(until) = self.state().in_flight.get_mut(&number) {
            *until = Instant::now() + by;
        }
    }

    async fn receive(&self, wait: Duration) -> Vec<u8> {
        let until = Instant::now() + wait;
        let mut taken = self.take();
        while taken.is_empty() && Instant::now() < until {
            // Either way somebody may have left a message, or the wait is over.
            let step = (until - Instant::now()).min(Duration::from_millis(200));
            let _ = tokio::time::timeout(step, std::future::pending::<()>()).await;
            taken = self.take();
        }
        let mut out = Vec::with_capacity(taken.len() * 5120 + 32);
        out.extend_from_slice(b"{\"Messages\":[");
        for (index, number) in taken.into_iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"Attributes\":{\"ApproximateReceiveCount\":\"1\"},\"Body\":\"");
            (self.make)(number, &mut out);
            let rest = format!(
                "\",\"MD5OfBody\":\"6a204bd89f3c8348afd5c77c717a097a\",\"MessageId\":\"00000000-0000-4000-8000-{number:012}\",\
                 \"ReceiptHandle\":\"{HANDLE}{number:012}\"}}"
            );
            out.extend_from_slice(rest.as_bytes());
        }
        out.extend_from_slice(b"]}");
        out
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = request.headers().get("x-amz-target").and_then(|it| it.to_str().ok()).unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    shared.state().seen.calls += 1;
    let text = std::str::from_utf8(&body).unwrap_or_default();
    let out = match operation.as_str() {
        "ReceiveMessage" => {
            let wait = number_after(text, "\"WaitTimeSeconds\":").unwrap_or(0);
            shared.receive(Duration::from_secs(wait as u64)).await
        }
        "DeleteMessage" => {
            handles(text).for_each(|number| shared.delete(number));
            b"{}".to_vec()
        }
        "DeleteMessageBatch" => {
            handles(text).for_each(|number| shared.delete(number));
            successes(text)
        }
        "ChangeMessageVisibilityBatch" => {
            let by = number_after(text, "\"VisibilityTimeout\":").unwrap_or(30);
            handles(text).for_each(|number| shared.extend(number, Duration::from_secs(by as u64)));
            successes(text)
        }
        "GetQueueAttributes" => {
            let state = shared.state();
            let waiting = state.count - state.seen.deleted - state.in_flight.len();
            format!("{{\"Attributes\":{{\"ApproximateNumberOfMessages\":\"{waiting}\"}}}}").into_bytes()
        }
        other => panic!("the queue does not know {other:?}"),
    };
    let response = Response::builder()
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amzn-requestid", "00000000-0000-4000-8000-000000000000");
    Ok(response.body(Full::new(Bytes::from(out))).unwrap())
}

/// Numbers at the end of receipt handles.
fn handles(text: &str) -> impl Iterator<Item = usize> {
    text.match_indices(HANDLE).filter_map(|(at, _)| text.get(at + HANDLE.len()..at + HANDLE.len() + 12)?.parse().ok())
}

/// Every entry went well.
fn successes(text: &str) -> Vec<u8> {
    let read: serde_json::Value = serde_json::from_str(text).unwrap();
    let ids = read["Entries"].as_array().unwrap().iter().map(|entry| serde_json::json!({ "Id": entry["Id"] }));
    serde_json::json!({ "Successful": ids.collect::<Vec<_>>(), "Failed": [] }).to_string().into_bytes()
}

fn number_after(text: &str, key: &str) -> Option<usize> {
    let rest = text[text.find(key)? + key.len()..].trim_start();
    rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}
