//! Addresses and edges of the trunk that do not answer: the call goes by another, the caller hears of
//! nothing.

use crate::{
    house::{DID, House, act, cdr, why, with_pbx, with_phone, with_twilio},
    storm::{assert_ladder, faults, storm},
};
use std::time::Duration;
use tandem::{
    observe::cdr::AttemptOutcome,
    sim::{
        Network, Reach, World,
        phone::{Act, Heard, On},
        twilio::{Edge, Proxy},
    },
    sip::Method,
};

/// Two edges of the trunk by their own names.
const EDGES: &str = "[\"asterisk-pbx1.pstn.ashburn.twilio.com\", \
                     \"asterisk-pbx1.pstn.dublin.twilio.com\"]";

/// A house whose trunk is at two edges of so many addresses each.
fn house(seed: u64, addresses: usize) -> House {
    let mut house = House::new(seed);
    house.trunk_key("uri", EDGES);
    house.twilio_like(|mut setup| {
        setup.edges = edges(addresses);
        setup
    });
    house.phone("1001");
    house
}

fn edges(addresses: usize) -> Vec<Edge> {
    let known = Edge::all().into_iter().filter(|edge| matches!(&*edge.name, "ashburn" | "dublin"));
    known
        .map(|mut edge| {
            edge.proxies.truncate(addresses);
            edge
        })
        .collect()
}

/// The addresses of an edge: 0 is the first.
fn proxies(edge: usize) -> Vec<Proxy> {
    edges(4).swap_remove(edge).proxies
}

/// Opens a house whose trunk is asked for its health, which never rests.
fn open_watched(house: &mut House) -> World {
    house.trunk_keys("");
    let mut world = house.open();
    act(&mut world, "1001", Act::Register);
    world.run_until(100);
    world.begin_again();
    world
}

fn reach(world: &mut World, proxies: &[Proxy], reach: Reach) {
    with_twilio(world, |twilio, _| {
        proxies.iter().for_each(|proxy| twilio.set_reach(proxy.plain, reach));
    });
}

fn call(world: &mut World) {
    act(world, "1001", Act::Call("+14155550199".into()));
}

fn outcomes(world: &mut World) -> Vec<AttemptOutcome> {
    cdr(world).route.attempts.iter().map(|attempt| attempt.outcome).collect()
}

/// Of each edge one address; the first is silent.
fn play(seed: u64, network: Network, failover: &str) -> World {
    let mut house = house(seed, 1);
    house.trunk_keys(&format!("qualify = false\nfailover = \"{failover}\""));
    let mut world = house.open_registered();
    reach(&mut world, &proxies(0), Reach::Blackholed);
    world.set_network(network);
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 5000, Act::HangUp);
    });
    call(&mut world);
    world
}

/// No CANCEL follows the abandoned INVITE: nothing has been heard of it (RFC 3261 9.1).
#[test]
fn silence_leads_to_the_next_edge() {
    let mut world = play(1, Network::CLEAN, "1s");
    assert_ladder(
        &mut world,
        "0 ms  1001 -> tandem  INVITE (sdp)
                20 ms  tandem -> 1001  100 Trying (INVITE)
                20 ms  tandem -> twilio  INVITE (sdp)  [lost]
               520 ms  tandem -> twilio  INVITE (sdp)  [lost]
              1020 ms  tandem -> twilio  INVITE (sdp)
              1040 ms  twilio -> tandem  100 trying -- your call is important to us (INVITE)
              1040 ms  twilio -> tandem  407 Proxy Authentication required (INVITE)
              1060 ms  tandem -> twilio  ACK
              1060 ms  tandem -> twilio  INVITE (sdp)
              1080 ms  twilio -> tandem  100 trying -- your call is important to us (INVITE)
              1380 ms  twilio -> tandem  183 Session Progress (INVITE, sdp)
              1400 ms  tandem -> 1001  183 Session Progress (INVITE, sdp)
              1520 ms  tandem -> twilio  INVITE (sdp)  [lost]
              3380 ms  twilio -> tandem  200 OK (INVITE, sdp)
              3400 ms  tandem -> twilio  ACK
              3400 ms  tandem -> 1001  200 OK (INVITE, sdp)
              3420 ms  1001 -> tandem  ACK
              3520 ms  tandem -> twilio  INVITE (sdp)  [lost]
              8420 ms  1001 -> tandem  BYE
              8440 ms  tandem -> 1001  200 OK (BYE)
              8440 ms  tandem -> twilio  BYE
              8460 ms  twilio -> tandem  200 OK (BYE)",
    );
    let route = cdr(&mut world).route;
    let [first, second] = &route.attempts[..] else { panic!("{route:?}") };
    assert_eq!(
        first.to_string(),
        "twilio asterisk-pbx1.pstn.ashburn.twilio.com at udp:54.172.60.0:5060: silent after 1000 ms"
    );
    assert_eq!(&*second.host, "asterisk-pbx1.pstn.dublin.twilio.com");
    assert_eq!((second.outcome, second.after_ms), (AttemptOutcome::Answered, 1000));
    let invites = world
        .sent()
        .iter()
        .filter(|sent| sent.message.method() == Method::Invite && &*sent.to == "twilio");
    let mut ids: Vec<_> = invites.map(|sent| sent.message.call_id()).collect();
    ids.dedup();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 2, "each attempt is a dialog of its own");
}

