//! Calls whose media is encrypted, on one side or both (RFC 4568).

use crate::{
    house::{DID, House, PBX, act, addr, cdr, why, with_pbx, with_phone, with_twilio},
    inbound::call_in,
    storm::{assert_ladder, faults, storm},
};
use std::collections::BTreeMap;
use tandem::{
    ids::{LegId, Transport},
    media::{
        Command,
        srtp::{Keys, Suite},
    },
    sdp::CryptoSuite,
    sim::{
        Network, World,
        phone::{Act, Habit, Heard, On},
        sdes::Sdes,
        twilio::{CallIn, Origination},
    },
    sip::HeaderName,
};

const AES80: &str = "AES_CM_128_HMAC_SHA1_80";

/// 1001 calls 1002, holds, resumes and hangs up.
fn play(seed: u64, network: Network, phones: [Option<Sdes>; 2], keys: [&str; 2]) -> World {
    let mut house = House::new(seed);
    for ((name, srtp), keys) in ["1001", "1002"].into_iter().zip(phones).zip(keys) {
        house.user_keys(name, keys);
        house.phone_like(name, name, |mut setup| {
            setup.srtp = srtp;
            setup
        });
    }
    let mut world = house.open_registered();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Answer);
    });
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 2000, Act::Hold).when(On::Up, 4000, Act::Resume);
        phone.when(On::Up, 9000, Act::HangUp);
    });
    world.set_network(network);
    act(&mut world, "1001", Act::Call("1002".into()));
    world
}

/// Returns the keys that each leg of the PBX has had, one after the other, without repetitions.
fn keys(world: &mut World) -> Vec<Vec<Keys>> {
    let mut legs: BTreeMap<LegId, Vec<Keys>> = BTreeMap::new();
    with_pbx(world, |pbx, _| {
        for command in pbx.commands() {
            if let Command::Aim { leg, keys: Some(keys), .. } = command {
                let known = legs.entry(*leg).or_default();
                if known.last() != Some(&**keys) {
                    known.push((**keys).clone());
                }
            }
        }
    });
    legs.into_values().collect()
}

/// Returns the keys that a phone has, as the PBX must see them.
fn theirs(world: &mut World, phone: &str) -> Option<Keys> {
    let keys = with_phone(world, phone, |phone, _| phone.media().and_then(|m| m.keys.clone()));
    keys.map(|Keys { send, receive }| Keys { send: receive, receive: send })
}

fn suites(world: &mut World) -> [Option<String>; 2] {
    let media = cdr(world).media;
    [media.caller.srtp, media.callee.srtp]
}

/// Nothing but the sound knows of it: the other side, and the ladder, are as ever.
#[test]
fn a_secret_phone_calls_a_plain_one() {
    let mut world = play(1, Network::CLEAN, [Some(Sdes::mandatory()), None], ["", ""]);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1001 is answered by 1002
              2180 ms  1001 reinvites 1002
              4180 ms  1001 reinvites 1002
              9180 ms  1001 hangs up on 1002",
    );
    let theirs = theirs(&mut world, "1001").unwrap();
    assert_eq!(keys(&mut world), [[theirs]], "one leg, one pair of keys, on hold as well");
    assert_eq!(suites(&mut world), [Some(AES80.into()), None]);
}

#[test]
fn a_plain_phone_calls_one_that_must_be_secret() {
    let phones = [None, Some(Sdes::mandatory())];
    let mut world = play(1, Network::CLEAN, phones, ["", "srtp = \"require\""]);
    assert_eq!(faults(&mut world), [""; 0]);
    let theirs = theirs(&mut world, "1002").unwrap();
    assert_eq!(keys(&mut world), [[theirs]]);
    assert_eq!(suites(&mut world), [None, Some(AES80.into())]);
    with_phone(&mut world, "1002", |phone, _| {
        assert!(phone.has_heard(&Heard::Offered("recvonly")), "held all the same");
    });
}

