//! `public_ip = "auto"` behind a NAT: the trunk's own answers say under which address it sees us.

use crate::{
    house::{House, TANDEM, TWILIO, act, with_pbx, with_phone},
    storm::faults,
};
use std::net::IpAddr;
use tandem::{
    sim::{
        Sent, World,
        phone::{Act, Heard, On},
    },
    sip::{HeaderName, Method},
};

const SEEN: &str = "203.0.113.1";

/// The trunk sees the PBX at `sees`; OPTIONS go to it where `qualify` is empty.
fn play(public_ip: &str, sees: Option<&str>, qualify: &str) -> World {
    let mut house = House::new(1);
    house.public_ip(public_ip).trunk_keys(qualify).phone("1001").phone("1002");
    house.twilio_like(|mut account| {
        account.sees = sees.map(|ip| ip.parse().unwrap());
        account
    });
    let mut world = house.open();
    for name in ["1001", "1002"] {
        act(&mut world, name, Act::Register);
    }
    world.run_until(1000);
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 2000, Act::HangUp);
    });
    act(&mut world, "1001", Act::Call("+14155550199".into()));
    world.at(9000, |world| act(world, "1001", Act::Call("1002".into())));
    world.at(12_000, |world| act(world, "1001", Act::HangUp));
    world
}

/// Returns the addresses in Contact and SDP of each INVITE that somebody was sent.
fn told(world: &World, to: &str) -> Vec<[String; 2]> {
    let is_invite =
        |sent: &&Sent| sent.message.method() == Method::Invite && sent.message.is_request();
    let invites = world.sent().iter().filter(|sent| &*sent.from == TANDEM && &*sent.to == to);
    let addresses = |sent: &Sent| {
        let contact = sent.message.header_str(HeaderName::Contact).unwrap();
        let host = contact.split('@').nth(1).unwrap().split(':').next().unwrap().to_owned();
        let sdp = String::from_utf8(sent.message.sdp().unwrap().to_vec()).unwrap();
        let media = sdp.lines().find_map(|line| line.strip_prefix("c=IN IP4 ")).unwrap();
        [host, media.trim().to_owned()]
    };
    invites.filter(is_invite).map(addresses).collect()
}

#[test]
fn is_learned_from_the_trunks_answers() {
    let (seen, own) = ([SEEN; 2], ["10.0.0.1"; 2]);
    for (qualify, want) in [
        // OPTIONS have shown it before the first call.
        ("", [seen, seen]),
        // The challenge shows it.
        ("qualify = false", [own, seen]),
    ] {
        let mut world = play("auto", Some(SEEN), qualify);
        world.run_until(60_000);
        assert_eq!(told(&world, TWILIO), want, "{qualify}");
        assert_eq!(told(&world, "1002"), [own], "a phone is inside");
        with_phone(&mut world, "1001", |phone, _| {
            assert!(phone.has_heard(&Heard::Up) && phone.has_heard(&Heard::Gone(200)));
        });
        let seen_as = with_pbx(&mut world, |pbx, now| pbx.shard().trunks(now)[0].seen_as);
        assert_eq!(seen_as, Some(SEEN.parse::<IpAddr>().unwrap()));
    }
}

/// What is configured holds, whatever a trunk sees; a private address is nothing to learn.
#[test]
fn is_not_learned() {
    for (public_ip, sees, want) in
        [(SEEN, Some("198.51.100.77"), [SEEN; 2]), ("auto", Some("192.168.7.7"), ["10.0.0.1"; 2])]
    {
        let mut world = play(public_ip, sees, "qualify = false");
        let _ = faults(&mut world);
        assert_eq!(told(&world, TWILIO), [want, want], "{public_ip} {sees:?}");
        let seen_as = with_pbx(&mut world, |pbx, now| pbx.shard().trunks(now)[0].seen_as);
        assert_eq!(seen_as.is_some(), public_ip == SEEN);
    }
}
