//! Helper tasks: names to addresses, sound files to samples.
//!
//! Owns: the resolver, and how many questions may be open.
//! Never: keeps a call waiting without end; every question is answered within its time.

use super::{
    dns::{Found, Target, locate},
    prompts::Prompts,
    resolver::resolver,
    routes::Routes,
};
use crate::{
    call::{Ask, ResolveFor},
    ids::{CallId, Transport},
    locate::{Located, Server},
    media::Prompt,
    shard::Answer,
};
use hickory_resolver::TokioResolver;
use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
    time::timeout,
};

/// Questions open at a time; more wait.
const OPEN_MAX: usize = 256;
/// How long a name may take. A carrier's caller hears nothing meanwhile.
const RESOLVE_MAX: Duration = Duration::from_secs(4);

/// Answers questions in tasks of their own.
#[derive(Clone)]
pub(super) struct Helpers {
    answers: mpsc::Sender<Answer>,
    resolver: Option<Arc<TokioResolver>>,
    routes: Routes,
    room: Arc<Semaphore>,
    prompts: Prompts,
    /// Where the tasks run: not in the shard's thread.
    runtime: Handle,
}

impl Helpers {
    /// Starts with these name servers, or with the system's where there are none. The tasks run in
    /// the runtime in which this is called.
    pub(super) fn new(
        answers: mpsc::Sender<Answer>,
        routes: Routes,
        servers: &[SocketAddr],
    ) -> Self {
        let resolver = resolver(servers).map(Arc::new);
        Self {
            answers,
            resolver,
            routes,
            room: Arc::new(Semaphore::new(OPEN_MAX)),
            prompts: Prompts::new(),
            runtime: Handle::current(),
        }
    }

    /// Answers one question, later.
    pub(super) fn ask(&self, ask: Ask) {
        let helpers = self.clone();
        self.runtime.spawn(async move {
            let Ok(_permit) = helpers.room.clone().acquire_owned().await else { return };
            let answers = helpers.answers.clone();
            let answer = match ask {
                Ask::Resolve { token, host, port, transport } => {
                    helpers.resolve(token, &host, port, transport).await
                }
                Ask::Prompt { call, file } => {
                    let prompt = read_prompt(&helpers.prompts, call, &file).await;
                    Answer::Prompt { call, file, prompt }
                }
            };
            // The shard is gone: nobody wants to know any more.
            let _ = answers.send(answer).await;
        });
    }

    async fn resolve(
        mut self,
        token: ResolveFor,
        host: &str,
        port: Option<u16>,
        transport: Transport,
    ) -> Answer {
        let found = match (host.parse::<IpAddr>(), &self.resolver) {
            (Ok(ip), _) => {
                let port = port.unwrap_or(transport.default_port());
                Found::of(Target { priority: 0, weight: 0, at: vec![SocketAddr::new(ip, port)] })
            }
            (Err(_), Some(resolver)) => {
                let found = locate(resolver, host, port, transport);
                timeout(RESOLVE_MAX, found).await.unwrap_or_default()
            }
            (Err(_), None) => Found::default(),
        };
        let mut flow = |remote| self.routes.flow(transport, remote);
        let servers = found.targets.into_iter().map(|Target { priority, weight, at }| Server {
            priority,
            weight,
            flows: at.into_iter().filter_map(&mut flow).collect(),
        });
        let located = Located { servers: servers.collect(), ttl: found.ttl };
        if located.is_empty() {
            tracing::warn!(host, "name not found");
        }
        Answer::Resolved { token, located }
    }
}

/// Reads a sound file; says why where it cannot.
async fn read_prompt(prompts: &Prompts, call: CallId, file: &str) -> Option<Prompt> {
    match prompts.load(Path::new(file)).await {
        Ok(prompt) => Some(prompt),
        Err(error) => {
            tracing::warn!(%call, file, %error, "prompt unreadable");
            None
        }
    }
}
