//! Hold and resume, from either side, by re-INVITE and by UPDATE; a change of media is passed on.

use crate::{
    house::{House, act, with_pbx, with_phone},
    storm::{assert_ladder, storm},
};
use tandem::{
    media::Command,
    sim::{
        Network, World,
        phone::{Act, Heard, On},
    },
};

fn play(seed: u64, network: Network, holder: &str, hold: &Act) -> World {
    let mut world = House::new(seed).phone("1001").phone("1002").open_registered();
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Answer);
    });
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 9000, Act::HangUp);
    });
    let hold = hold.clone();
    with_phone(&mut world, holder, |phone, _| {
        phone.when(On::Up, 2000, hold).when(On::Up, 4000, Act::Resume);
    });
    world.set_network(network);
    act(&mut world, "1001", Act::Call("1002".into()));
    world
}

#[test]
fn the_caller_holds() {
    let mut world = play(1, Network::CLEAN, "1001", &Act::Hold);
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1002  INVITE (sdp)
                40 ms  1002 -> tandem  100 Trying (INVITE)
               140 ms  1002 -> tandem  200 OK (INVITE, sdp)
               160 ms  tandem -> 1002  ACK
               160 ms  tandem -> 1001  200 OK (INVITE, sdp)
               180 ms  1001 -> tandem  ACK
              2180 ms  1001 -> tandem  INVITE (sdp)
              2200 ms  tandem -> 1001  100 Trying (INVITE)
              2200 ms  tandem -> 1002  INVITE (sdp)
              2220 ms  1002 -> tandem  100 Trying (INVITE)
              2220 ms  1002 -> tandem  200 OK (INVITE, sdp)
              2240 ms  tandem -> 1002  ACK
              2240 ms  tandem -> 1001  200 OK (INVITE, sdp)
              2260 ms  1001 -> tandem  ACK
              4180 ms  1001 -> tandem  INVITE (sdp)
              4200 ms  tandem -> 1001  100 Trying (INVITE)
              4200 ms  tandem -> 1002  INVITE (sdp)
              4220 ms  1002 -> tandem  100 Trying (INVITE)
              4220 ms  1002 -> tandem  200 OK (INVITE, sdp)
              4240 ms  tandem -> 1002  ACK
              4240 ms  tandem -> 1001  200 OK (INVITE, sdp)
              4260 ms  1001 -> tandem  ACK
              9180 ms  1001 -> tandem  BYE
              9200 ms  tandem -> 1001  200 OK (BYE)
              9200 ms  tandem -> 1002  BYE
              9220 ms  1002 -> tandem  200 OK (BYE)",
    );
    with_phone(&mut world, "1002", |phone, _| {
        let offered: Vec<_> = phone.heard()[3..5].to_vec();
        assert_eq!(offered, [Heard::Offered("recvonly"), Heard::Offered("sendrecv")]);
    });
    with_phone(&mut world, "1001", |phone, _| {
        let changed: Vec<_> = phone.heard()[2..4].to_vec();
        assert_eq!(changed, [Heard::Changed("sendonly"), Heard::Changed("sendrecv")]);
    });
    let holds = with_pbx(&mut world, |pbx, _| {
        let hold = |command: &Command| {
            if let Command::Hold { on, .. } = command { Some(*on) } else { None }
        };
        let mut holds: Vec<bool> = pbx.commands().iter().filter_map(hold).collect();
        holds.dedup();
        holds
    });
    assert_eq!(holds, [false, true, false]);
}

