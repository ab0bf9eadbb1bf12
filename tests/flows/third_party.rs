//! A phone whose session description names somebody else's address: our packets do not flood them.

use crate::{
    house::{DID, House, act, with_pbx, with_phone, with_twilio},
    inbound::call_in,
    storm::faults,
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tandem::{
    ids::{Entropy, LegId},
    media::{Action, Command, PortRange, Settings, Worker},
    sim::{
        World, epoch,
        phone::{Act, On},
    },
};

/// Somebody who has nothing to do with it.
const VICTIM: &str = "198.51.100.66:4000";
/// Frames of voice in a second.
const FRAMES: u64 = 50;

/// 1001 calls 1002, or outside, or is called from there; its session description may name another address.
fn played(rtp: Option<&str>, dials: Option<&str>) -> World {
    let mut house = House::new(1);
    house.twilio().phone("1002").phone_like("1001", "1001", |mut setup| {
        setup.rtp = Some(
            rtp.map_or_else(|| SocketAddr::new(setup.local.ip(), 4000), |rtp| rtp.parse().unwrap()),
        );
        setup
    });
    let mut world = house.open_registered();
    for name in ["1001", "1002"] {
        with_phone(&mut world, name, |phone, _| {
            phone.when(On::Called, 100, Act::Answer).when(On::Up, 5000, Act::HangUp);
        });
    }
    match dials {
        Some(number) => act(&mut world, "1001", Act::Call(number.into())),
        None => with_twilio(&mut world, |twilio, now| _ = twilio.call_in(&call_in(DID), now)),
    }
    assert_eq!(faults(&mut world), [""; 0], "{}", world.ladder());
    world
}

fn commands(world: &mut World) -> Vec<Command> {
    with_pbx(world, |pbx, _| pbx.commands().to_vec())
}

/// Returns where legs were aimed at, and whether they must answer.
fn aims(world: &mut World) -> Vec<(SocketAddr, bool)> {
    let aim = |command: &Command| {
        let Command::Aim { remote, .. } = command else { return None };
        Some((remote.rtp, remote.must_answer))
    };
    commands(world).iter().filter_map(aim).collect()
}

#[test]
fn whoever_names_its_own_address_is_not_asked() {
    for dials in [Some("1002"), Some("+14155550199"), None] {
        let mut world = played(None, dials);
        let asked = aims(&mut world)
            .iter()
            .filter(|(to, must)| {
                // Phones without an address of their own are where only the simulated world has them.
                to.port() == 4000 && *must
            })
            .count();
        assert_eq!(asked, 0, "{dials:?}");
    }
}

#[test]
fn a_trunk_is_never_asked() {
    let mut world = played(None, Some("+14155550199"));
    let carrier = |to: &SocketAddr| to.ip().to_string().starts_with("168.86.");
    let asked = aims(&mut world).into_iter().filter(|(to, _)| carrier(to)).collect::<Vec<_>>();
    assert!(!asked.is_empty() && asked.iter().all(|(_, must)| !must), "{asked:?}");
}

/// However it comes into a call, its leg must answer; a media worker that is told so, and hears only the
/// other side, sends for thirty seconds.
#[test]
fn a_stranger_is_sent_to_for_half_a_minute_at_most() {
    let victim: SocketAddr = VICTIM.parse().unwrap();
    for dials in [Some("1002"), Some("+14155550199"), None] {
        let mut world = played(Some(VICTIM), dials);
        let aims = aims(&mut world);
        let asked = aims.iter().filter(|(to, must)| *to == victim && *must).count();
        assert!(asked > 0, "{dials:?}: {aims:?}");
        let unasked = aims.iter().filter(|(to, must)| *to == victim && !*must).count();
        assert_eq!(unasked, 0, "{dials:?}: {aims:?}");
        let sent = sent_to(victim, &commands(&mut world));
        assert!((29 * FRAMES..=31 * FRAMES).contains(&sent), "{dials:?}: {sent} packets");
    }
}

/// Gives a real worker the commands of a call up to where its legs are joined, lets the other peer talk
/// for two minutes, and counts what goes to an address.
fn sent_to(victim: SocketAddr, commands: &[Command]) -> u64 {
    let settings = Settings {
        ports: PortRange { first: 10_000, last: 10_063 },
        silence: Duration::from_secs(3600),
        unanswered: Duration::from_secs(30),
        offloads: false,
    };
    let mut worker = Worker::new(settings, Entropy::from_u64(1));
    let (start, mut slots, mut other) = (epoch(), vec![], None);
    for command in commands {
        let opens = if let Command::Open { leg, .. } = command { Some(*leg) } else { None };
        if let Command::Aim { leg, remote, .. } = command
            && remote.rtp != victim
        {
            other = Some((*leg, remote.rtp));
        }
        if matches!(command, Command::Close { .. }) {
            break;
        }
        worker.handle_command(command.clone(), start);
        while let Some(action) = worker.poll_action() {
            if let Action::Bind { slot, .. } = action {
                slots.extend(opens.map(|leg| (leg, slot)));
                worker.bound(slot, true, start);
            }
        }
    }
    let (leg, from) = other.expect("the other side");
    let slot = slots.iter().find(|(opened, _): &&(LegId, usize)| *opened == leg).unwrap().1;
    (0..120 * FRAMES).map(|n| say(&mut worker, (slot, from), (n, start), victim)).sum()
}

/// Lets a peer say its frame; returns how many packets go to the victim meanwhile.
fn say(
    worker: &mut Worker,
    (slot, from): (usize, SocketAddr),
    (n, start): (u64, Instant),
    victim: SocketAddr,
) -> u64 {
    let (now, mut sent) = (start + Duration::from_millis(20 * n), 0);
    worker.handle_timeout(now, &mut |datagram| sent += u64::from(datagram.to == victim));
    let mut packet = vec![0x80, 0];
    packet.extend((n as u16).to_be_bytes());
    packet.extend((n as u32 * 160).to_be_bytes());
    packet.extend([0, 0, 0, 7]);
    packet.resize(172, 0xff);
    let len = packet.len();
    let passed = worker.handle_rtp(slot, from, (&mut packet, len), now);
    sent + u64::from(passed.is_some_and(|datagram| datagram.to == victim))
}
