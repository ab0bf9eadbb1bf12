//! Certificates from PEM: ours with their keys, and those whom we trust.
//!
//! Owns: what makes them unusable, in words.
//! Never: prints a key.

use super::{dates::Validity, provider};
use rustls::{
    Error, InconsistentKeys, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use std::{fmt, sync::Arc};

/// Why a certificate or a key cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unusable {
    /// The file has no `BEGIN CERTIFICATE`.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// What stands there is not one.
    #[error("its certificate is damaged")]
    BadCertificate,
    /// The file has no `BEGIN PRIVATE KEY` or its like.
    #[error("there is no private key in it")]
    NoKey,
    /// What stands there is not one of a kind we know, or is locked with a passphrase.
    #[error("its private key is damaged, of an unknown kind or behind a passphrase")]
    BadKey,
    /// The key belongs to another certificate.
    #[error("its key is not that of the certificate")]
    OtherKey,
    /// Anything else, in the library's words.
    #[error("{0}")]
    Other(Box<str>),
}

impl Unusable {
    pub(super) fn other(error: impl fmt::Display) -> Self {
        Self::Other(error.to_string().into())
    }
}

/// A certificate, those between it and its authority, and its private key.
#[derive(Clone)]
pub struct Identity {
    chain: Arc<[CertificateDer<'static>]>,
    key: Arc<PrivateKeyDer<'static>>,
    validity: Validity,
}

impl Identity {
    /// Reads two PEM texts, the certificate's beginning with the certificate itself.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, Unusable> {
        let chain = certificates(certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| Unusable::NoKey)?;
        let first = chain.first().ok_or(Unusable::NoCertificate)?;
        let validity = Validity::read(first).ok_or(Unusable::BadCertificate)?;
        let signing = provider()
            .key_provider
            .load_private_key(key.clone_key())
            .map_err(|_| Unusable::BadKey)?;
        match CertifiedKey::new(chain.clone(), signing).keys_match() {
            // Where the key does not tell its public half, the handshake will.
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => return Err(Unusable::OtherKey),
            Err(_) => return Err(Unusable::BadCertificate),
        }
        Ok(Self { chain: chain.into(), key: Arc::new(key), validity })
    }

    /// Returns from when to when the certificate holds.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.to_vec()
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain && self.key.secret_der() == other.key.secret_der()
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("validity", &self.validity).finish_non_exhaustive()
    }
}

/// Certificates of those whose signature we believe.
#[derive(Clone, Eq, PartialEq)]
pub struct Authorities(Arc<[CertificateDer<'static>]>);

impl Authorities {
    /// Reads a PEM text with one certificate or several.
    pub fn from_pem(text: &str) -> Result<Self, Unusable> {
        let read = Self(certificates(text)?.into());
        read.store()?;
        Ok(read)
    }

    /// Takes what the system trusts (DER), less what cannot be read.
    pub fn from_der(certificates: impl Iterator<Item = Vec<u8>>) -> Self {
        Self(certificates.map(CertificateDer::from).collect())
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is none: then nobody is believed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether this certificate is itself one of them.
    pub(super) fn contains(&self, certificate: &CertificateDer<'_>) -> bool {
        self.0.iter().any(|ours| ours.as_ref() == certificate.as_ref())
    }

    pub(super) fn store(&self) -> Result<Arc<RootCertStore>, Unusable> {
        let mut store = RootCertStore::empty();
        let (taken, _) = store.add_parsable_certificates(self.0.iter().cloned());
        if taken == 0 { Err(Unusable::BadCertificate) } else { Ok(Arc::new(store)) }
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({})", self.len())
    }
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let read = read.map_err(|_| Unusable::BadCertificate)?;
    if read.is_empty() { Err(Unusable::NoCertificate) } else { Ok(read) }
}
