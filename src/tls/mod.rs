//! TLS without sockets: certificates and their keys, whom to trust, and why a handshake failed.
//!
//! Owns: `rustls` with `ring` as its one provider, and the choice of TLS 1.2 and 1.3.
//! Never: opens a file or a connection.
#![deny(
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects
)]

mod dates;
mod failure;
mod identity;
mod verify;

pub use dates::Validity;
pub use failure::Failure;
pub use identity::{Authorities, Identity, Unusable};

use rustls::{
    ClientConfig, ServerConfig,
    crypto::{self, CryptoProvider},
    pki_types::ServerName,
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use std::sync::Arc;
use verify::{Anybody, Verifier};

/// What a carrier of today speaks; anything older is refused (RFC 8996).
const VERSIONS: [&rustls::SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// Whether those who connect to us show a certificate of their own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Clients {
    /// They are not asked.
    Off,
    /// They are asked; who shows one must be known to these.
    Optional(Authorities),
    /// Without one that these know nobody gets in.
    Require(Authorities),
}

/// Whom we take for the peer that we call.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Whose certificate these signed, or is one of these, and names the peer.
    Authorities(&'a Authorities),
    /// Anybody: encrypted, and nothing more.
    Anybody,
}

/// The side that accepts connections.
#[derive(Clone, Debug)]
pub struct Server(Arc<ServerConfig>);

impl Server {
    /// Creates it.
    pub fn new(identity: &Identity, clients: &Clients) -> Result<Self, Unusable> {
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&VERSIONS)
            .map_err(Unusable::other)?;
        let verifier = |authorities: &Authorities| {
            let store = authorities.store()?;
            Ok::<_, Unusable>(WebPkiClientVerifier::builder_with_provider(store, provider))
        };
        let builder = match clients {
            Clients::Off => builder.with_no_client_auth(),
            Clients::Optional(authorities) => builder.with_client_cert_verifier(
                verifier(authorities)?.allow_unauthenticated().build().map_err(Unusable::other)?,
            ),
            Clients::Require(authorities) => builder.with_client_cert_verifier(
                verifier(authorities)?.build().map_err(Unusable::other)?,
            ),
        };
        let config =
            builder.with_single_cert(identity.chain(), identity.key()).map_err(Unusable::other)?;
        Ok(Self(Arc::new(config)))
    }

    /// Returns what the asynchronous shell wraps around a connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.clone()
    }
}

/// The side that opens connections.
#[derive(Clone, Debug)]
pub struct Client(Arc<ClientConfig>);

impl Client {
    /// Creates it; `identity` is shown to servers that ask for a certificate.
    pub fn new(trust: Trust<'_>, identity: Option<&Identity>) -> Result<Self, Unusable> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&VERSIONS)
            .map_err(Unusable::other)?
            .dangerous();
        let builder = match trust {
            Trust::Authorities(authorities) => builder
                .with_custom_certificate_verifier(Arc::new(Verifier::new(authorities, provider)?)),
            Trust::Anybody => {
                builder.with_custom_certificate_verifier(Arc::new(Anybody::new(provider)))
            }
        };
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(identity.chain(), identity.key())
                .map_err(Unusable::other)?,
        };
        Ok(Self(Arc::new(config)))
    }

    /// Returns what the asynchronous shell wraps around a connection.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }
}

/// Returns what a peer of this name must prove to be; a name is also what it is told (SNI), an
/// address is not. `None` where it is neither.
pub fn server_name(host: &str) -> Option<ServerName<'static>> {
    let bare = host.trim_matches(['[', ']']).trim_end_matches('.');
    ServerName::try_from(bare.to_owned()).ok()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(crypto::ring::default_provider())
}

#[cfg(test)]
mod tests;
