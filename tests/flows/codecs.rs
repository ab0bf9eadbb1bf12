//! Two phones that have no codec in common, and what the PBX can do about it.

use crate::{
    house::{House, act, cdr, why, with_pbx, with_phone},
    storm::{assert_ladder, storm},
};
use tandem::{
    media::{Command, Convert, PathMap},
    sim::{
        Network, World,
        phone::{Act, Heard, On},
    },
};

fn play(seed: u64, network: Network, caller: &[&'static str], callee: &[&'static str]) -> World {
    let mut house = House::new(seed);
    for (name, codecs) in [("1001", caller), ("1002", callee)] {
        house.phone_like(name, name, |mut setup| {
            setup.codecs = codecs.to_vec();
            setup
        });
    }
    let mut world = house.open_registered();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Answer);
    });
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 2000, Act::HangUp);
    });
    world.set_network(network);
    act(&mut world, "1001", Act::Call("1002".into()));
    world
}

/// Each speaks its own G.711; the bridge converts both ways.
#[test]
fn pcmu_and_pcma_are_bridged() {
    let mut world = play(1, Network::CLEAN, &["PCMU"], &["PCMA"]);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1001 is answered by 1002
              2180 ms  1001 hangs up on 1002",
    );
    let path = |from, to, convert| {
        let mut path = PathMap::new();
        path.set(from, to, convert);
        path
    };
    let maps = with_pbx(&mut world, |pbx, _| {
        let bridge = |command: &Command| {
            if let Command::Bridge { a_to_b, b_to_a, .. } = command {
                Some((a_to_b.clone(), b_to_a.clone()))
            } else {
                None
            }
        };
        pbx.commands().iter().find_map(bridge)
    });
    let want = (path(0, 8, Convert::UlawToAlaw), path(8, 0, Convert::AlawToUlaw));
    assert_eq!(maps, Some(want));
    let cdr = cdr(&mut world);
    assert!(cdr.media.is_transcoded);
    let codecs = [&cdr.media.caller.codec, &cdr.media.callee.codec].map(|c| c.as_deref());
    assert_eq!(codecs, [Some("PCMU"), Some("PCMA")]);
}

/// What both know passes, although the PBX does not.
#[test]
fn a_codec_that_only_the_phones_know() {
    let mut world = play(1, Network::CLEAN, &["OPUS", "PCMU"], &["OPUS", "PCMA"]);
    assert_eq!(crate::storm::faults(&mut world), [""; 0]);
    for name in ["1001", "1002"] {
        with_phone(&mut world, name, |phone, _| {
            assert_eq!(phone.media().map(|media| &*media.codec), Some("opus"));
        });
    }
    assert!(!cdr(&mut world).media.is_transcoded);
}

#[test]
fn nothing_in_common() {
    let mut world = play(1, Network::CLEAN, &["OPUS"], &["G722"]);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1002 -> tandem  488 Not Acceptable Here (INVITE)
               160 ms  tandem -> 1002  ACK
               160 ms  tandem -> 1001  488 Not Acceptable Here (INVITE)
               180 ms  1001 -> tandem  ACK",
    );
    with_phone(&mut world, "1001", |phone, _| {
        assert!(matches!(phone.heard().last(), Some(Heard::Refused(488, _))));
    });
    assert_eq!(why(&mut world), "P001 1002 answered 488 Not Acceptable Here");
}

#[test]
fn on_bad_networks() {
    storm(
        200,
        |seed, network| play(seed, network, &["PCMU"], &["PCMA"]),
        |world| with_phone(world, "1001", |phone, _| phone.has_heard(&Heard::Up)),
    );
}
