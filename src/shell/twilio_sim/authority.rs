//! The certificate of the simulated trunk, made for one run.
//!
//! Owns: an authority and what it signs: the trunk's wildcard names, as the carrier's certificate has
//! them.
//! Never: writes a file; the run does, where it is asked to.

use crate::{
    sim::twilio::Setup,
    tls::{Client, Clients, Identity, Server, Trust},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::io;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// An authority, and what connections are made with.
pub(super) struct Authority {
    /// What a PBX must be told to trust.
    pub(super) certificate: String,
    pub(super) acceptor: TlsAcceptor,
    pub(super) connector: TlsConnector,
}

impl Authority {
    /// Makes one for this trunk.
    pub(super) fn new(setup: &Setup) -> io::Result<Self> {
        let mut params = CertificateParams::new(vec![]).map_err(io::Error::other)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "simulated authority");
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let authority = CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)?;

        let key = KeyPair::generate().map_err(io::Error::other)?;
        let params = CertificateParams::new(wildcards(setup)).map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &authority).map_err(io::Error::other)?;
        let identity = Identity::from_pem(&certificate.pem(), &key.serialize_pem());
        let identity = identity.map_err(io::Error::other)?;
        let server = Server::new(&identity, &Clients::Off).map_err(io::Error::other)?;
        // Whether the PBX's certificate is good is its own business: there is no authority for it here.
        let client = Client::new(Trust::Anybody, None).map_err(io::Error::other)?;
        Ok(Self {
            certificate: authority.pem(),
            acceptor: server.config().into(),
            connector: client.config().into(),
        })
    }
}

/// `*.pstn.twilio.com`, and the same with each edge.
fn wildcards(setup: &Setup) -> Vec<String> {
    let termination = &*setup.account.termination;
    let domain = termination.split_once('.').map_or(termination, |(_, domain)| domain);
    let mut names = vec![termination.to_owned(), format!("*.{domain}")];
    if let Some((_, rest)) = termination.split_once(".pstn.") {
        let edges = setup.edges.iter().flat_map(|edge| edge.names());
        names.extend(edges.map(|edge| format!("*.pstn.{edge}.{rest}")));
    }
    names
}
