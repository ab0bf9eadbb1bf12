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
        "0 ms  1001 calls 1002
               140 ms  1001 is answered by 1002
              2180 ms  1001 -> tandem  INVITE (sdp)
              2200 ms  tandem -> 1001  100 Trying (INVITE)
              2200 ms  tandem -> 1002  INVITE (sdp)
              2220 ms  1002 -> tandem  100 Trying (INVITE)
              2220 ms  1002 -> tandem  200 OK (INVITE, sdp)
              2240 ms  tandem -> 1002  ACK
              2240 ms  tandem -> 1001  200 OK (INVITE, sdp)
              2260 ms  1001 -> tandem  ACK
              4180 ms  1001 reinvites 1002
              9180 ms  1001 hangs up on 1002",
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
        "0 ms  1001 calls 1002
               140 ms  1001 is answered by 1002
              2180 ms  1002 reinvites 1001
              4180 ms  1002 reinvites 1001
              9180 ms  1001 hangs up on 1002",
    );
}

#[test]
fn by_update() {
    let mut world = play(1, Network::CLEAN, "1001", &Act::HoldByUpdate);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls 1002
               140 ms  1001 is answered by 1002
              2180 ms  1001 -> tandem  UPDATE (sdp)
              2200 ms  tandem -> 1002  INVITE (sdp)
              2220 ms  1002 -> tandem  100 Trying (INVITE)
              2220 ms  1002 -> tandem  200 OK (INVITE, sdp)
              2240 ms  tandem -> 1002  ACK
              2240 ms  tandem -> 1001  200 OK (UPDATE, sdp)
              4180 ms  1001 reinvites 1002
              9180 ms  1001 hangs up on 1002",
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
        "0 ms  1001 calls 1002
               140 ms  1001 is answered by 1002
              2180 ms  1001 calls 1002
              2220 ms  1002 -> tandem  200 OK (INVITE, sdp)
              2220 ms  1002 -> tandem  INVITE (sdp)
              2240 ms  tandem -> 1002  ACK
              2240 ms  tandem -> 1001  200 OK (INVITE, sdp)
              2240 ms  tandem -> 1002  100 Trying (INVITE)
              2240 ms  tandem -> 1002  491 Request Pending (INVITE)
              2260 ms  1001 -> tandem  ACK
              2260 ms  1002 -> tandem  ACK
              3265 ms  1002 reinvites 1001
              4180 ms  1001 reinvites 1002
              5180 ms  1002 reinvites 1001
              9180 ms  1001 hangs up on 1002",
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
        "0 ms  1001 calls 1002
               140 ms  1001 is answered by 1002
              2180 ms  1001 -> tandem  INVITE
              2200 ms  tandem -> 1001  100 Trying (INVITE)
              2200 ms  tandem -> 1001  200 OK (INVITE, sdp)
              2220 ms  1001 -> tandem  ACK (sdp)
              4180 ms  1001 -> tandem  INVITE (sdp)
              4200 ms  tandem -> 1001  100 Trying (INVITE)
              4200 ms  tandem -> 1001  200 OK (INVITE, sdp)
              4220 ms  1001 -> tandem  ACK
              9180 ms  1001 hangs up on 1002",
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
        "0 ms  1001 calls twilio
               380 ms  twilio -> tandem  183 Session Progress (INVITE, sdp)
               400 ms  tandem -> 1001  183 Session Progress (INVITE, sdp)
              2380 ms  1001 is answered by twilio
              3420 ms  twilio reinvites 1001
              5420 ms  twilio reinvites 1001
             11420 ms  1001 hangs up on twilio",
    );
    storm(200, play, |_| true);
}

#[test]
fn the_trunk_is_held() {
    let play = |seed, network| play_with_trunk(seed, network, "+14155550199", true);
    let mut world = play(1, Network::CLEAN);
    assert_ladder(
        &mut world,
        "0 ms  1001 calls twilio
               380 ms  twilio -> tandem  183 Session Progress (INVITE, sdp)
               400 ms  tandem -> 1001  183 Session Progress (INVITE, sdp)
              2380 ms  1001 is answered by twilio
              4420 ms  1001 reinvites twilio
              6420 ms  1001 reinvites twilio
             11420 ms  1001 hangs up on twilio",
    );
    storm(200, play, |_| true);
}
