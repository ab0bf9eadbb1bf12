//! Where a node listens, and what it says when it cannot.

use super::{
    phone::Phone,
    rig::{Rig, at, soon},
};
use std::net::{Ipv4Addr, UdpSocket};
use tandem::{ids::Transport, shell::node::Node, sip::HeaderName};

const EVERYWHERE: [(&str, &str); 2] = [
    (r#"["udp:127.0.0.1:0", "tcp:127.0.0.1:0"]"#, "127.0.0.1"),
    (r#"["udp:[::1]:0", "tcp:[::1]:0"]"#, "::1"),
];

#[tokio::test]
async fn options_are_answered_on_every_transport_and_family() {
    for (listen, ip) in EVERYWHERE {
        let rig = Rig::listening(listen, "");
        let node = rig.start().await;
        assert_eq!(
            at(&node, Transport::Udp),
            at(&node, Transport::Tcp),
            "one port for both, as phones expect it"
        );
        for transport in [Transport::Udp, Transport::Tcp] {
            let remote = at(&node, transport);
            assert_eq!(remote.ip().to_string(), ip);
            let mut phone = match transport {
                Transport::Udp => Phone::udp("1001", remote).await,
                Transport::Tcp | Transport::Tls => Phone::tcp("1001", remote).await,
            };
            let options = phone.options();
            phone.link.send(options.as_bytes()).await;
            let answer = phone.link.message().await;
            assert_eq!(answer.status(), 200);
            let via = answer.via();
            assert_eq!(via.params.get("rport"), Some(&*phone.link.local().port().to_string()));
            let allow = answer.header_str(HeaderName::Allow).unwrap_or_default().into_owned();
            assert!(allow.contains("INVITE"), "{allow}");
        }
        node.stop().await;
    }
}

/// The wild-card addresses of both families at one port, as a dual-stack node has them.
#[tokio::test]
async fn both_families_share_a_port() {
    let (port, _rig, node) = everywhere().await;
    for ip in ["127.0.0.1", "::1"] {
        let remote = std::net::SocketAddr::new(ip.parse().unwrap(), port);
        for mut phone in [Phone::udp("1001", remote).await, Phone::tcp("1001", remote).await] {
            assert_eq!(phone.register(600).await.status(), 200, "{remote}");
            let (ok, mut talk) = phone.call("600").await;
            assert_eq!(ok.status(), 200, "{remote}");
            let contact = tandem::dialog::contact_uri(&ok).unwrap();
            assert!(contact.contains(&remote.to_string()), "{contact} leads to {remote}");
            assert_eq!(phone.hang_up(&mut talk).await.status(), 200);
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_told_with_what_to_do() {
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let rig = Rig::listening(&format!(r#"["udp:{address}"]"#), "");
    let Err(error) = rig.try_start().await else { panic!("{address} was free") };
    let sentence = error.to_string();
    let start = format!("cannot listen on udp:{address}: ");
    assert!(sentence.starts_with(&start), "{sentence}");
    assert!(sentence.ends_with("stop it, or change `[sip] listen`)"), "{sentence}");
    assert!(!rig.socket().exists(), "nothing of it runs");
}

#[tokio::test]
async fn a_second_node_is_told_about_the_first() {
    let rig = Rig::new("");
    let node = rig.start().await;
    let Err(error) = soon("the refusal", rig.try_start()).await else { panic!("two of them run") };
    let sentence = error.to_string();
    assert!(sentence.starts_with("another tandem listens at "), "{sentence}");
    node.stop().await;
}

/// A node on all addresses, at a port that is free on all of them: others may take it before it does.
async fn everywhere() -> (u16, Rig, Node) {
    let mut tries_left = 100;
    loop {
        let port = free_port();
        let listen = format!(
            r#"["udp:0.0.0.0:{port}", "tcp:0.0.0.0:{port}", "udp:[::]:{port}", "tcp:[::]:{port}"]"#
        );
        let rig = Rig::listening(&listen, "");
        match rig.try_start().await {
            Ok(node) => return (port, rig, node),
            Err(error) => assert!(tries_left > 0, "{error}"),
        }
        tries_left -= 1;
    }
}

fn free_port() -> u16 {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