#[test]
fn on_bad_networks() {
    let play = |seed, network| play(seed, network, "4s");
    storm(1000, play, |world| with_phone(world, "1001", |phone, _| phone.has_heard(&Heard::Up)));
}

/// An ICMP error or RST is no silence: the next address is called at once.
#[test]
fn a_refusing_address_costs_a_round_trip() {
    for transport in ["udp", "tcp"] {
        let mut house = house(3, 1);
        house.trunk_keys(&format!("qualify = false\ntransport = \"{transport}\""));
        let mut world = house.open_registered();
        reach(&mut world, &proxies(0), Reach::Refusing);
        call(&mut world);
        world.run_until(5000);
        with_phone(&mut world, "1001", |phone, _| assert!(phone.has_heard(&Heard::Up)));
        act(&mut world, "1001", Act::HangUp);
        assert_eq!(faults(&mut world), [""; 0]);
        let cdr = cdr(&mut world);
        assert_eq!(cdr.times.ring_delay_ms(), Some(400), "{transport}");
        assert_eq!(cdr.route.attempts[0].outcome, AttemptOutcome::Unreachable);
    }
}

/// The first edge answers after the call has gone to the second: its ringing and its answer reach
/// nobody, and it is cancelled or hung up.
#[test]
fn a_late_answer_is_acknowledged_and_hung_up() {
    for slow_ms in [4100, 4500, 6000, 8000] {
        let mut world = house(4, 1).open_registered();
        reach(&mut world, &proxies(0), Reach::Slow(Duration::from_millis(slow_ms)));
        with_phone(&mut world, "1001", |phone, _| {
            phone.when(On::Up, 20_000, Act::HangUp);
        });
        call(&mut world);
        assert_eq!(faults(&mut world), [""; 0], "{slow_ms}: {}", world.ladder());
        with_phone(&mut world, "1001", |phone, _| {
            let ups = phone.heard().iter().filter(|heard| **heard == Heard::Up).count();
            assert_eq!(ups, 1, "{slow_ms}");
        });
        with_twilio(&mut world, |twilio, _| assert_eq!(twilio.calls(), 0, "{slow_ms}"));
        use AttemptOutcome::{Answered, Silent};
        assert_eq!(outcomes(&mut world), [Silent, Answered], "{slow_ms}");
    }
}

#[test]
fn the_caller_gives_up_meanwhile() {
    for at_ms in [10, 1000, 3990, 4010, 4050, 4100, 4300, 4500] {
        let mut world = house(5, 1).open_registered();
        reach(&mut world, &proxies(0), Reach::Blackholed);
        call(&mut world);
        world.run_until(at_ms);
        act(&mut world, "1001", Act::HangUp);
        assert_eq!(faults(&mut world), [""; 0], "{at_ms}: {}", world.ladder());
        let cdr = cdr(&mut world);
        assert_eq!(cdr.ending.status, 487, "{at_ms}");
        assert_eq!(cdr.times.answer, None);
        with_pbx(&mut world, |pbx, now| assert_eq!(pbx.shard().trunks(now)[0].calls, 0));
    }
}

