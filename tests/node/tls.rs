//! TLS: who is believed, what a closed connection costs, what a reload changes.

use super::{
    phone::{Link, Phone, sdp},
    rig::{PASSWORD, Rig, ask, at, fetch, page_until, soon, until},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::net::{IpAddr, SocketAddr};
use tandem::{
    ids::Transport,
    observe::status::{Request, Response},
    shell::node::Node,
    sip::{Message, framing::Frame},
    tls::{Authorities, Client, Clients, Identity, Server, Trust, server_name},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

const NAME: &str = "carrier.example.com";

/// An authority made for one test.
struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Returns a certificate for a name, and its key.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn identity(&self, name: &str) -> Identity {
        let (certificate, key) = self.issue(name);
        Identity::from_pem(&certificate, &key).unwrap()
    }

    fn authorities(&self) -> Authorities {
        Authorities::from_pem(&self.0.pem()).unwrap()
    }

    /// Writes the node's certificate, which is for its address, and this authority's.
    fn write(&self, rig: &Rig) {
        let (certificate, key) = self.issue("127.0.0.1");
        rig.write("pbx.pem", &certificate);
        rig.write("pbx.key", &key);
        rig.write("ca.pem", &self.0.pem());
    }

    /// Connects to the node.
    async fn connect(&self, to: SocketAddr, shown: Option<&Identity>) -> TlsStream<TcpStream> {
        self.try_connect(to, shown).await.unwrap()
    }

    async fn try_connect(
        &self,
        to: SocketAddr,
        shown: Option<&Identity>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let client = Client::new(Trust::Authorities(&self.authorities()), shown).unwrap();
        let stream = TcpStream::connect(to).await.unwrap();
        let name = server_name(&to.ip().to_string()).unwrap();
        let connector = TlsConnector::from(client.config());
        soon("a handshake", connector.connect(name, stream)).await
    }

    async fn phone(&self, user: &str, node: &Node) -> Phone {
        let to = at(node, Transport::Tls);
        Phone::on(user, to, Link::tls(self.connect(to, None).await))
    }
}

/// A carrier that speaks TLS and hears what comes.
struct Carrier {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Carrier {
    async fn new(ip: [u8; 4], identity: &Identity) -> Self {
        let listener = TcpListener::bind((IpAddr::from(ip), 0)).await.unwrap();
        let server = Server::new(identity, &Clients::Off).unwrap();
        Self { listener, acceptor: TlsAcceptor::from(server.config()) }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Waits for a connection; returns what it asked for by name as well.
    async fn accept(&self) -> (Phone, Option<String>) {
        let (stream, remote) = soon("a connection", self.listener.accept()).await.unwrap();
        let stream = soon("a handshake", self.acceptor.accept(stream)).await.unwrap();
        let name = stream.get_ref().1.server_name().map(str::to_owned);
        (Phone::on("+14155550199", remote, Link::tls(stream)), name)
    }

    /// Waits for one that does not get as far.
    async fn refuse(&self) -> String {
        let (stream, _) = soon("a connection", self.listener.accept()).await.unwrap();
        soon("a handshake", self.acceptor.accept(stream)).await.unwrap_err().to_string()
    }

    /// Writes the configuration of a trunk here.
    fn trunk(&self, tls: &str) -> String {
        format!(
            "[trunk.secure]\nuri = \"{NAME}\"\naddress = \"{}\"\ntransport = \"tls\"\nsrtp = \"off\"\n\
             caller_id = \"+17756187988\"\ntls = {{ {tls} }}\n",
            self.address()
        )
    }
}

const LISTEN: &str = r#"["udp:127.0.0.1:0", "tls:127.0.0.1:0"]"#;
const CERTIFICATE: &str = "[tls]\ncertificate = \"pbx.pem\"\nkey = \"pbx.key\"\n";

/// A rig whose calls out take the trunk `secure`, and whose calls in reach 1001.
fn rig(ca: &Ca, more: &str) -> Rig {
    let rig = Rig::listening(LISTEN, &format!("{CERTIFICATE}{more}"));
    ca.write(&rig);
    let trunk = if more.contains("[trunk.secure]") { "trunk:secure" } else { "trunk:carrier" };
    let rules = super::rig::RULES.replace("trunk:carrier", trunk);
    rig.write(
        "rules.toml",
        &format!("{rules}[[inbound.rule]]\nmatch = \"_+X.\"\ndial = \"user:1001\"\n"),
    );
    rig
}

async fn is_quiet(node: &Node) {
    until(node, Request::Calls, |answer| *answer == Response::Calls(vec![])).await;
}

#[tokio::test]
async fn phones_register_and_call_each_other() {
    let ca = Ca::new();
    let rig = rig(&ca, &format!("[user.1002]\npassword = \"{PASSWORD}\"\nsrtp = \"off\"\n"));
    let node = rig.start().await;
    let mut callee = ca.phone("1002", &node).await;
    assert_eq!(callee.register(600).await.status(), 200);
    let mut caller = ca.phone("1001", &node).await;
    caller.dial("1002").await;
    let invite = callee.heard().await;
    let port = at(&node, Transport::Tls).port();
    assert_eq!((invite.via().transport, invite.via().port), ("TLS", Some(port)));
    let contact = tandem::dialog::contact_uri(&invite).unwrap();
    assert!(contact.ends_with(&format!(":{port};transport=tls")), "{contact}");
    let body = sdp(callee.link.local());
    callee.answer(&invite, 200, &body).await;
    assert_eq!(callee.heard().await.method_token(), "ACK");
    let (ok, mut talk) = caller.dialled().await;
    assert_eq!(ok.status(), 200);
    assert_eq!(caller.hang_up(&mut talk).await.status(), 200);
    callee.is_hung_up().await;
    is_quiet(&node).await;
    caller.link.send(b"\r\n\r\n").await;
    assert_eq!(caller.link.frame().await, Some(Frame::Pong));

    let page = fetch(node.http().unwrap(), "/metrics").await;
    assert!(page.contains("tandem_sip_connections{transport=\"tls\"} 2"), "{page}");
    node.stop().await;
}

/// RFC 3261 26.2.2 would have every hop be TLS; the carrier's is, or is not, by its trunk.
#[tokio::test]
async fn sips_uris_are_refused() {
    let ca = Ca::new();
    let rig = rig(&ca, "");
    let node = rig.start().await;
    let mut phone = ca.phone("1001", &node).await;
    let options = phone.options().replacen("OPTIONS sip:", "OPTIONS sips:", 1);
    phone.link.send(options.as_bytes()).await;
    assert_eq!(phone.link.message().await.status(), 416);
    node.stop().await;
}

/// Calls the carrier until it has answered. Returns the phone's dialog, and the carrier's side.
async fn talking(phone: &mut Phone, carrier: &Carrier) -> (super::phone::Talk, Phone) {
    phone.dial("+14155550199").await;
    let (mut far, name) = carrier.accept().await;
    assert_eq!(name.as_deref(), Some(NAME), "the name, though an address was configured");
    let invite = far.heard().await;
    assert_eq!(invite.uri(), format!("sip:+14155550199@{NAME};transport=tls"));
    answer(&mut far, &invite).await;
    let (ok, talk) = phone.dialled().await;
    assert_eq!(ok.status(), 200);
    (talk, far)
}

async fn answer(far: &mut Phone, invite: &Message) {
    let body = sdp(far.link.local());
    far.answer(invite, 200, &body).await;
    assert_eq!(far.heard().await.method_token(), "ACK");
}

/// A carrier closes what is idle, and says nothing: not in TLS (close_notify), not in SIP.
#[tokio::test]
async fn a_call_outlives_its_connection() {
    let ca = Ca::new();
    let carrier = Carrier::new([127, 0, 0, 2], &ca.identity("*.example.com")).await;
    let rig = rig(&ca, &carrier.trunk("ca = \"ca.pem\""));
    let node = rig.start().await;
    let mut phone = Phone::udp("1001", at(&node, Transport::Udp)).await;
    let (mut talk, mut far) = talking(&mut phone, &carrier).await;
    // The node cannot know better than to write the BYE: nobody has told it of the end before.
    let (hung_up, ()) = tokio::join!(phone.hang_up(&mut talk), async {
        assert_eq!(far.heard().await.method_token(), "BYE");
        drop(far);
        let (mut far, name) = carrier.accept().await;
        assert_eq!(name.as_deref(), Some(NAME));
        far.is_hung_up().await;
    });
    assert_eq!(hung_up.status(), 200);
    is_quiet(&node).await;
    node.stop().await;
}

/// The port from which a carrier calls is none on which it listens; its Route has that one.
#[tokio::test]
async fn a_call_that_came_in_is_hung_up_where_the_route_says() {
    let ca = Ca::new();
    let carrier = Carrier::new([127, 0, 0, 3], &ca.identity(NAME)).await;
    let rig = rig(&ca, &carrier.trunk("ca = \"ca.pem\""));
    let node = rig.start().await;
    let mut phone = Phone::udp("1001", at(&node, Transport::Udp)).await;
    assert_eq!(phone.register(600).await.status(), 200);

    let to = at(&node, Transport::Tls);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((carrier.address().ip(), 0).into()).unwrap();
    let stream = socket.connect(to).await.unwrap();
    let client = Client::new(Trust::Authorities(&ca.authorities()), None).unwrap();
    let name = server_name("127.0.0.1").unwrap();
    let stream = TlsConnector::from(client.config()).connect(name, stream).await.unwrap();
    let mut far = Phone::on("+14155550199", to, Link::tls(stream));
    far.path = format!("Record-Route: <sip:{};transport=tls;lr>\r\n", carrier.address());
    // A trunk is not challenged: the first response is the answer.
    let (invite, ()) = tokio::join!(
        async {
            let invite = phone.heard().await;
            answer(&mut phone, &invite).await;
            invite
        },
        far.dial("+17756187988"),
    );
    let (ok, _) = far.dialled().await;
    assert_eq!(ok.status(), 200);
    drop(far);
    is_closed(&node, 0).await;
    phone.hangs_up(&invite).await;
    let (mut far, name) = carrier.accept().await;
    assert_eq!(name.as_deref(), Some(NAME));
    far.is_hung_up().await;
    is_quiet(&node).await;
    node.stop().await;
}

/// Waits until so many connections over TLS are left.
async fn is_closed(node: &Node, left: usize) {
    let line = format!("tandem_sip_connections{{transport=\"tls\"}} {left}\n");
    page_until(node.http().unwrap(), "/metrics", |page| page.contains(&line)).await;
}

#[tokio::test]
async fn a_carrier_that_cannot_prove_its_name_gets_no_call() {
    let (ca, other) = (Ca::new(), Ca::new());
    for (identity, tls, code) in [
        (ca.identity("other.example.com"), "ca = \"ca.pem\"", "other_name"),
        (other.identity(NAME), "ca = \"ca.pem\"", "unknown_authority"),
        // The system has never heard of either.
        (ca.identity(NAME), "", "unknown_authority"),
    ] {
        let carrier = Carrier::new([127, 0, 0, 4], &identity).await;
        let rig = rig(&ca, &carrier.trunk(tls));
        let node = rig.start().await;
        let mut phone = Phone::udp("1001", at(&node, Transport::Udp)).await;
        phone.dial("+14155550199").await;
        carrier.refuse().await;
        assert_eq!(phone.dialled().await.0.status(), 503, "{code}");
        is_quiet(&node).await;
        let page = fetch(node.http().unwrap(), "/metrics").await;
        let refused = "tandem_trunk_refusals_total{trunk=\"secure\",code=\"T028\"} 1";
        assert!(page.contains(refused), "{page}");
        let line = format!("tandem_tls_handshake_failures_total{{reason=\"{code}\"}} 1");
        assert!(page.contains(&line), "{line}\n{page}");
        node.stop().await;
    }
}

#[tokio::test]
async fn a_name_may_be_given_or_not_looked_at() {
    let ca = Ca::new();
    let carrier = Carrier::new([127, 0, 0, 5], &ca.identity("sbc.example.com")).await;
    for tls in ["ca = \"ca.pem\", server_name = \"sbc.example.com\"", "verify = false"] {
        let rig = rig(&ca, &carrier.trunk(tls));
        let node = rig.start().await;
        let mut phone = Phone::udp("1001", at(&node, Transport::Udp)).await;
        phone.dial("+14155550199").await;
        let (mut far, _) = carrier.accept().await;
        let invite = far.heard().await;
        far.answer(&invite, 486, "").await;
        assert_eq!(phone.dialled().await.0.status(), 486, "{tls}");
        node.stop().await;
    }
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections() {
    let (old, new) = (Ca::new(), Ca::new());
    let rig = rig(&old, "");
    let node = rig.start().await;
    let mut phone = old.phone("1001", &node).await;
    assert_eq!(phone.register(600).await.status(), 200);

    new.write(&rig);
    let Response::Reload(report) = ask(&node, Request::Reload).await else { panic!() };
    assert!(report.is_applied && report.by_process.is_empty(), "{report:?}");
    let mut other = new.phone("1001", &node).await;
    assert_eq!(other.register(600).await.status(), 200);
    assert!(old.try_connect(at(&node, Transport::Tls), None).await.is_err());
    // The old connection is as good as before.
    assert_eq!(phone.register(600).await.status(), 200);

    // A key that is not the certificate's changes nothing.
    rig.write("pbx.key", &old.issue("127.0.0.1").1);
    let Response::Reload(report) = ask(&node, Request::Reload).await else { panic!() };
    assert!(!report.is_applied && report.problems[0].contains("C071"), "{report:?}");
    new.phone("1001", &node).await;
    node.stop().await;
}

#[tokio::test]
async fn where_phones_must_show_a_certificate_nobody_else_gets_in() {
    let (ca, other) = (Ca::new(), Ca::new());
    let rig = rig(&ca, "client_ca = \"ca.pem\"\n");
    let node = rig.start().await;
    let to = at(&node, Transport::Tls);
    let stranger = other.identity("1001");
    for shown in [None, Some(&stranger)] {
        // The client learns of its refusal when it reads.
        if let Ok(stream) = ca.try_connect(to, shown).await {
            assert_eq!(Link::tls(stream).frame().await, None);
        }
    }
    let known = ca.identity("1001");
    let mut phone = Phone::on("1001", to, Link::tls(ca.connect(to, Some(&known)).await));
    assert_eq!(phone.register(600).await.status(), 200);
    let line = "tandem_tls_handshake_failures_total{reason=\"accepted\"} 2\n";
    page_until(node.http().unwrap(), "/metrics", |page| page.contains(line)).await;
    node.stop().await;
}

#[tokio::test]
async fn a_thousand_who_never_shake_hands_are_in_nobody_s_way() {
    // Both ends of each connection are in this process.
    tandem::shell::files::raise_limit();
    let ca = Ca::new();
    let rig = rig(&ca, "");
    let node = rig.start().await;
    let to = at(&node, Transport::Tls);
    let mut silent = vec![];
    // More than one source may have, were they not to make room.
    for _ in 0..1_100 {
        silent.push(soon("a connection", TcpStream::connect(to)).await.unwrap());
    }
    let mut phone = ca.phone("1001", &node).await;
    assert_eq!(phone.register(600).await.status(), 200);
    // All but the last few have been cut off, and are counted.
    let name = "tandem_tls_handshake_failures_total{reason=\"accepted\"} ";
    let counted =
        |page: &str| page.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok());
    page_until(node.http().unwrap(), "/metrics", |page| counted(page).is_some_and(|n| n >= 900))
        .await;
    // Whoever speaks something else is told so by being cut off.
    let mut plain = Link::tcp(to).await;
    let options = phone.options();
    plain.send(options.as_bytes()).await;
    while plain.frame().await.is_some() {}
    node.stop().await;
}
