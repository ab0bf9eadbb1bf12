//! Which name servers are asked: the system's, or those of `[node] resolver`.
//!
//! Owns: how the resolver is set up. It keeps no answers: who asks does, and asks before they expire.
//! Never: asks for a name by itself.

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// How long one server may take, and how often it is asked before the next one is.
const SERVER_MAX: Duration = Duration::from_secs(1);
const ATTEMPTS: usize = 2;

/// Makes a resolver that asks these servers, or those of the system where there are none. `None`
/// where the system has no usable setup: only addresses resolve then.
pub(super) fn resolver(servers: &[SocketAddr]) -> Option<TokioResolver> {
    let built = if servers.is_empty() {
        TokioResolver::builder_tokio().and_then(|mut builder| {
            builder.options_mut().cache_size = 0;
            builder.build()
        })
    } else {
        let servers = servers.iter().copied().map(server).collect();
        let config = ResolverConfig::from_name_servers(servers);
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        let options = builder.options_mut();
        (options.timeout, options.attempts) = (SERVER_MAX, ATTEMPTS);
        options.cache_size = 0;
        // Who names servers wants their word, not that of a file.
        options.use_hosts_file = ResolveHosts::Never;
        builder.build()
    };
    built.inspect_err(|error| tracing::warn!(%error, "no name resolution")).ok()
}

/// Answers to those who wait for them: the doctor, not a call.
pub(super) struct Names(Option<TokioResolver>);

/// Where a name leads, and for how long that holds.
pub(super) struct Found {
    pub(super) ips: Vec<IpAddr>,
    pub(super) ttl: Duration,
}

impl Names {
    pub(super) fn new(servers: &[SocketAddr]) -> Self {
        Self(resolver(servers))
    }

    /// Looks up the addresses of a name, or says in a sentence why there are none.
    pub(super) async fn addresses(&self, host: &str) -> Result<Found, String> {
        if let Ok(ip) = host.trim_matches(['[', ']']).parse() {
            return Ok(Found { ips: vec![ip], ttl: Duration::MAX });
        }
        let Some(resolver) = &self.0 else { return Err("there is no name server".to_owned()) };
        let found = resolver.lookup_ip(host).await.map_err(|error| error.to_string())?;
        let ttl = found.valid_until().saturating_duration_since(super::now());
        Ok(Found { ips: found.iter().collect(), ttl })
    }
}

/// Over UDP, and over TCP what is too long for that.
fn server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}
