//! Who is believed to be the peer that we called.
//!
//! Owns: the name rules. A wildcard stands for one label (RFC 6125 6.4.3): RFC 5922 7.2 refuses all
//! of them, and carriers' certificates have nothing else.
//! Never: looks at a certificate that is shown to us by who connects to us; `rustls` does.

use super::identity::{Authorities, Unusable};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

type Verified = Result<ServerCertVerified, Error>;
type Signed = Result<HandshakeSignatureValid, Error>;

/// Believes who was signed by an authority, or is one: a PBX with a certificate of its own making is
/// its own authority, and may not be one by the rules for chains.
#[derive(Debug)]
pub(super) struct Verifier {
    chains: Arc<WebPkiServerVerifier>,
    authorities: Authorities,
}

impl Verifier {
    pub(super) fn new(
        authorities: &Authorities,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Unusable> {
        let builder = WebPkiServerVerifier::builder_with_provider(authorities.store()?, provider);
        let chains = builder.build().map_err(Unusable::other)?;
        Ok(Self { chains, authorities: authorities.clone() })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Verified {
        if !self.authorities.contains(end_entity) {
            return self.chains.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        let validity = super::Validity::read(end_entity)
            .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let wall = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(now.as_secs()));
        let wall = wall.unwrap_or(SystemTime::UNIX_EPOCH);
        match () {
            () if wall < validity.not_before => Err(CertificateError::NotValidYet.into()),
            () if validity.not_after < wall => Err(CertificateError::Expired.into()),
            () => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Signed {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Signed {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Believes anybody who has the key of the certificate that they show.
#[derive(Debug)]
pub(super) struct Anybody(Arc<CryptoProvider>);

impl Anybody {
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Self {
        Self(provider)
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Verified {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Signed {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Signed {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
