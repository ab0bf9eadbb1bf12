//! A phone calls out through the trunk: a national number, forced caller ID, a challenge, early media.

use crate::{
    house::{House, act, cdr, with_pbx, with_phone, with_twilio},
    storm::{assert_ladder, faults, storm},
};
use tandem::{
    media::Command,
    observe::cdr::{Direction, EndedBy},
    sim::{
        Network, World,
        phone::{Act, Heard, On},
    },
    sip::{HeaderName, Method},
};

fn play(seed: u64, network: Network) -> World {
    let mut world = House::new(seed).twilio().phone("1001").open_registered();
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 5000, Act::HangUp);
    });
    world.set_network(network);
    act(&mut world, "1001", Act::Call("(415) 555-0199".into()));
    world
}

#[test]
fn on_a_clean_network() {
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> twilio  INVITE (sdp)
                40 ms  twilio -> tandem  100 trying -- your call is important to us (INVITE)
                40 ms  twilio -> tandem  407 Proxy Authentication required (INVITE)
                60 ms  tandem -> twilio  ACK
                60 ms  tandem -> twilio  INVITE (sdp)
                80 ms  twilio -> tandem  100 trying -- your call is important to us (INVITE)
               380 ms  twilio -> tandem  183 Session Progress (INVITE, sdp)
               400 ms  tandem -> 1001  183 Session Progress (INVITE, sdp)
              2380 ms  twilio -> tandem  200 OK (INVITE, sdp)
              2400 ms  tandem -> twilio  ACK
              2400 ms  tandem -> 1001  200 OK (INVITE, sdp)
              2420 ms  1001 -> tandem  ACK
              7420 ms  1001 -> tandem  BYE
              7440 ms  tandem -> 1001  200 OK (BYE)
              7440 ms  tandem -> twilio  BYE
              7460 ms  twilio -> tandem  200 OK (BYE)",
    );
}

#[test]
fn on_bad_networks() {
    storm(1000, play, |world| with_phone(world, "1001", |phone, _| phone.has_heard(&Heard::Up)));
}

/// What the trunk is told, and what it is not.
#[test]
fn the_invite_says_what_the_trunk_wants() {
    let mut world = play(1, Network::CLEAN);
    assert!(world.settle(std::time::Duration::from_secs(60)));
    let invites: Vec<_> = world
        .sent()
        .iter()
        .filter(|sent| &*sent.to == "twilio" && sent.message.method() == Method::Invite)
        .map(|sent| sent.message.clone())
        .collect();
    assert_eq!(invites.len(), 2);
    let text = |name| invites[1].header_str(name).map(|value| value.into_owned());
    let termination = "asterisk-pbx1.pstn.twilio.com";
    assert_eq!(invites[1].uri(), format!("sip:+14155550199@{termination}"));
    let own = format!("<sip:+17756187988@{termination}>");
    assert!(text(HeaderName::From).unwrap().starts_with(&own));
    assert_eq!(text(HeaderName::PAssertedIdentity), Some(own));
    assert_eq!(text(HeaderName::MaxForwards).as_deref(), Some("70"));
    assert_eq!(text(HeaderName::Contact).as_deref(), Some("<sip:twilio@203.0.113.1:5060>"));
    assert_eq!(text(HeaderName::SessionExpires), None);
    assert_eq!(text(HeaderName::Supported), None);
    assert_eq!(invites[1].other("Remote-Party-ID"), None);
    let whole = String::from_utf8_lossy(invites[1].bytes()).into_owned();
    assert!(whole.contains("c=IN IP4 203.0.113.1\r\n"), "{whole}");
    assert!(!whole.contains("10.0.0.") && !whole.contains("1001"), "{whole}");
    assert_eq!(invites[0].cseq().number + 1, invites[1].cseq().number);

    let cdr = cdr(&mut world);
    assert_eq!(cdr.direction, Direction::Outbound);
    assert_eq!(cdr.route.rule.as_deref(), Some("internal[2]"));
    assert_eq!(cdr.ending.by, EndedBy::Caller);
    let bridges = |c: &&Command| matches!(c, Command::Bridge { .. });
    with_pbx(&mut world, |pbx, _| assert!(pbx.commands().iter().any(|c| bridges(&c))));
    with_twilio(&mut world, |twilio, _| assert_eq!(twilio.deviations(), []));
}

/// `[sip] max_forwards` is what we say where nobody allows fewer hops.
#[test]
fn hops_are_limited_by_the_configuration() {
    let mut house = House::new(1);
    house.sip_keys("max_forwards = 25").twilio().phone("1001").phone("1002");
    let mut world = house.open_registered();
    for (at_ms, number) in [(0, "1002"), (5000, "+14155550199")] {
        world.at(at_ms, move |world| act(world, "1001", Act::Call(number.into())));
        world.at(at_ms + 3000, |world| act(world, "1001", Act::HangUp));
    }
    assert_eq!(faults(&mut world), [""; 0], "{}", world.ladder());
    let hops = |to: &str| {
        let mut to = world.sent().iter().filter(|sent| &*sent.to == to);
        let invite = to.find(|sent| sent.message.method() == Method::Invite);
        invite.and_then(|sent| sent.message.number(HeaderName::MaxForwards))
    };
    assert_eq!((hops("1002"), hops("twilio")), (Some(25), Some(25)));
}
