//! Connections: kept alive, reused, closed.

use super::{Wrong, client::*};
use crate::sim::twilio::*;

const NUMBER: &str = "+14155550199";

fn again() -> Flow {
    Flow { local: addr(CLIENT_AGAIN), ..way(Transport::Tls) }
}

pub(super) const CLIENTS: &[Wrong] = &[
    (Rule::DoubleCrlf, || {
        let mut world = world(|_| {});
        for _ in 0..2 {
            say_over(&mut world, way(Transport::Tls), Bytes::from_static(b"\r\n"));
        }
        rules(&mut world)
    }),
    (Rule::KeepAlive, || {
        let mut world = world(|_| {});
        up(&mut world, NUMBER, way(Transport::Tcp));
        pass(&mut world, 121_000);
        rules(&mut world)
    }),
    (Rule::ReusesConnection, || {
        let mut world = world(|_| {});
        let flow = way(Transport::Tls);
        let tag = up(&mut world, NUMBER, flow);
        say_over(&mut world, again(), inside("BYE", TARGET, &routes(flow), 2, &tag));
        assert_eq!(status(&mut world), 200);
        rules(&mut world)
    }),
];

/// Idle connections end after 120 s; single CRLFs make it 30, double ones keep them.
#[test]
fn idle_connections_are_closed() {
    for (said, closed_s) in [("\r\n\r\n", 130), ("\r\n", 40), ("", 120)] {
        let mut world = world(|_| {});
        let flow = way(Transport::Tls);
        say_over(&mut world, flow, Said::to("+15005550404").bytes());
        pass(&mut world, 9900);
        if !said.is_empty() {
            say_over(&mut world, flow, Bytes::from_static(said.as_bytes()));
        }
        let mut closed = |at_ms| {
            world.run_until(at_ms);
            with_client(&mut world, |client| client.closed.clone())
        };
        assert_eq!(closed(closed_s * 1000 - 100), []);
        assert_eq!(closed(closed_s * 1000 + 100), [flow], "{said:?}");
    }
}

/// After a connection is gone, requests come over a new one; the 2xx then says `;twnat=`, which means
/// nothing.
#[test]
fn a_new_connection_is_told_what_it_must_ignore() {
    let mut world = world(|_| {});
    let flow = way(Transport::Tls);
    let tag = up(&mut world, NUMBER, flow);
    with_trunk(&mut world, |twilio, now| {
        let seen_there = Flow { local: flow.remote, remote: flow.local, ..flow };
        twilio.closed(seen_there, now);
    });
    let said = |method: &str, target: &str, cseq| inside(method, target, &routes(flow), cseq, &tag);
    say_over(&mut world, again(), said("INVITE", TARGET, 2));
    let contact = with_client(&mut world, |client| {
        let answer = client.heard.iter().find(|message| message.status() == 200).unwrap();
        answer.header_str(HeaderName::Contact).unwrap().into_owned()
    });
    assert!(contact.contains(";twnat=sip:"), "{contact}");
    say_over(&mut world, again(), said("ACK", TARGET, 2));
    say_over(&mut world, again(), said("BYE", contact.trim_matches(['<', '>']), 3));
    assert_eq!((status(&mut world), rules(&mut world)), (481, vec![Rule::IgnoresTwnat]));
    forget(&mut world);
    say_over(&mut world, again(), said("BYE", TARGET, 4));
    assert_eq!((status(&mut world), rules(&mut world).len()), (200, 1));
}

/// A connection to the PBX is used as long as it lives, whatever its port.
#[test]
fn what_came_over_a_connection_is_answered_over_it() {
    let mut world = world(|_| {});
    let flow = again();
    up(&mut world, "+15005550002", flow);
    pass(&mut world, 3500);
    let bye = world.sent().iter().find(|sent| sent.message.method() == Method::Bye).unwrap();
    assert_eq!(bye.flow.remote, addr(CLIENT_AGAIN));
}
