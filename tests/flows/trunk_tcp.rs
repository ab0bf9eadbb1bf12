//! A trunk on TCP, or on TLS with SRTP: calls both ways, routed by what its proxies recorded; and large
//! requests to one that takes datagrams only.

use crate::{
    house::{DID, House, PBX, TRUNK, TWILIO, act, addr, with_pbx, with_phone, with_twilio},
    inbound::call_in,
    storm::{faults, storm},
};
use std::{collections::BTreeSet, time::Duration};
use tandem::{
    ids::Transport,
    sim::{
        Network, World,
        phone::{Act, Heard, On},
        twilio::{self, CallIn, Origination},
    },
    sip::{HeaderName, Method},
};

fn house(seed: u64, transport: Transport) -> World {
    let mut house = House::new(seed);
    let keys = format!("qualify = false\ntransport = \"{}\"", transport.param());
    // With TLS goes SRTP: Secure Trunking is all or nothing.
    let secure = |mut setup: twilio::Setup| {
        setup.policy.secure = transport == Transport::Tls;
        setup
    };
    house.trunk_keys(&keys).twilio_like(secure).phone("1001");
    house.open_registered()
}

fn play(seed: u64, network: Network, transport: Transport, is_outbound: bool) -> World {
    let mut world = house(seed, transport);
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Called, 100, Act::Answer).when(On::Up, 3000, Act::HangUp);
        phone.when(On::Up, 1000, Act::Hold);
    });
    world.set_network(network);
    if is_outbound {
        act(&mut world, "1001", Act::Call("+14155550199".into()));
    } else {
        let call = CallIn {
            to: vec![Origination::new(addr(PBX), transport)],
            talks_for: Some(Duration::from_secs(9)),
            ..call_in(DID)
        };
        with_twilio(&mut world, |twilio, now| twilio.call_in(&call, now));
    }
    world
}

#[test]
fn both_ways() {
    let both = [Transport::Tcp, Transport::Tls].map(|over| [(over, true), (over, false)]);
    for (transport, is_outbound) in both.into_iter().flatten() {
        let mut world = play(1, Network::CLEAN, transport, is_outbound);
        assert_eq!(faults(&mut world), [""; 0], "{}", world.ladder());
        with_phone(&mut world, "1001", |phone, _| {
            assert!(phone.has_heard(&Heard::Changed("sendonly")));
            assert!(phone.has_heard(&Heard::Gone(200)));
        });
        let mut with_trunk =
            world.sent().iter().filter(|sent| &*sent.to == TWILIO || &*sent.from == TWILIO);
        assert!(with_trunk.all(|sent| sent.flow.transport == transport));
    }
}

#[test]
fn on_bad_networks() {
    storm(
        200,
        |seed, network| {
            let transport = if seed % 4 < 2 { Transport::Tcp } else { Transport::Tls };
            play(seed, network, transport, seed % 2 == 0)
        },
        // A phone that was called and that no ACK reaches takes the call for up all the same.
        |world| {
            let is_called = world.sent().first().is_some_and(|sent| &*sent.from == TWILIO);
            let is_answered =
                with_pbx(world, |pbx, _| pbx.cdrs().iter().any(|cdr| cdr.times.answer.is_some()));
            let is_up = with_phone(world, "1001", |phone, _| phone.has_heard(&Heard::Up));
            is_up || (is_called && is_answered)
        },
    );
}

/// The trunk closes a connection that nobody keeps alive: here there is no shell to do that. The call
/// goes on over another one, whose 2xx has another Contact, with `;twnat=`, that means nothing.
#[test]
fn a_call_outlives_its_connection() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut world = house(1, transport);
        with_phone(&mut world, "1001", |phone, _| {
            phone.when(On::Up, 125_000, Act::Hold).when(On::Up, 130_000, Act::HangUp);
        });
        act(&mut world, "1001", Act::Call("+14155550199".into()));
        let idle = "a connection with a call on it is kept alive, but";
        let faults = faults(&mut world);
        assert!(faults.len() == 1 && faults[0].starts_with(idle), "{faults:?}");
        let moved = world.sent().iter().filter(|sent| {
            let contact = sent.message.header_str(HeaderName::Contact);
            contact.is_some_and(|contact| contact.contains(";twnat="))
        });
        assert_eq!(moved.count(), 1);
        with_phone(&mut world, "1001", |phone, _| assert!(phone.has_heard(&Heard::Gone(200))));
    }
}

/// RFC 3261 18.1.1: with its credentials the INVITE is too large for a datagram, but the trunk takes no
/// connections. It goes as a datagram after all, and still says who we are.
#[test]
fn a_large_invite_falls_back_to_udp() {
    let name = "n".repeat(350);
    let mut house = House::new(1);
    house.trunk_keys(&format!("qualify = false\ntcp_too = true\ncaller_name = \"{name}\""));
    let mut world = house.twilio().phone("1001").open_registered();
    world.refuse_streams(TWILIO);
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 1000, Act::HangUp);
    });
    act(&mut world, "1001", Act::Call("+14155550199".into()));
    assert_eq!(faults(&mut world), [""; 0], "{}", world.ladder());
    with_phone(&mut world, "1001", |phone, _| assert!(phone.has_heard(&Heard::Up)));
    let invites: Vec<_> = world
        .sent()
        .iter()
        .filter(|sent| sent.message.method() == Method::Invite && sent.message.is_request())
        .filter(|sent| sent.flow.remote == addr(TRUNK))
        .collect();
    let transports: Vec<_> = invites.iter().map(|sent| sent.flow.transport).collect();
    assert_eq!(transports, [Transport::Udp, Transport::Tcp, Transport::Udp], "{}", world.ladder());
    let nonce_counts: Vec<_> = invites
        .iter()
        .map(|sent| sent.message.credentials(HeaderName::ProxyAuthorization))
        .map(|credentials| credentials.first().and_then(|credentials| credentials.nc))
        .collect();
    assert_eq!(nonce_counts, [None, Some(1), Some(2)]);
    let branches: BTreeSet<_> = invites.iter().map(|sent| sent.message.branch()).collect();
    assert_eq!(branches.len(), 3, "each attempt is a transaction of its own");
    let vias = invites.iter().map(|sent| sent.message.via().transport.to_owned());
    assert_eq!(vias.collect::<Vec<_>>(), ["UDP", "TCP", "UDP"]);
}
