//! What TLS connections are made with, as the configuration has it now.
//!
//! Owns: our certificate in use, a trunk's authorities and name, the system's authorities.
//! Never: touches a connection that is there: a reload is for those that come.

use super::peers::Peer;
use crate::{
    config::{Config, Trunk},
    ids::Transport,
    tls::{Authorities, Client, Failure, Server, Trust, Validity, server_name},
};
use std::{collections::BTreeMap, io, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// What connections are made with.
#[derive(Clone, Default)]
pub(super) struct Security {
    acceptor: Option<TlsAcceptor>,
    /// By the trunk's name; those whose settings cannot be used are absent.
    trunks: BTreeMap<Box<str>, TlsConnector>,
    /// For everybody else.
    others: Option<TlsConnector>,
}

impl Security {
    /// Takes a configuration; what cannot be used is logged, and left out.
    pub(super) fn new(config: &Config) -> Self {
        let is_tls = |trunk: &&Arc<Trunk>| trunk.transport == Transport::Tls;
        let trunks: Vec<_> = config.trunks.values().filter(is_tls).collect();
        if trunks.is_empty() && config.tls.is_none() {
            return Self::default();
        }
        let system = system();
        let connector = |what: &str, client: Result<Client, _>| match client {
            Ok(client) => Some(TlsConnector::from(client.config())),
            Err(error) => {
                tracing::warn!(what, %error, "no TLS");
                None
            }
        };
        let of = |trunk: &&Arc<Trunk>| {
            let tls = &trunk.tls;
            let trust = match tls.verify {
                true => Trust::Authorities(tls.authorities.as_ref().unwrap_or(&system)),
                false => Trust::Anybody,
            };
            let client = Client::new(trust, tls.identity.as_ref());
            Some((trunk.name.clone(), connector(&trunk.name, client)?))
        };
        let acceptor =
            config.tls.as_ref().and_then(|tls| match Server::new(&tls.identity, &tls.clients) {
                Ok(server) => Some(TlsAcceptor::from(server.config())),
                Err(error) => {
                    tracing::error!(%error, "certificate unusable");
                    None
                }
            });
        Self {
            acceptor,
            trunks: trunks.iter().filter_map(of).collect(),
            others: connector("others", Client::new(Trust::Authorities(&system), None)),
        }
    }

    /// Shakes hands with who has connected to us.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<server::TlsStream<TcpStream>, Failure> {
        let Some(acceptor) = &self.acceptor else {
            return Err(Failure::Other("there is no certificate".into()));
        };
        in_time(acceptor.accept(stream)).await
    }

    /// Shakes hands with whom we have connected to.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        peer: &Peer,
    ) -> Result<client::TlsStream<TcpStream>, Failure> {
        let connector = match &peer.trunk {
            Some(trunk) => self.trunks.get(trunk),
            None => self.others.as_ref(),
        };
        // It was left out because there is nobody whom it could believe.
        let connector = connector.ok_or(Failure::UnknownAuthority)?;
        let name = server_name(&peer.host).ok_or(Failure::OtherName)?;
        in_time(connector.connect(name, stream)).await
    }
}

/// Returns from when to when the peer's certificate holds.
pub(super) fn certificate(stream: &client::TlsStream<TcpStream>) -> Option<Validity> {
    let (_, session) = stream.get_ref();
    Validity::read(session.peer_certificates()?.first()?)
}

async fn in_time<S>(handshake: impl Future<Output = io::Result<S>>) -> Result<S, Failure> {
    match timeout(HANDSHAKE_MAX, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Failure::of(&error)),
        Err(_) => Err(Failure::Gone),
    }
}

/// Returns whom the system trusts.
fn system() -> Authorities {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "authorities unreadable");
    }
    Authorities::from_der(found.certs.iter().map(|certificate| certificate.to_vec()))
}
