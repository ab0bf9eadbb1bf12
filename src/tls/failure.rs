//! Why a handshake failed, in terms its operator can act on.
//!
//! Owns: the causes with their stable codes, sentences and remedies.
//! Never: prints what a peer sent.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
use std::io;

/// Why no TLS connection came about.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Failure {
    /// Nobody that we trust has signed the peer's certificate.
    #[error("its certificate is from an authority that we do not know")]
    UnknownAuthority,
    /// The certificate names somebody else.
    #[error("its certificate names somebody else")]
    OtherName,
    /// The certificate's time is over, or has not come; or our clock is wrong.
    #[error("its certificate does not hold now")]
    Dates,
    /// The two sides have no version of TLS in common.
    #[error("it speaks no TLS from 1.2 on")]
    Version,
    /// The peer wants a certificate of ours, or another than we showed.
    #[error("it does not accept our certificate, or wants one that we do not have")]
    OurCertificate,
    /// What came is not TLS.
    #[error("it does not speak TLS there")]
    NotTls,
    /// The peer took too long, or closed the connection.
    #[error("it went away, or took too long")]
    Gone,
    /// The connection was not opened at all.
    #[error("no connection: {0}")]
    Unreachable(Box<str>),
    /// Anything else, in the library's words.
    #[error("{0}")]
    Other(Box<str>),
}

impl Failure {
    /// Reads the error of a handshake.
    pub fn of(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match inner {
            Some(error) => Self::of_tls(error),
            None => Self::Gone,
        }
    }

    /// Reads the error of a connection that had been made: what the peer says of our certificate
    /// comes only then (RFC 8446 4.4.2.4). `None` where that is not what ended it.
    pub fn after_handshake(error: &io::Error) -> Option<Self> {
        match Self::of(error) {
            Self::OurCertificate => Some(Self::OurCertificate),
            Self::UnknownAuthority
            | Self::OtherName
            | Self::Dates
            | Self::Version
            | Self::NotTls
            | Self::Gone
            | Self::Unreachable(_)
            | Self::Other(_) => None,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "open-ended, and not ours")]
    fn of_tls(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(certificate) => Self::of_certificate(certificate),
            Error::AlertReceived(alert) => Self::of_alert(*alert),
            Error::NoCertificatesPresented => Self::OurCertificate,
            Error::PeerIncompatible(_) => Self::Version,
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Self::NotTls,
            other => Self::Other(other.to_string().into()),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "open-ended, and not ours")]
    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            // The latter: an authority of that name, and another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Self::UnknownAuthority
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::OtherName
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::Dates,
            other => Self::Other(Error::InvalidCertificate(other.clone()).to_string().into()),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "open-ended, and not ours")]
    fn of_alert(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::ProtocolVersion | AlertDescription::InsufficientSecurity => {
                Self::Version
            }
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::UnknownCA => Self::OurCertificate,
            AlertDescription::CloseNotify | AlertDescription::UserCanceled => Self::Gone,
            other => Self::Other(Error::AlertReceived(other).to_string().into()),
        }
    }

    /// Returns a code that stays the same across releases.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownAuthority => "T040",
            Self::OtherName => "T041",
            Self::Dates => "T042",
            Self::Version => "T043",
            Self::OurCertificate => "T044",
            Self::NotTls => "T045",
            Self::Gone => "T046",
            Self::Unreachable(_) => "T047",
            Self::Other(_) => "T048",
        }
    }

    /// Returns a word for a counter.
    pub fn word(&self) -> &'static str {
        match self {
            Self::UnknownAuthority => "unknown_authority",
            Self::OtherName => "other_name",
            Self::Dates => "dates",
            Self::Version => "version",
            Self::OurCertificate => "our_certificate",
            Self::NotTls => "not_tls",
            Self::Gone => "gone",
            Self::Unreachable(_) => "unreachable",
            Self::Other(_) => "other",
        }
    }

    /// Returns what to do about it where the peer is a trunk.
    pub fn help(&self) -> &'static str {
        match self {
            Self::UnknownAuthority => {
                "install the system's `ca-certificates`, or name the carrier's authority in the \
                 trunk's `tls = { ca = \"file.pem\" }`"
            }
            Self::OtherName => {
                "write the name that the certificate has: as the trunk's `uri`, or in \
                 `tls = { server_name = \"...\" }`"
            }
            Self::Dates => "look at this machine's clock; else the carrier must renew it",
            Self::Version => {
                "the carrier must offer TLS 1.2 or 1.3 (Twilio reports the reverse as error 32222)"
            }
            Self::OurCertificate => {
                "set `certificate` and `key` in the trunk's `tls = { ... }` as the carrier wants them"
            }
            Self::NotTls => "use the carrier's port for TLS: 5061, or leave the port out",
            Self::Gone => "see that the firewall lets TCP 5061 out, and that the port is right",
            Self::Unreachable(_) => "see that the firewall lets TCP 5061 out",
            Self::Other(_) => "set `[log] level = \"debug\"` and compare with the carrier's side",
        }
    }
}