/// Nobody at all: one sentence names the trunk, and counts.
#[test]
fn when_all_are_dead_the_sentence_says_so() {
    let mut world = house(6, 2).open_registered();
    reach(&mut world, &[proxies(0), proxies(1)].concat(), Reach::Blackholed);
    call(&mut world);
    world.run_until(15_000);
    let is_refused = |heard: &Heard| matches!(heard, Heard::Refused(..));
    with_phone(&mut world, "1001", |phone, _| assert!(!phone.heard().iter().any(is_refused)));
    world.run_until(17_000);
    with_phone(&mut world, "1001", |phone, _| {
        let refused = Heard::Refused(480, "Temporarily Unavailable".into());
        assert_eq!(phone.heard().last(), Some(&refused));
    });
    assert_eq!(faults(&mut world), [""; 0]);
    assert_eq!(outcomes(&mut world), [AttemptOutcome::Silent; 4]);
    assert_eq!(
        why(&mut world),
        "T001 asterisk-pbx1.pstn.dublin.twilio.com did not answer (no answer from any of 4 addresses)"
    );
    let rows = with_pbx(&mut world, |pbx, now| pbx.shard().trunks(now));
    let states: Vec<_> = rows[0].addresses.iter().map(|row| &*row.state).collect();
    assert_eq!(states, ["dead"; 4]);
}

/// Both edges are asked, for the carrier's trouble may be one edge's.
#[test]
fn a_503_is_tried_at_the_next_edge_and_a_486_is_not() {
    for (number, want) in [("+15005550503", 2), ("+15005550500", 2), ("+15005550486", 1)] {
        let mut world = house(7, 4).open_registered();
        act(&mut world, "1001", Act::Call(number.into()));
        assert_eq!(faults(&mut world), [""; 0]);
        let attempts = cdr(&mut world).route.attempts;
        assert_eq!(attempts.len(), want, "{attempts:?}");
        assert!(attempts.iter().all(|attempt| attempt.outcome == AttemptOutcome::Refused));
        assert!(attempts[0].host.contains("ashburn"));
        assert!(attempts.iter().skip(1).all(|attempt| attempt.host.contains("dublin")));
    }
}

/// Only what `retry` names is retried.
#[test]
fn retry_decides() {
    for (retry, number, want) in [
        ("{ on = [503] }", "+15005550503", 2),
        ("{ on = [404] }", "+15005550503", 1),
        ("{ on = [404] }", "+15005550404", 2),
        ("{ next = [\"trunk\"] }", "+15005550503", 1),
        ("{ on = [\"500-502\"] }", "+15005550503", 1),
    ] {
        let mut house = house(8, 1);
        house.trunk_keys(&format!("qualify = false\nretry = {retry}"));
        let mut world = house.open_registered();
        act(&mut world, "1001", Act::Call(number.into()));
        assert_eq!(faults(&mut world), [""; 0]);
        assert_eq!(cdr(&mut world).route.attempts.len(), want, "{retry} {number}");
    }
}

/// The carrier does not know the first number: the next of the list is presented.
#[test]
fn a_refused_caller_id_gives_way_to_the_next() {
    let mut house = house(9, 1);
    house.trunk_key("caller_id", &format!("[\"+17756180000\", \"+17756180001\", \"{DID}\"]"));
    let mut world = house.open_registered();
    call(&mut world);
    world.run_until(5000);
    with_phone(&mut world, "1001", |phone, _| assert!(phone.has_heard(&Heard::Up)));
    act(&mut world, "1001", Act::HangUp);
    assert!(world.settle(Duration::from_secs(60)));
    let route = cdr(&mut world).route;
    let tried: Vec<_> = route.attempts.iter().map(|a| (a.caller_id.expose(), a.outcome)).collect();
    use AttemptOutcome::{Answered, Refused};
    assert_eq!(tried, [("+17756180000", Refused), ("+17756180001", Refused), (DID, Answered)]);
    assert_eq!(route.caller_id.unwrap().expose(), DID);
}