#[test]
fn the_callee_holds() {
    let mut world = play(1, Network::CLEAN, "1002", &Act::Hold);
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1002  INVITE (sdp)
                40 ms  1002 -> tandem  100 Trying (INVITE)
               140 ms  1002 -> tandem  200 OK (INVITE, sdp)
               160 ms  tandem -> 1002  ACK
               160 ms  tandem -> 1001  200 OK (INVITE, sdp)
               180 ms  1001 -> tandem  ACK
              2180 ms  1002 -> tandem  INVITE (sdp)
              2200 ms  tandem -> 1002  100 Trying (INVITE)
              2200 ms  tandem -> 1001  INVITE (sdp)
              2220 ms  1001 -> tandem  100 Trying (INVITE)
              2220 ms  1001 -> tandem  200 OK (INVITE, sdp)
              2240 ms  tandem -> 1001  ACK
              2240 ms  tandem -> 1002  200 OK (INVITE, sdp)
              2260 ms  1002 -> tandem  ACK
              4180 ms  1002 -> tandem  INVITE (sdp)
              4200 ms  tandem -> 1002  100 Trying (INVITE)
              4200 ms  tandem -> 1001  INVITE (sdp)
              4220 ms  1001 -> tandem  100 Trying (INVITE)
              4220 ms  1001 -> tandem  200 OK (INVITE, sdp)
              4240 ms  tandem -> 1001  ACK
              4240 ms  tandem -> 1002  200 OK (INVITE, sdp)
              4260 ms  1002 -> tandem  ACK
              9180 ms  1001 -> tandem  BYE
              9200 ms  tandem -> 1001  200 OK (BYE)
              9200 ms  tandem -> 1002  BYE
              9220 ms  1002 -> tandem  200 OK (BYE)",
    );
}

#[test]
fn by_update() {
    let mut world = play(1, Network::CLEAN, "1001", &Act::HoldByUpdate);
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1002  INVITE (sdp)
                40 ms  1002 -> tandem  100 Trying (INVITE)
               140 ms  1002 -> tandem  200 OK (INVITE, sdp)
               160 ms  tandem -> 1002  ACK
               160 ms  tandem -> 1001  200 OK (INVITE, sdp)
               180 ms  1001 -> tandem  ACK
              2180 ms  1001 -> tandem  UPDATE (sdp)
              2200 ms  tandem -> 1002  INVITE (sdp)
              2220 ms  1002 -> tandem  100 Trying (INVITE)
              2220 ms  1002 -> tandem  200 OK (INVITE, sdp)
              2240 ms  tandem -> 1002  ACK
              2240 ms  tandem -> 1001  200 OK (UPDATE, sdp)
              4180 ms  1001 -> tandem  INVITE (sdp)
              4200 ms  tandem -> 1001  100 Trying (INVITE)
              4200 ms  tandem -> 1002  INVITE (sdp)
              4220 ms  1002 -> tandem  100 Trying (INVITE)
              4220 ms  1002 -> tandem  200 OK (INVITE, sdp)
              4240 ms  tandem -> 1002  ACK
              4240 ms  tandem -> 1001  200 OK (INVITE, sdp)
              4260 ms  1001 -> tandem  ACK
              9180 ms  1001 -> tandem  BYE
              9200 ms  tandem -> 1001  200 OK (BYE)
              9200 ms  tandem -> 1002  BYE
              9220 ms  1002 -> tandem  200 OK (BYE)",
    );
}