/// Phones that offer RTP/AVP with keys are answered with one.
#[test]
fn an_invitation_is_accepted() {
    let gcm = Sdes::optional().with_suites(&[CryptoSuite::AeadAes256Gcm]);
    let mut world = play(1, Network::CLEAN, [Some(gcm), None], ["", ""]);
    assert_eq!(faults(&mut world), [""; 0]);
    let theirs = theirs(&mut world, "1001").unwrap();
    assert_eq!(theirs.send.suite(), Suite::AeadAes256Gcm);
    assert_eq!(keys(&mut world), [[theirs]]);
    assert_eq!(suites(&mut world), [Some("AEAD_AES_256_GCM".into()), None]);
}

/// A caller that draws keys for every offer gets a new key of ours each time; the callee's stay.
#[test]
fn keys_are_changed_in_a_call() {
    let renews = Sdes { renews: true, ..Sdes::mandatory() };
    let require = "srtp = \"require\"";
    let phones = [Some(renews), Some(Sdes::mandatory())];
    let mut world = play(1, Network::CLEAN, phones, [require, require]);
    assert_eq!(faults(&mut world), [""; 0]);
    let [caller, callee] = ["1001", "1002"].map(|name| theirs(&mut world, name).unwrap());
    let legs = keys(&mut world);
    let [ours, other] = legs.as_slice() else { panic!("{legs:?}") };
    assert_eq!((ours.len(), ours.last()), (3, Some(&caller)), "a call, a hold, a resume");
    assert!(ours.windows(2).all(|w| w[0].send != w[1].send && w[0].receive != w[1].receive));
    assert_eq!(other, &[callee]);
}

#[test]
fn an_offer_left_to_us_asks_for_it() {
    let mut house = House::new(1);
    house.user_keys("1001", "srtp = \"require\"").phone("1002");
    house.phone_like("1001", "1001", |mut setup| {
        setup.srtp = Some(Sdes::mandatory());
        setup.with(Habit::OffersLate)
    });
    let mut world = house.open_registered();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Answer);
    });
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 1000, Act::HangUp);
    });
    act(&mut world, "1001", Act::Call("1002".into()));
    assert_eq!(faults(&mut world), [""; 0]);
    let theirs = theirs(&mut world, "1001").unwrap();
    assert_eq!(keys(&mut world), [[theirs]]);
}

/// What cannot be is refused before anybody rings, in words.
#[test]
fn an_offer_against_the_rules_is_refused() {
    for (srtp, rule, want) in [
        (Some(Sdes::mandatory()), "off", "SRTP is offered but switched off here; offer RTP/AVP"),
        (None, "require", "SRTP is required here; offer RTP/SAVP with a=crypto"),
    ] {
        let rule = format!("srtp = \"{rule}\"");
        let mut world = play(1, Network::CLEAN, [srtp, None], [&rule, ""]);
        assert_ladder(
            &mut world,
            "0 ms  1001 -> tandem  INVITE (sdp)
                    20 ms  tandem -> 1001  100 Trying (INVITE)
                    20 ms  tandem -> 1001  488 Not Acceptable Here (INVITE)
                    40 ms  1001 -> tandem  ACK",
        );
        assert_eq!(why(&mut world), format!("M004 the caller's offer was refused: {want}"));
        let warned = world.sent().iter().filter_map(|sent| {
            sent.message.header_str(HeaderName::Warning).map(|warning| warning.into_owned())
        });
        assert_eq!(warned.collect::<Vec<_>>(), [format!("302 tandem \"{want}\"")]);
    }
}

/// A callee that must be secret and cannot be is not called in the open.
#[test]
fn what_is_required_is_not_left_out() {
    let mut world = play(1, Network::CLEAN, [None, None], ["", "srtp = \"require\""]);
    assert_eq!(faults(&mut world), [""; 0]);
    assert_eq!(why(&mut world), "P001 1002 answered 488 Not Acceptable Here");
}