/// Another trunk takes a call that this one could not carry, and none that its callee refused.
#[test]
fn the_next_trunk_of_the_rule() {
    const SPARE: &str = "qualify = false\nretry = { next = [\"trunk\"] }\n[trunk.spare]\n\
                         preset = \"twilio\"\nuri = \"asterisk-pbx1.pstn.dublin.twilio.com\"\n\
                         caller_id = \"+17756187988\"\nusername = \"Asterisk\"\n\
                         password = \"the trunk's secret\"\nqualify = false";
    for (number, is_dead, want) in [
        ("+14155550199", true, vec!["twilio", "spare"]),
        ("+15005550503", false, vec!["twilio", "spare"]),
        ("+15005550486", false, vec!["twilio"]),
        ("+15005550404", false, vec!["twilio"]),
    ] {
        let mut house = house(10, 1);
        house.trunk_keys(SPARE);
        house.dialplan(
            "[[internal.rule]]\nmatch = \"_+.\"\ndial = [[\"trunk:twilio\"], [\"trunk:spare\"]]\n",
        );
        let mut world = house.open_registered();
        if is_dead {
            reach(&mut world, &proxies(0), Reach::Blackholed);
        }
        with_phone(&mut world, "1001", |phone, _| {
            phone.when(On::Up, 1000, Act::HangUp);
        });
        act(&mut world, "1001", Act::Call(number.into()));
        assert_eq!(faults(&mut world), [""; 0], "{number}");
        let attempts = cdr(&mut world).route.attempts;
        let trunks: Vec<_> = attempts.iter().map(|attempt| &*attempt.trunk).collect();
        assert_eq!(trunks, want, "{number}");
        if is_dead {
            assert_eq!(cdr(&mut world).times.ring_delay_ms(), Some(4400 - 20));
        }
    }
}

/// Whatever the carrier says to a call for help, the next one is asked.
#[test]
fn an_emergency_call_tries_every_trunk() {
    let mut house = house(14, 1);
    house.trunk_keys(
        "qualify = false\nretry = { on = [], next = [] }\n[trunk.spare]\npreset = \"twilio\"\n\
         uri = \"asterisk-pbx1.pstn.dublin.twilio.com\"\ncaller_id = \"+17756187988\"\n\
         username = \"Asterisk\"\npassword = \"not the trunk's secret\"\nqualify = false\n\
         [emergency]\ntrunk = \"twilio\"",
    );
    let mut world = house.open_registered();
    with_twilio(&mut world, |twilio, _| twilio.set_reach(proxies(0)[0].plain, Reach::Refusing));
    act(&mut world, "1001", Act::Call("911".into()));
    assert!(world.settle(Duration::from_secs(120)));
    let attempts = cdr(&mut world).route.attempts;
    let trunks: Vec<_> = attempts.iter().map(|attempt| &*attempt.trunk).collect();
    assert_eq!(trunks, ["twilio", "spare"]);
}

/// A phone rings on beside a trunk that fails over.
#[test]
fn who_rings_beside_it_is_not_disturbed() {
    let mut house = house(11, 1);
    house.phone("1002").dialplan(
        "[[internal.rule]]\nmatch = \"_+.\"\nring = \"20s\"\ndial = [\"user:1002\", \"trunk:twilio\"]\n",
    );
    let mut world = house.open_registered();
    reach(&mut world, &[proxies(0), proxies(1)].concat(), Reach::Blackholed);
    with_phone(&mut world, "1002", |phone, _| {
        phone.when(On::Called, 100, Act::Ring).when(On::Called, 15_000, Act::Answer);
    });
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 1000, Act::HangUp);
    });
    call(&mut world);
    assert_eq!(faults(&mut world), [""; 0], "{}", world.ladder());
    with_phone(&mut world, "1001", |phone, _| assert!(phone.has_heard(&Heard::Up)));
    let asked = world.sent().iter().filter(|sent| {
        &*sent.to == "1002" && sent.message.is_request() && sent.message.method() == Method::Invite
    });
    assert_eq!(asked.count(), 1);
}