/// Both hold at the same time: re-INVITEs cross inside the PBX.
#[test]
fn both_hold_at_once() {
    let play = |seed, network| {
        let mut world = play(seed, network, "1001", &Act::Hold);
        with_phone(&mut world, "1002", |phone, _| {
            phone.when(On::Up, 2040, Act::Hold).when(On::Up, 5000, Act::Resume);
        });
        with_phone(&mut world, "1001", |phone, _| {
            phone.when(On::Up, 20_000, Act::HangUp);
        });
        world
    };
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1002  INVITE (sdp)
                40 ms  1002 -> tandem  100 Trying (INVITE)
               140 ms  1002 -> tandem  200 OK (INVITE, sdp)
               160 ms  tandem -> 1002  ACK
               160 ms  tandem -> 1001  200 OK (INVITE, sdp)
               180 ms  1001 -> tandem  ACK
              2180 ms  1001 -> tandem  INVITE (sdp)
              2200 ms  tandem -> 1001  100 Trying (INVITE)
              2200 ms  tandem -> 1002  INVITE (sdp)
              2220 ms  1002 -> tandem  100 Trying (INVITE)
              2220 ms  1002 -> tandem  200 OK (INVITE, sdp)
              2220 ms  1002 -> tandem  INVITE (sdp)
              2240 ms  tandem -> 1002  ACK
              2240 ms  tandem -> 1001  200 OK (INVITE, sdp)
              2240 ms  tandem -> 1002  100 Trying (INVITE)
              2240 ms  tandem -> 1002  491 Request Pending (INVITE)
              2260 ms  1001 -> tandem  ACK
              2260 ms  1002 -> tandem  ACK
              3265 ms  1002 -> tandem  INVITE (sdp)
              3285 ms  tandem -> 1002  100 Trying (INVITE)
              3285 ms  tandem -> 1001  INVITE (sdp)
              3305 ms  1001 -> tandem  100 Trying (INVITE)
              3305 ms  1001 -> tandem  200 OK (INVITE, sdp)
              3325 ms  tandem -> 1001  ACK
              3325 ms  tandem -> 1002  200 OK (INVITE, sdp)
              3345 ms  1002 -> tandem  ACK
              4180 ms  1001 -> tandem  INVITE (sdp)
              4200 ms  tandem -> 1001  100 Trying (INVITE)
              4200 ms  tandem -> 1002  INVITE (sdp)
              4220 ms  1002 -> tandem  100 Trying (INVITE)
              4220 ms  1002 -> tandem  200 OK (INVITE, sdp)
              4240 ms  tandem -> 1002  ACK
              4240 ms  tandem -> 1001  200 OK (INVITE, sdp)
              4260 ms  1001 -> tandem  ACK
              5180 ms  1002 -> tandem  INVITE (sdp)
              5200 ms  tandem -> 1002  100 Trying (INVITE)
              5200 ms  tandem -> 1001  INVITE (sdp)
              5220 ms  1001 -> tandem  100 Trying (INVITE)
              5220 ms  1001 -> tandem  200 OK (INVITE, sdp)
              5240 ms  tandem -> 1001  ACK
              5240 ms  tandem -> 1002  200 OK (INVITE, sdp)
              5260 ms  1002 -> tandem  ACK
              9180 ms  1001 -> tandem  BYE
              9200 ms  tandem -> 1001  200 OK (BYE)
              9200 ms  tandem -> 1002  BYE
              9220 ms  1002 -> tandem  200 OK (BYE)",
    );
    storm(200, play, |_| true);
}

/// A re-INVITE without an offer is answered with one.
#[test]
fn a_reinvite_without_an_offer() {
    let play = |seed, network| play(seed, network, "1001", &Act::Reinvite);
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> 1002  INVITE (sdp)
                40 ms  1002 -> tandem  100 Trying (INVITE)
               140 ms  1002 -> tandem  200 OK (INVITE, sdp)
               160 ms  tandem -> 1002  ACK
               160 ms  tandem -> 1001  200 OK (INVITE, sdp)
               180 ms  1001 -> tandem  ACK
              2180 ms  1001 -> tandem  INVITE
              2200 ms  tandem -> 1001  100 Trying (INVITE)
              2200 ms  tandem -> 1001  200 OK (INVITE, sdp)
              2220 ms  1001 -> tandem  ACK (sdp)
              4180 ms  1001 -> tandem  INVITE (sdp)
              4200 ms  tandem -> 1001  100 Trying (INVITE)
              4200 ms  tandem -> 1001  200 OK (INVITE, sdp)
              4220 ms  1001 -> tandem  ACK
              9180 ms  1001 -> tandem  BYE
              9200 ms  tandem -> 1001  200 OK (BYE)
              9200 ms  tandem -> 1002  BYE
              9220 ms  1002 -> tandem  200 OK (BYE)",
    );
    storm(200, play, |_| true);
}

