//! Helper tasks: names to addresses, sound files to samples.
//!
//! Owns: the resolver, and how many questions may be open.
//! Never: keeps a call waiting without end; every question is answered within its time.

use super::{prompts::Prompts, resolver::resolver, routes::Routes};
use crate::{
    call::{Ask, ResolveFor},
    ids::{CallId, Flow, Transport},
    media::Prompt,
    shard::Answer,
};
use hickory_resolver::{
    TokioResolver,
    proto::rr::{RData, RecordType},
};
use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
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
}

impl Helpers {
    /// Starts with these name servers, or with the system's where there are none.
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
        }
    }

    /// Answers one question, later.
    pub(super) fn ask(&self, ask: Ask) {
        let helpers = self.clone();
        tokio::spawn(async move {
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
        let addresses = match host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, port.unwrap_or(transport.default_port()))],
            Err(_) => {
                timeout(RESOLVE_MAX, self.look_up(host, port, transport)).await.unwrap_or_default()
            }
        };
        if addresses.is_empty() {
            tracing::warn!(host, "name not found");
        }
        let flow = |remote| self.routes.flow(transport, remote);
        let flows: Vec<Flow> = addresses.into_iter().filter_map(flow).collect();
        Answer::Resolved { token, flows }
    }

    /// RFC 3263 4.2: with a port, addresses of the name; without, SRV first.
    async fn look_up(
        &self,
        host: &str,
        port: Option<u16>,
        transport: Transport,
    ) -> Vec<SocketAddr> {
        let Some(resolver) = &self.resolver else { return vec![] };
        if port.is_none() {
            let service = service(host, transport);
            let mut found = vec![];
            for (target, port) in services(resolver, &service).await {
                found.extend(addresses(resolver, &target, port).await);
            }
            if !found.is_empty() {
                return found;
            }
        }
        addresses(resolver, host, port.unwrap_or(transport.default_port())).await
    }
}

/// Returns the name of the SRV records of a transport (RFC 3263 4.1).
fn service(host: &str, transport: Transport) -> String {
    match transport {
        Transport::Udp => format!("_sip._udp.{host}."),
        Transport::Tcp => format!("_sip._tcp.{host}."),
        Transport::Tls => format!("_sips._tcp.{host}."),
    }
}

/// Returns the targets of an SRV name, by priority, then by weight.
async fn services(resolver: &TokioResolver, name: &str) -> Vec<(String, u16)> {
    let Ok(found) = resolver.lookup(name, RecordType::SRV).await else { return vec![] };
    let mut services: Vec<_> = found
        .answers()
        .iter()
        .filter_map(|record| {
            let RData::SRV(srv) = &record.data else { return None };
            let order = (srv.priority, std::cmp::Reverse(srv.weight));
            Some((order, srv.target.to_string(), srv.port))
        })
        .collect();
    services.sort();
    services.into_iter().map(|(_, target, port)| (target, port)).collect()
}

async fn addresses(resolver: &TokioResolver, host: &str, port: u16) -> Vec<SocketAddr> {
    match resolver.lookup_ip(host).await {
        Ok(found) => found.iter().map(|ip| SocketAddr::new(ip, port)).collect(),
        Err(_) => vec![],
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
