//! The admin port: metrics, health, dumps and listings over HTTP/1.1, on control's runtime.
//!
//! It only reads, and asks nobody who they are, so it belongs on a loopback or otherwise closed address. Every answer has
//! a deadline: a core or a control loop that does not answer is reported, not waited for. It holds at most
//! [`CONNECTIONS_MAX`] connections, each for at most [`CONNECTION_AGE_MAX`]; to a further one the longest silent makes
//! way, so that nobody who only holds connections keeps `/health` from answering. Work that grows with the number of
//! topics is done on a thread of its own, so a scrape never keeps the control loop from its requests.

mod guests;
mod questions;

use crate::metrics_text::{self, Broker, Disk, Process, Scrape, ScrubSource};
use guests::{Guest, Guests};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
pub use questions::{AdminConnection, AdminConnections, AdminPartition, AdminRequest, AdminTopic};
use ringmill_core::heartbeat::{Beat, Heartbeat};
use ringmill_types::CoreId;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Connections at one time; for a further one, the one that was silent for longest is closed.
pub const CONNECTIONS_MAX: usize = 32;
/// A connection is closed at this age, whatever it does; scrapers connect again.
pub const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);
/// From connecting, or from the last answer, to the end of a request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a closing connection may take to hand over its last answer.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(10);
/// The control loop answers within this; it gives cores one second of it.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(3);
/// After a failed accept, such as one file too many.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Every path, with what it answers.
const ENDPOINTS: &[(&str, &str)] = &[
    ("/metrics", "numbers in Prometheus text format"),
    ("/health/live", "200 while the process can answer"),
    ("/health/ready", "200 while it takes requests, 503 while it starts or stops"),
    ("/v1/cores", "what each core is doing, as text"),
    ("/v1/topics", "topics and partitions with placement, offsets and sizes, as JSON"),
    ("/v1/connections", "who is connected and what came and went over it, as JSON"),
    ("/v1/config", "the configuration in force, as JSON"),
];

/// Serves the admin port until its future is dropped.
pub async fn serve(
    listener: TcpListener,
    requests: mpsc::Sender<AdminRequest>,
    heartbeats: Vec<Arc<Heartbeat>>,
    scrub: Option<ScrubSource>,
    data: PathBuf,
) {
    let port = Arc::new(AdminPort { requests, heartbeats, scrub, data });
    let mut guests = Guests::new(CONNECTIONS_MAX);
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                failing = false;
                let port = Arc::clone(&port);
                let guest = guests.welcome().await;
                tokio::spawn(async move {
                    tokio::select! {
                        () = port.connection(stream, &guest) => {}
                        () = guest.sent_away() => {}
                    }
                });
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "the admin port cannot accept connections; it goes on trying");
                }
                failing = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What is answered to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reply {
    status: StatusCode,
    content_type: &'static str,
    body: String,
}

impl Reply {
    fn text(status: StatusCode, body: impl Into<String>) -> Reply {
        Reply { status, content_type: TEXT, body: body.into() }
    }

    fn ok(content_type: &'static str, body: String) -> Reply {
        Reply { status: StatusCode::OK, content_type, body }
    }
}

/// Why control could not be asked. Answered with 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silent {
    Busy,
    Gone,
}

impl Silent {
    fn reply(self) -> Reply {
        Reply::text(
            StatusCode::SERVICE_UNAVAILABLE,
            match self {
                Silent::Busy => format!("control did not answer in {} s\n", CONTROL_TIMEOUT.as_secs()),
                Silent::Gone => "the broker is stopping\n".to_string(),
            },
        )
    }
}

struct AdminPort {
    requests: mpsc::Sender<AdminRequest>,
    /// By core number.
    heartbeats: Vec<Arc<Heartbeat>>,
    scrub: Option<ScrubSource>,
    /// The folder whose file system is told of.
    data: PathBuf,
}

impl AdminPort {
    async fn connection(&self, stream: TcpStream, guest: &Guest) {
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        let service = hyper::service::service_fn(|request| async move {
            let _talking = guest.talks();
            self.http(request).await
        });
        let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
        // A client that breaks off or sends nonsense is its own affair; hyper has answered what could be answered.
        if timeout(CONNECTION_AGE_MAX, connection.as_mut()).await.is_err() {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(CLOSING_TIMEOUT, connection).await;
        }
    }

