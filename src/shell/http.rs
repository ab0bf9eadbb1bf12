//! The admin address: `/healthz`, `/readyz`, `/metrics`.
//!
//! Owns: what an orchestrator and Prometheus are told.
//! Never: tells about a single call, or changes anything.

use crate::observe::metrics::{Snapshot, render};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use std::{io, sync::Arc, time::Duration};
use tokio::{net::TcpListener, time::timeout};

/// Prometheus gives up after 10 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The text format that [`render`] writes.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether calls can come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Readiness {
    /// Every SIP listener is bound.
    pub has_listeners: bool,
    /// Records can be written.
    pub is_store_open: bool,
    /// New calls are refused.
    pub is_draining: bool,
}

impl Readiness {
    /// Lists what is missing.
    fn missing(self) -> Vec<&'static str> {
        [
            (!self.has_listeners, "a SIP listener is not bound"),
            (!self.is_store_open, "the store cannot be written to"),
            (self.is_draining, "draining: new calls are refused"),
        ]
        .into_iter()
        .filter_map(|(is_missing, what)| is_missing.then_some(what))
        .collect()
    }
}

/// Knows what is asked.
pub trait Inspect: Send + Sync + 'static {
    /// Returns whether calls can come.
    fn readiness(&self) -> Readiness;
    /// Returns once every shard and media worker has given a sign of life.
    fn alive(&self) -> impl Future<Output = ()> + Send;
    /// Collects every owner's counters.
    fn snapshot(&self) -> impl Future<Output = Snapshot> + Send;
}

/// Answers until dropped.
pub async fn serve<I: Inspect>(listener: TcpListener, inspect: Arc<I>) -> io::Result<()> {
    axum::serve(listener, router(inspect, ANSWER_TIMEOUT)).await
}

/// What every answer needs: whom to ask, and how long to wait.
struct Asked<I> {
    inspect: Arc<I>,
    patience: Duration,
}

type Asking<I> = State<Arc<Asked<I>>>;

fn router<I: Inspect>(inspect: Arc<I>, patience: Duration) -> Router {
    Router::new()
        .route("/healthz", get(healthz::<I>))
        .route("/readyz", get(readyz::<I>))
        .route("/metrics", get(metrics::<I>))
        .with_state(Arc::new(Asked { inspect, patience }))
}

async fn healthz<I: Inspect>(State(asked): Asking<I>) -> Response {
    match timeout(asked.patience, asked.inspect.alive()).await {
        Ok(()) => "ok\n".into_response(),
        Err(_) => late().into_response(),
    }
}

async fn readyz<I: Inspect>(State(asked): Asking<I>) -> Response {
    match asked.inspect.readiness().missing() {
        missing if missing.is_empty() => "ready\n".into_response(),
        missing => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", missing.join("\n"))).into_response()
        }
    }
}

async fn metrics<I: Inspect>(State(asked): Asking<I>) -> Response {
    match timeout(asked.patience, asked.inspect.snapshot()).await {
        Ok(snapshot) => ([(header::CONTENT_TYPE, EXPOSITION)], render(&snapshot)).into_response(),
        Err(_) => late().into_response(),
    }
}

fn late() -> (StatusCode, &'static str) {
    (StatusCode::SERVICE_UNAVAILABLE, "a shard or a media worker does not answer\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        task::JoinSet,
    };

    struct Fake {
        readiness: Readiness,
        is_stuck: bool,
    }

    impl Inspect for Fake {
        fn readiness(&self) -> Readiness {
            self.readiness
        }
        async fn alive(&self) {
            if self.is_stuck {
                std::future::pending().await
            }
        }
        async fn snapshot(&self) -> Snapshot {
            self.alive().await;
            Snapshot { uptime_s: 7, ..Snapshot::default() }
        }
    }

    const READY: Readiness =
        Readiness { has_listeners: true, is_store_open: true, is_draining: false };

    async fn serving(fake: Fake) -> (SocketAddr, JoinSet<io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Whoever is stuck is stuck at once; the others have all the time they need.
        let patience = if fake.is_stuck { Duration::ZERO } else { ANSWER_TIMEOUT };
        let mut tasks = JoinSet::new();
        let router = router(Arc::new(fake), patience);
        tasks.spawn(async { axum::serve(listener, router).await });
        (address, tasks)
    }

    async fn fetch(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_well_program_says_so() {
        let (address, _tasks) = serving(Fake { readiness: READY, is_stuck: false }).await;
        for (request, status, text) in [
            ("GET /healthz", "200", "ok"),
            ("GET /readyz", "200", "ready"),
            ("GET /metrics", "200", "tandem_uptime_seconds 7"),
            ("GET /metrics", "200", "content-type: text/plain; version=0.0.4"),
            ("GET /calls", "404", ""),
            ("POST /metrics", "405", ""),
        ] {
            let answer = fetch(address, request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
            assert!(answer.contains(text), "{request}: {answer}");
        }
    }

    #[tokio::test]
    async fn what_keeps_calls_away_is_told() {
        for (readiness, reason) in [
            (Readiness { has_listeners: false, ..READY }, "listener is not bound"),
            (Readiness { is_store_open: false, ..READY }, "store cannot be written to"),
            (Readiness { is_draining: true, ..READY }, "draining"),
        ] {
            let (address, _tasks) = serving(Fake { readiness, is_stuck: false }).await;
            let answer = fetch(address, "GET /readyz").await;
            assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(reason), "{answer}");
            assert!(fetch(address, "GET /healthz").await.starts_with("HTTP/1.1 200"));
        }
    }

    #[tokio::test]
    async fn a_shard_that_hangs_is_noticed() {
        let (address, _tasks) = serving(Fake { readiness: READY, is_stuck: true }).await;
        for (path, status) in [("/healthz", "503"), ("/metrics", "503"), ("/readyz", "200")] {
            let answer = fetch(address, &format!("GET {path}")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        }
    }
}