#[test]
fn on_bad_networks() {
    let cases = [("1001", Act::Hold), ("1002", Act::Hold), ("1001", Act::HoldByUpdate)];
    let case = |seed: u64| &cases[seed as usize % cases.len()];
    storm(
        300,
        |seed, network| play(seed, network, case(seed).0, &case(seed).1),
        |world| {
            with_phone(world, "1001", |phone, _| phone.has_heard(&Heard::Changed("sendonly")))
                || with_phone(world, "1002", |phone, _| {
                    phone.has_heard(&Heard::Changed("sendonly"))
                })
        },
    );
}

fn play_with_trunk(seed: u64, network: Network, number: &str, holds: bool) -> World {
    let mut world = House::new(seed).twilio().phone("1001").open_registered();
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 9000, Act::HangUp);
        if holds {
            phone.when(On::Up, 2000, Act::Hold).when(On::Up, 4000, Act::Resume);
        }
    });
    world.set_network(network);
    act(&mut world, "1001", Act::Call(number.into()));
    world
}

#[test]
fn the_trunk_holds() {
    let play = |seed, network| play_with_trunk(seed, network, "+15005550004", false);
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
              3420 ms  twilio -> tandem  INVITE (sdp)
              3440 ms  tandem -> twilio  100 Trying (INVITE)
              3440 ms  tandem -> 1001  INVITE (sdp)
              3460 ms  1001 -> tandem  100 Trying (INVITE)
              3460 ms  1001 -> tandem  200 OK (INVITE, sdp)
              3480 ms  tandem -> 1001  ACK
              3480 ms  tandem -> twilio  200 OK (INVITE, sdp)
              3500 ms  twilio -> tandem  ACK
              5420 ms  twilio -> tandem  INVITE (sdp)
              5440 ms  tandem -> twilio  100 Trying (INVITE)
              5440 ms  tandem -> 1001  INVITE (sdp)
              5460 ms  1001 -> tandem  100 Trying (INVITE)
              5460 ms  1001 -> tandem  200 OK (INVITE, sdp)
              5480 ms  tandem -> 1001  ACK
              5480 ms  tandem -> twilio  200 OK (INVITE, sdp)
              5500 ms  twilio -> tandem  ACK
             11420 ms  1001 -> tandem  BYE
             11440 ms  tandem -> 1001  200 OK (BYE)
             11440 ms  tandem -> twilio  BYE
             11460 ms  twilio -> tandem  200 OK (BYE)",
    );
    storm(200, play, |_| true);
}

#[test]
fn the_trunk_is_held() {
    let play = |seed, network| play_with_trunk(seed, network, "+14155550199", true);
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
              4420 ms  1001 -> tandem  INVITE (sdp)
              4440 ms  tandem -> 1001  100 Trying (INVITE)
              4440 ms  tandem -> twilio  INVITE (sdp)
              4460 ms  twilio -> tandem  200 OK (INVITE, sdp)
              4480 ms  tandem -> twilio  ACK
              4480 ms  tandem -> 1001  200 OK (INVITE, sdp)
              4500 ms  1001 -> tandem  ACK
              6420 ms  1001 -> tandem  INVITE (sdp)
              6440 ms  tandem -> 1001  100 Trying (INVITE)
              6440 ms  tandem -> twilio  INVITE (sdp)
              6460 ms  twilio -> tandem  200 OK (INVITE, sdp)
              6480 ms  tandem -> twilio  ACK
              6480 ms  tandem -> 1001  200 OK (INVITE, sdp)
              6500 ms  1001 -> tandem  ACK
             11420 ms  1001 -> tandem  BYE
             11440 ms  tandem -> 1001  200 OK (BYE)
             11440 ms  tandem -> twilio  BYE
             11460 ms  twilio -> tandem  200 OK (BYE)",
    );
    storm(200, play, |_| true);
}