    async fn http(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let known = matches!(*request.method(), Method::GET | Method::HEAD);
        let reply = if known {
            self.answer(request.uri().path()).await
        } else {
            Reply::text(StatusCode::METHOD_NOT_ALLOWED, "this port only answers GET and HEAD\n")
        };
        let mut response = Response::new(Full::new(Bytes::from(reply.body)));
        *response.status_mut() = reply.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if !known {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        Ok(response)
    }

    async fn answer(&self, path: &str) -> Reply {
        let reply = match path {
            "/" => Ok(Reply::ok(TEXT, index())),
            "/metrics" => self.metrics().await,
            // Control's runtime runs this, so answering is the proof.
            "/health/live" => Ok(Reply::ok(TEXT, "live\n".to_string())),
            "/health/ready" => self.ready().await,
            "/v1/cores" => self.cores().await,
            "/v1/topics" => self.topics().await,
            "/v1/connections" => self.connections().await,
            "/v1/config" => self.config().await,
            _ => Ok(Reply::text(StatusCode::NOT_FOUND, format!("nothing here; there are\n{}", index()))),
        };
        reply.unwrap_or_else(Silent::reply)
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> AdminRequest) -> Result<T, Silent> {
        let (sender, answer) = oneshot::channel();
        let asked = async {
            self.requests.send(question(sender)).await.map_err(|_| Silent::Gone)?;
            answer.await.map_err(|_| Silent::Gone)
        };
        timeout(CONTROL_TIMEOUT, asked).await.unwrap_or(Err(Silent::Busy))
    }

    async fn metrics(&self) -> Result<Reply, Silent> {
        let (metrics, topics, control, ready) = tokio::join!(
            self.ask(AdminRequest::Metrics),
            self.ask(AdminRequest::Topics),
            self.ask(AdminRequest::Control),
            self.ask(AdminRequest::Ready)
        );
        let (metrics, topics, control, ready) = (metrics?, topics?, control?, ready?);
        let mut answered: BTreeMap<CoreId, _> = metrics.into_iter().collect();
        let cores = self.cores_known().map(|core| (core, answered.remove(&core))).collect();
        let scrub = self.scrub.as_ref().map(|look| look());
        let data = self.data.clone();
        let text = aside(move || {
            let broker = Broker { ready, topics: topics.len() as u64 };
            let disk = Disk::of(&data);
            let process = Process::now();
            metrics_text::render(&Scrape { broker, process, disk, scrub, control, cores, topics })
        });
        Ok(Reply::ok(metrics_text::CONTENT_TYPE, text.await))
    }

    fn cores_known(&self) -> impl Iterator<Item = CoreId> {
        (0..self.heartbeats.len() as u16).map(CoreId)
    }

    async fn ready(&self) -> Result<Reply, Silent> {
        Ok(match self.ask(AdminRequest::Ready).await? {
            true => Reply::ok(TEXT, "ready\n".to_string()),
            false => Reply::text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        })
    }

    /// What the cores say; where one is silent, what its heartbeat says.
    async fn cores(&self) -> Result<Reply, Silent> {
        let looks = || self.heartbeats.iter().map(|beat| beat.look()).collect::<Vec<Beat>>();
        let before = looks();
        let dumps = self.ask(AdminRequest::Dump).await;
        let mut texts: BTreeMap<CoreId, Option<String>> =
            dumps.clone().unwrap_or_default().into_iter().collect();
        let mut body = String::new();
        for ((core, first), now) in self.cores_known().zip(before).zip(looks()) {
            match texts.remove(&core).flatten() {
                Some(text) => body += text.trim_end(),
                None => body += &silent_core(core, first, now),
            }
            body += "\n\n";
        }
        let status = if let Err(silent) = dumps {
            body += &silent.reply().body;
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        };
        Ok(Reply::text(status, body))
    }

    async fn topics(&self) -> Result<Reply, Silent> {
        let topics = self.ask(AdminRequest::Topics).await?;
        Ok(json(aside(move || serde_json::to_string_pretty(&topics)).await))
    }

    async fn connections(&self) -> Result<Reply, Silent> {
        let all = self.ask(AdminRequest::Connections).await?;
        Ok(json(aside(move || serde_json::to_string(&all)).await))
    }

    async fn config(&self) -> Result<Reply, Silent> {
        let settings: BTreeMap<String, String> = self.ask(AdminRequest::Config).await?.into_iter().collect();
        Ok(json(serde_json::to_string_pretty(&settings)))
    }
}

/// Runs what takes long on a thread of its own.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Only a runtime that ends cancels it, and then nobody polls this any more.
        Err(_) => std::future::pending().await,
    }
}

fn json(text: serde_json::Result<String>) -> Reply {
    match text {
        Ok(text) => Reply::ok(JSON, text + "\n"),
        Err(error) => Reply::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn index() -> String {
    ENDPOINTS.iter().map(|(path, what)| format!("{path:<16} {what}\n")).collect()
}

/// The report of a core that was asked and did not answer, from its heartbeat before and after.
fn silent_core(core: CoreId, before: Beat, now: Beat) -> String {
    let phase = now.phase.text();
    let turned = now.turns.wrapping_sub(before.turns);
    let moves = if turned == 0 {
        format!("its loop has not turned since it was asked; it is {phase} (turn {})", now.turns)
    } else {
        format!("its loop has turned {turned} times since it was asked; it is {phase} (turn {})", now.turns)
    };
    format!("core {core}: NO ANSWER; {moves}")
}

#[cfg(test)]
mod tests;
