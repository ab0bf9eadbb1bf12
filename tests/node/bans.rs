//! Bans in a running node: seen, counted, kept over a restart, lifted.

use super::rig::{Rig, UDP_AND_TCP, ask, at, fetch, until};
use tandem::{
    ids::Transport,
    observe::status::{Request, Response},
    shell::{control, node::Node},
};
use tokio::net::UdpSocket;

/// Nobody is above suspicion, and three scans are too many.
const STRICT: &str = "[bans]\njunk = 3\nnever = []";

async fn scan(node: &Node, times: usize) {
    let socket = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    let own = socket.local_addr().unwrap();
    for n in 0..times {
        let options = format!(
            "OPTIONS sip:100@pbx SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{n};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:100@pbx>;tag=a\r\nTo: <sip:100@pbx>\r\n\
             Call-ID: {n}\r\nCSeq: 1 OPTIONS\r\nUser-Agent: friendly-scanner\r\n\
             Content-Length: 0\r\n\r\n"
        );
        socket.send_to(options.as_bytes(), at(node, Transport::Udp)).await.unwrap();
    }
}

fn is_banned(response: &Response) -> bool {
    matches!(response, Response::Bans(rows) if rows.iter().any(|row| row.source == "127.0.0.2"))
}

#[tokio::test]
async fn a_ban_is_seen_survives_a_restart_and_is_lifted() {
    let rig = Rig::new(STRICT);
    let node = rig.start().await;
    assert_eq!(ask(&node, Request::Bans).await, Response::Bans(vec![]));
    scan(&node, 3).await;
    until(&node, Request::Bans, is_banned).await;
    let page = fetch(node.http().unwrap(), "/metrics").await;
    for fact in ["tandem_bans_total{reason=\"junk\"} 1", "tandem_bans 1"] {
        assert!(page.contains(fact), "{fact}\n{page}");
    }
    node.stop().await;

    let node = rig.start().await;
    assert!(is_banned(&ask(&node, Request::Bans).await));
    let lift = |addresses: &str| Request::Lift { addresses: addresses.to_owned() };
    let lifted = control::ask(&rig.socket(), &lift("127.0.0.2")).await.unwrap();
    assert_eq!(lifted, Response::Done("127.0.0.2 is answered again".to_owned()));
    assert_eq!(ask(&node, Request::Bans).await, Response::Bans(vec![]));
    let Response::NotFound(_) = ask(&node, lift("127.0.0.2")).await else { panic!() };
    let Response::Refused(_) = ask(&node, lift("me")).await else { panic!() };
    node.stop().await;

    let node = rig.start().await;
    assert_eq!(ask(&node, Request::Bans).await, Response::Bans(vec![]));
    node.stop().await;
}

/// This machine is not banned unless the configuration says so.
#[tokio::test]
async fn loopback_is_above_suspicion() {
    let rig = Rig::listening(UDP_AND_TCP, "[bans]\njunk = 3");
    let node = rig.start().await;
    scan(&node, 10).await;
    let discarded = |response: &Response| matches!(response, Response::Status(report) if report.signalling.discarded >= 10);
    until(&node, Request::Status, discarded).await;
    assert_eq!(ask(&node, Request::Bans).await, Response::Bans(vec![]));
    node.stop().await;
}