/// Whoever answers: its keys are those that count.
#[test]
fn the_fork_that_answers_brings_its_keys() {
    let mut house = House::new(1);
    house.twilio();
    for (name, srtp, keys) in
        [("1001", Some(Sdes::mandatory()), "srtp = \"require\""), ("1002", None, "")]
    {
        house.user_keys(name, keys);
        house.phone_like(name, name, |mut setup| {
            setup.srtp = srtp;
            setup
        });
    }
    let mut world = house.open_registered();
    for (name, after_ms) in [("1001", 300), ("1002", 900)] {
        with_phone(&mut world, name, |phone, _| {
            phone.when(On::Called, 50, Act::Progress).when(On::Called, after_ms, Act::Answer);
            phone.when(On::Up, 3000, Act::HangUp);
        });
    }
    with_twilio(&mut world, |twilio, now| twilio.call_in(&call_in(DID), now));
    assert_eq!(faults(&mut world), [""; 0]);
    let theirs = theirs(&mut world, "1001").unwrap();
    assert_eq!(keys(&mut world), [[theirs]]);
    assert_eq!(suites(&mut world), [None, Some(AES80.into())]);
}

#[test]
fn on_bad_networks() {
    let renews = Sdes { renews: true, ..Sdes::mandatory() };
    let require = "srtp = \"require\"";
    let phones = [Some(renews), Some(Sdes::mandatory())];
    storm(
        300,
        |seed, network| play(seed, network, phones.clone(), [require, require]),
        |world| {
            let is_up = with_phone(world, "1001", |phone, _| phone.has_heard(&Heard::Up));
            let theirs = theirs(world, "1001");
            let ours = keys(world).into_iter().next().and_then(|mut keys| keys.pop());
            is_up && theirs == ours
        },
    );
}

/// Over TLS keys are safe, and so SRTP is offered; a phone that has none is offered RTP then.
#[test]
fn what_is_preferred_is_not_insisted_on() {
    for srtp in [None, Some(Sdes::mandatory())] {
        let mut house = House::new(1);
        house.phone("1001").phone_like("1002", "1002", |mut setup| {
            setup.transport = Transport::Tls;
            setup.srtp = srtp.clone();
            setup
        });
        let mut world = house.open_registered();
        with_phone(&mut world, "1002", |phone, _| {
            phone.when(On::Called, 100, Act::Answer).when(On::Up, 1000, Act::HangUp);
        });
        act(&mut world, "1001", Act::Call("1002".into()));
        assert_eq!(faults(&mut world), [""; 0]);
        let is_refused = world.sent().iter().any(|sent| sent.message.status() == 488);
        assert_eq!(is_refused, srtp.is_none(), "{}", world.ladder());
        assert_eq!(suites(&mut world), [None, srtp.map(|_| AES80.into())]);
        assert_eq!(cdr(&mut world).ending.status, 200);
    }
}

/// Secure Trunking: TLS and SRTP, both ways, with a plain phone.
fn secure_trunk(seed: u64, network: Network, is_outbound: bool) -> World {
    let mut house = House::new(seed);
    house.trunk_keys("qualify = false\ntransport = \"tls\"").phone("1001");
    house.twilio_like(|mut setup| {
        setup.policy.secure = true;
        setup
    });
    let mut world = house.open_registered();
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Called, 100, Act::Answer).when(On::Up, 3000, Act::HangUp);
        phone.when(On::Up, 1000, Act::Hold);
    });
    world.set_network(network);
    if is_outbound {
        act(&mut world, "1001", Act::Call("+14155550199".into()));
    } else {
        let to = vec![Origination::new(addr(PBX), Transport::Tls)];
        let call = CallIn { to, ..call_in(DID) };
        with_twilio(&mut world, |twilio, now| twilio.call_in(&call, now));
    }
    world
}

#[test]
fn the_trunk_is_secure_both_ways() {
    for is_outbound in [true, false] {
        let mut world = secure_trunk(1, Network::CLEAN, is_outbound);
        assert_eq!(faults(&mut world), [""; 0], "{}", world.ladder());
        let mut want = [None, Some(AES80.into())];
        if !is_outbound {
            want.reverse();
        }
        assert_eq!(suites(&mut world), want);
        with_phone(&mut world, "1001", |phone, _| {
            assert!(phone.has_heard(&Heard::Changed("sendonly")));
            assert!(phone.has_heard(&Heard::Gone(200)));
        });
    }
}

#[test]
fn the_trunk_is_secure_on_bad_networks() {
    storm(
        100,
        |seed, network| secure_trunk(seed, network, seed % 2 == 0),
        |world| with_phone(world, "1001", |phone, _| phone.has_heard(&Heard::Up)),
    );
}
