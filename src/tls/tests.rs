//! Handshakes in memory between every kind of peer.

use super::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::{ClientConnection, Connection, ServerConnection};
use std::io;

/// An authority made for one test.
struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn authorities(&self) -> Authorities {
        Authorities::from_pem(&self.0.pem()).unwrap()
    }

    fn signs(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity::from_pem(&certificate.pem(), &key.serialize_pem()).unwrap()
    }

    fn names(&self, name: &str) -> Identity {
        self.signs(&CertificateParams::new(vec![name.to_owned()]).unwrap())
    }
}

/// Lets the two speak until both are done, or one gives up.
fn shake(server: &Server, client: &Client, name: &str) -> Result<(), Failure> {
    let name = server_name(name).unwrap();
    let mut client: Connection = ClientConnection::new(client.config(), name).unwrap().into();
    let mut server: Connection = ServerConnection::new(server.config()).unwrap().into();
    let failed = |error| Failure::of(&io::Error::new(io::ErrorKind::InvalidData, error));
    for _ in 0..8 {
        for _ in 0..2 {
            let mut bytes = vec![];
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            while !bytes.is_empty() && server.wants_read() {
                let read = server.read_tls(&mut bytes.as_slice()).unwrap();
                bytes.drain(..read);
                server.process_new_packets().map_err(failed)?;
            }
            std::mem::swap(&mut client, &mut server);
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking(), "they do not come to an end");
    Ok(())
}

fn trusting(authorities: &Authorities) -> Client {
    Client::new(Trust::Authorities(authorities), None).unwrap()
}

#[test]
fn a_name_must_be_the_certificate_s() {
    let ca = Ca::new();
    let wild = Server::new(&ca.names("*.pstn.twilio.com"), &Clients::Off).unwrap();
    let address = Server::new(&ca.names("127.0.0.1"), &Clients::Off).unwrap();
    for (server, name, want) in [
        (&wild, "acme.pstn.twilio.com", Ok(())),
        (&wild, "ACME.pstn.twilio.com.", Ok(())),
        (&wild, "acme.pstn.frankfurt.twilio.com", Err(Failure::OtherName)),
        (&wild, "pstn.twilio.com", Err(Failure::OtherName)),
        (&wild, "127.0.0.1", Err(Failure::OtherName)),
        (&address, "127.0.0.1", Ok(())),
        (&address, "localhost", Err(Failure::OtherName)),
    ] {
        assert_eq!(shake(server, &trusting(&ca.authorities()), name), want, "{name}");
    }
}

#[test]
fn a_stranger_is_not_believed_unless_one_wants_to() {
    let (ca, other) = (Ca::new(), Ca::new());
    let server = Server::new(&ca.names("a.example"), &Clients::Off).unwrap();
    let refused = shake(&server, &trusting(&other.authorities()), "a.example");
    assert_eq!(refused, Err(Failure::UnknownAuthority));
    let anybody = Client::new(Trust::Anybody, None).unwrap();
    assert_eq!(shake(&server, &anybody, "b.example"), Ok(()));
}

/// `openssl req -x509` makes an authority that is also its own server.
#[test]
fn a_certificate_may_be_its_own_authority() {
    let mut params = CertificateParams::new(vec!["pbx.example".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for (until, want) in [(2090, Ok(())), (2020, Err(Failure::Dates))] {
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        let identity = Identity::from_pem(&own.pem(), &key.serialize_pem()).unwrap();
        let server = Server::new(&identity, &Clients::Off).unwrap();
        let client = trusting(&Authorities::from_pem(&own.pem()).unwrap());
        assert_eq!(shake(&server, &client, "pbx.example"), want, "{until}");
        assert_eq!(shake(&server, &client, "other.example"), Err(Failure::OtherName));
    }
}

#[test]
fn an_expired_certificate_is_refused() {
    let ca = Ca::new();
    let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    for (from, until) in [(2001, 2002), (2090, 2091)] {
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let server = Server::new(&ca.signs(&params), &Clients::Off).unwrap();
        let refused = shake(&server, &trusting(&ca.authorities()), "a.example");
        assert_eq!(refused, Err(Failure::Dates), "{from}");
    }
}

#[test]
fn a_client_shows_a_certificate_where_one_is_wanted() {
    let (ca, other) = (Ca::new(), Ca::new());
    let identity = ca.names("a.example");
    let required = Clients::Require(ca.authorities());
    let optional = Clients::Optional(ca.authorities());
    let (ours, theirs) = (ca.names("client"), other.names("client"));
    for (clients, shown, want) in [
        (&Clients::Off, None, Ok(())),
        (&Clients::Off, Some(&theirs), Ok(())),
        (&optional, None, Ok(())),
        (&optional, Some(&ours), Ok(())),
        (&optional, Some(&theirs), Err(Failure::UnknownAuthority)),
        (&required, None, Err(Failure::OurCertificate)),
        (&required, Some(&ours), Ok(())),
        (&required, Some(&theirs), Err(Failure::UnknownAuthority)),
    ] {
        let server = Server::new(&identity, clients).unwrap();
        let client = Client::new(Trust::Authorities(&ca.authorities()), shown).unwrap();
        assert_eq!(shake(&server, &client, "a.example"), want, "{clients:?} {shown:?}");
    }
}

#[test]
fn what_cannot_be_used_is_named() {
    let ca = Ca::new();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ca.0).unwrap().pem();
    let key = key.serialize_pem();
    let other = KeyPair::generate().unwrap().serialize_pem();
    let damaged = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let locked = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n";
    for (certificate, key, want) in [
        (&*certificate, &*key, None),
        (&*key, &*key, Some(Unusable::NoCertificate)),
        ("", &*key, Some(Unusable::NoCertificate)),
        (damaged, &*key, Some(Unusable::BadCertificate)),
        (&*certificate, &*certificate, Some(Unusable::NoKey)),
        (&*certificate, locked, Some(Unusable::BadKey)),
        (&*certificate, &*other, Some(Unusable::OtherKey)),
    ] {
        assert_eq!(Identity::from_pem(certificate, key).err(), want);
    }
    assert_eq!(Authorities::from_pem("nothing"), Err(Unusable::NoCertificate));
    assert_eq!(Authorities::from_pem(damaged), Err(Unusable::BadCertificate));
    let shown = format!("{:?}", Identity::from_pem(&certificate, &key).unwrap());
    assert!(!shown.contains("key"), "{shown}");
}

#[test]
fn dates_are_read_from_real_certificates() {
    let ca = Ca::new();
    let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2026, 11, 1);
    params.not_after = date_time_ymd(2055, 2, 28);
    let validity = ca.signs(&params).validity();
    let seconds = |time: std::time::SystemTime| {
        time.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs()
    };
    assert_eq!(seconds(validity.not_before), 1_793_491_200);
    assert_eq!(seconds(validity.not_after), 2_687_385_600);
}

#[test]
fn a_peer_s_words_about_us_are_told_from_ours_about_it() {
    let of = |error: rustls::Error| Failure::of(&io::Error::new(io::ErrorKind::InvalidData, error));
    let alert = |alert| of(rustls::Error::AlertReceived(alert));
    use rustls::AlertDescription as A;
    assert_eq!(alert(A::UnknownCA), Failure::OurCertificate);
    assert_eq!(alert(A::ProtocolVersion), Failure::Version);
    let plain = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
    assert_eq!(of(plain), Failure::NotTls);
    assert_eq!(Failure::of(&io::ErrorKind::UnexpectedEof.into()), Failure::Gone);
    assert_eq!(Failure::after_handshake(&io::ErrorKind::UnexpectedEof.into()), None);
}