/// What a trunk's OPTIONS have found out, calls need not: the first INVITE goes to a living address.
/// Addresses that come back are taken again.
#[test]
fn options_find_out_who_is_dead_and_who_is_back() {
    let mut house = house(12, 2);
    let mut world = open_watched(&mut house);
    reach(&mut world, &proxies(0)[..2], Reach::Blackholed);
    world.run_until(240_000);
    call(&mut world);
    world.run_until(245_000);
    with_phone(&mut world, "1001", |phone, _| assert!(phone.has_heard(&Heard::Up)));
    act(&mut world, "1001", Act::HangUp);
    world.run_until(246_000);
    let attempts = cdr(&mut world).route.attempts;
    assert!(attempts.len() == 1 && attempts[0].host.contains("dublin"), "{attempts:?}");

    reach(&mut world, &proxies(0), Reach::Open);
    world.run_until(1_200_000);
    call(&mut world);
    world.run_until(1_205_000);
    act(&mut world, "1001", Act::HangUp);
    world.run_until(1_206_000);
    assert_eq!(tandem::sim::check::violations(&world), [""; 0]);
    with_twilio(&mut world, |twilio, _| assert_eq!(twilio.deviations(), []));
    let last = with_pbx(&mut world, |pbx, _| pbx.cdrs()[1].route.attempts.clone());
    assert!(last.len() == 1 && last[0].host.contains("ashburn"), "{last:?}");
}

/// The names are not known yet: a call waits for the first of them, and no longer than that.
#[test]
fn a_call_before_the_first_answer_of_dns_waits_for_it() {
    for (lost, status, sent_ms) in [
        (vec![], 200, Some(1380)),
        (vec!["ashburn"], 200, Some(1380)),
        (vec!["ashburn", "dublin"], 503, None),
    ] {
        let mut house = house(13, 1);
        let mut world = house.open();
        with_pbx(&mut world, |pbx, _| {
            lost.iter().for_each(|edge| {
                pbx.forget_host(&format!("asterisk-pbx1.pstn.{edge}.twilio.com"));
            });
            pbx.delay_names(Duration::from_millis(1500));
        });
        act(&mut world, "1001", Act::Register);
        world.run_until(100);
        world.begin_again();
        with_phone(&mut world, "1001", |phone, _| {
            phone.when(On::Up, 1000, Act::HangUp);
        });
        call(&mut world);
        assert_eq!(faults(&mut world), [""; 0]);
        let cdr = cdr(&mut world);
        assert_eq!(cdr.ending.status, status, "{lost:?}");
        let first = cdr.route.attempts.first().map(|attempt| attempt.after_ms);
        assert_eq!(first, sent_ms, "{lost:?}");
    }
}

/// From the caller's INVITE to its first ringing, with so many of the first edge's four addresses dead:
/// a call placed at once, and one after OPTIONS have gone round.
#[test]
fn how_long_a_caller_waits() {
    let seeds: u64 = std::env::var("TANDEM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let mut table = String::from("dead  cold p50  cold p99  warm p50  warm p99 (ms)\n");
    for dead in 0..=4 {
        let mut delays = [vec![], vec![]];
        for seed in 1..=seeds {
            let mut house = house(seed, 4);
            let mut world = open_watched(&mut house);
            reach(&mut world, &proxies(0)[..dead], Reach::Blackholed);
            for (index, at_ms) in [(0, 100), (1, 600_000)] {
                world.run_until(at_ms);
                call(&mut world);
                world.run_until(at_ms + 60_000);
                act(&mut world, "1001", Act::HangUp);
                world.run_until(at_ms + 120_000);
                let delay =
                    with_pbx(&mut world, |pbx, _| pbx.cdrs()[index].times.ring_delay_ms().unwrap());
                delays[index].push(delay);
            }
        }
        let [cold, warm] = delays.map(|mut delays| {
            delays.sort_unstable();
            let at = |percent: usize| delays[(delays.len() - 1) * percent / 100];
            (at(50), at(99))
        });
        table +=
            &format!("{dead:>4}  {:>8}  {:>8}  {:>8}  {:>8}\n", cold.0, cold.1, warm.0, warm.1);
        assert!(cold.1 <= 380 + 4000 * dead as u64, "{table}");
        assert!(warm.1 <= 380, "{table}");
    }
    // For whoever asks with --nocapture.
    eprintln!("{table}");
}
