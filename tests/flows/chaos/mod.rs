//! Whatever happens: phones and a carrier do what comes into their heads, on a network that fails in
//! every way at once, and all checkers look on.
//!
//! A number makes a world: who is there, what the network is like, what is done and what breaks.
//! `make sim SEEDS=10000` plays so many; one that fails says how to play it again.

mod faults;

use crate::{
    house::{DID, House, PBX, TWILIO, addr, with_pbx, with_phone},
    storm::faults_but,
    unreached::{is_given_up, is_shed, is_unreached},
};
use faults::{FIRST_KINDS, Felt, KINDS, Plan, Tally};
use std::{env, panic, thread, time::Duration};
use tandem::{
    ids::{CallId, Entropy, Transport},
    sim::{
        Network, Twilio, World,
        phone::{Act, Habit, On, Setup},
        twilio::{CallIn, CallNumber, Edge, Origination},
    },
};

/// Worlds played where nobody asks for more.
const SEEDS: u64 = 300;
/// How long things happen.
const ACTS_MS: u64 = 60_000;
/// When everything that broke works again, and all are to go.
const END_MS: u64 = 100_000;
/// How long what a name server says holds.
const NAMES_HOLD: Duration = Duration::from_secs(10);
/// Calls that a carrier may have made.
const CALLS_IN_MAX: u64 = 40;

const DIALPLAN: &str = r#"
[[internal.rule]]
match = "_1XXX"
dial  = "user:{number}"
ring  = "15s"
[[internal.rule]]
match = "700"
dial  = ["user:1001", "user:1002", "user:1003"]
ring  = "20s"
[[internal.rule]]
match = "701"
dial  = [["user:1002"], ["user:1003", "trunk:twilio/+14155550199"]]
ring  = "8s"
[[internal.rule]]
match = "600"
echo  = true
[[internal.rule]]
match = "*97"
steps = [{ answer = true }, { wait = "1s" }, { play = "welcome.wav" }, { echo = true }]
[[internal.rule]]
match = "*98"
play  = "welcome.wav"
[[internal.rule]]
match = "_+."
dial  = "trunk:twilio"
[[inbound.rule]]
match = "+17756187988"
dial  = ["user:1001", "user:1002"]
ring  = "20s"
"#;

/// Whom phones call.
const NUMBERS: [&str; 16] = [
    "1001",
    "1002",
    "1003",
    "1004",
    "700",
    "701",
    "600",
    "*97",
    "*98",
    "nobody",
    "+14155550199",
    "+15005550486",
    "+15005550408",
    "+15005550002",
    "+15005550180",
    "+15005550503",
];

struct Dice(Entropy);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    fn hits(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn of<'a, T>(&mut self, some: &'a [T]) -> &'a T {
        &some[self.below(some.len() as u64) as usize]
    }
}

fn phone(mut setup: Setup, dice: &mut Dice) -> Setup {
    if dice.hits(25) {
        setup.transport = Transport::Tcp;
    }
    if dice.hits(20) {
        setup.codecs = vec!["PCMA", "TELEPHONE-EVENT"];
    }
    if dice.hits(20) {
        setup.session_s = Some(90);
    }
    for habit in [
        Habit::OffersLate,
        Habit::RequiresReliable,
        Habit::RingsReliably,
        Habit::LacksUpdate,
        Habit::ForgetsNonces,
        Habit::IgnoresCancel,
        Habit::RefusesChange { status: 491, retry_after_s: None },
    ] {
        if dice.hits(10) {
            setup.habits.insert(habit);
        }
    }
    setup
}

fn house(seed: u64, dice: &mut Dice) -> House {
    let mut house = House::new(seed);
    house.dialplan(DIALPLAN).prompt("welcome.wav", 3);
    let transport = dice.of(&["udp", "udp", "tcp"]);
    let most = dice.of(&["false", "1", "3"]);
    let queue = if *most != "false" && dice.hits(50) { "\nqueue_for = \"5s\"" } else { "" };
    house.trunk_keys(&format!(
        "qualify = false\ntransport = \"{transport}\"\nmax_calls = {most}{queue}"
    ));
    for name in ["1001", "1002", "1003", "1004"] {
        house.phone_like(name, name, |setup| phone(setup, dice));
    }
    if dice.hits(50) {
        house.phone_like("1001b", "1001", |setup| phone(setup, dice));
    }
    house.twilio_like(|mut setup| {
        if dice.hits(50) {
            let mut edges = Edge::all();
            edges.truncate(1);
            edges.iter_mut().for_each(|edge| edge.proxies.truncate(2));
            setup.edges = edges;
        }
        setup
    });
    house
}

fn network(dice: &mut Dice) -> Network {
    Network {
        loss_percent: *dice.of(&[0, 5, 10, 20]),
        duplicate_percent: *dice.of(&[0, 0, 10]),
        reorder_percent: *dice.of(&[0, 0, 20]),
        latency: Duration::from_millis(*dice.of(&[1, 20, 120])),
        jitter: Duration::from_millis(*dice.of(&[0, 30])),
    }
}

/// What phones do by themselves.
fn reactions(world: &mut World, name: &str, dice: &mut Dice) {
    let (rings, answers) = (dice.below(1500), 300 + dice.below(12_000));
    let (first, answer) = (
        dice.of(&[Act::Ring, Act::Ring, Act::Progress]).clone(),
        match dice.below(10) {
            0 => Act::Reject(*dice.of(&[486, 480, 603, 500])),
            1 => Act::Redirect("sip:1003@10.0.0.1".into()),
            2 => Act::Ring,
            _ => Act::Answer,
        },
    );
    let hangs_up = dice.hits(60).then(|| dice.below(30_000));
    with_phone(world, name, |phone, _| {
        phone.when(On::Called, rings, first).when(On::Called, answers, answer);
        if let Some(after) = hangs_up {
            phone.when(On::Up, after, Act::HangUp);
        }
    });
}

fn call_in(dice: &mut Dice) -> CallIn {
    let transport = *dice.of(&[Transport::Udp, Transport::Udp, Transport::Tcp]);
    let to = vec![Origination::new(addr(PBX), transport)];
    let did = if dice.hits(90) { DID } else { "+17755550000" };
    let talks_for = dice.hits(50).then(|| Duration::from_millis(dice.below(20_000)));
    CallIn { talks_for, ..CallIn::new(did, "+14155550123", to) }
}

/// Plans something that somebody does.
fn plan_act(world: &mut World, names: &[String], dice: &mut Dice) {
    let at = dice.below(ACTS_MS);
    let name = dice.of(names).clone();
    let act = match dice.below(20) {
        0..7 => Act::Call((*dice.of(&NUMBERS)).into()),
        7..10 => {
            let call = call_in(dice);
            world.at(at, move |world| {
                world.with(TWILIO, |twilio: &mut Twilio, now| _ = twilio.call_in(&call, now));
            });
            return;
        }
        10 => Act::HangUp,
        11 => Act::Cancel,
        12 => Act::Hold,
        13 => Act::Resume,
        14 => Act::Reinvite,
        15 => Act::Refresh,
        16 => Act::HoldByUpdate,
        17 => Act::Press('5'),
        18 => Act::Register,
        _ => Act::Unregister,
    };
    world.at(at, move |world| with_phone(world, &name, |phone, now| phone.act(act, now)));
}

/// Lets everybody go: phones, the carrier, and an operator whatever calls the PBX has.
fn let_go(world: &mut World, names: &[String]) {
    for name in names {
        with_phone(world, name, |phone, now| phone.leave(now));
    }
    world.with(TWILIO, |twilio: &mut Twilio, now| {
        (0..CALLS_IN_MAX).for_each(|nth| twilio.hang_up(CallNumber(nth), now));
    });
    with_pbx(world, |pbx, now| {
        pbx.with_each(now, |shard| {
            let calls: Vec<CallId> = shard.calls(now).iter().map(|call| call.call).collect();
            calls.into_iter().for_each(|call| _ = shard.hang_up(call, now));
        });
    });
}

/// Looks whether the trunk has more calls than it may.
fn caps(world: &mut World) -> Vec<String> {
    with_pbx(world, |pbx, now| {
        let rows = pbx.with_shard(now, |shard, now| shard.trunks(now));
        let over = rows.iter().filter(|row| row.calls_max.is_some_and(|most| row.calls > most));
        over.map(|row| format!("{} calls by {}", row.calls, row.name)).collect()
    })
}

/// A world at its end.
struct Played {
    /// What is wrong with it.
    found: Vec<String>,
    world: World,
    plan: Plan,
}

/// Plays a world to its end, of whose faults so many kinds were known.
fn play(seed: u64, kinds: u64) -> Played {
    let mut dice = Dice(Entropy::from_u64(seed));
    let mut house = house(seed, &mut dice);
    if kinds > FIRST_KINDS {
        // Names that nobody asks for again cannot fail.
        house.names_hold(NAMES_HOLD);
    }
    let names = house.names();
    let mut world = house.open_registered();
    world.set_network(network(&mut dice));
    for name in &names {
        reactions(&mut world, name, &mut dice);
    }
    for _ in 0..2 + dice.below(20) {
        plan_act(&mut world, &names, &mut dice);
    }
    let mut plan = Plan::new(kinds);
    for _ in 0..dice.below(5) {
        plan.add(&mut world, &names, &mut dice);
    }
    let mut found = vec![];
    for second in 1..=END_MS / 1000 {
        world.run_until(second * 1000);
        found.extend(caps(&mut world));
    }
    // Whoever waits for an ACK, or for an answer to what nobody hears, cannot go at once.
    for _ in 0..4 {
        let_go(&mut world, &names);
        world.run_until(world.now_ms() + 40_000);
    }
    let mut broken = faults_but(&mut world, is_unreached);
    // A carrier that nothing reaches gives its INVITE up without a word.
    broken.retain(|fault| !is_given_up(world.sent(), fault) && !is_shed(world.sent(), fault));
    found.extend(broken);
    found.extend(left_over(&mut world, &names));
    Played { found, world, plan }
}

/// Looks for what an idle PBX must not have.
fn left_over(world: &mut World, names: &[String]) -> Vec<String> {
    let mut found = vec![];
    with_pbx(world, |pbx, now| {
        let (panics, calls, rows) = pbx.with_shard(now, |shard, now| {
            (shard.counters().panics, shard.calls(now).len(), shard.trunks(now))
        });
        let of_users: u64 = names.iter().map(|name| pbx.shard().calls_of(name)).sum();
        let of_trunks: u64 = rows.iter().map(|row| row.calls + row.waiting).sum();
        for (count, what) in [
            (panics, "steps that panicked"),
            (calls as u64, "calls"),
            (of_users, "calls of users"),
            (of_trunks, "calls of trunks"),
            (pbx.processes() as u64 - 1, "processes that should have ended"),
        ] {
            if count > 0 {
                found.push(format!("{count} {what} are left"));
            }
        }
        let is_odd = |cdr: &&tandem::observe::cdr::Cdr| cdr.times.end < cdr.times.start;
        found.extend(pbx.cdrs().iter().filter(is_odd).map(|cdr| format!("{cdr:?} ends early")));
    });
    found
}

/// Plays what is asked for: `TANDEM_SIM` worlds from `TANDEM_SIM_FROM` on. Tells how many worlds each kind of
/// fault was in, and in how many of them it was felt: one that is never felt tests nothing.
#[test]
fn every_world_comes_to_rest() {
    let asked = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let from = asked("TANDEM_SIM_FROM").unwrap_or(1);
    let seeds = asked("TANDEM_SIM").unwrap_or(SEEDS);
    let workers = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let (mut failed, mut tally) = (vec![], Tally::default());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers)
            .map(|nth| {
                let seeds = (from + nth..from + seeds).step_by(workers as usize);
                scope.spawn(move || seeds.map(|seed| (seed, is_sound(seed, KINDS))).collect())
            })
            .collect();
        for worker in workers {
            let played: Vec<(u64, (bool, Felt))> = worker.join().unwrap();
            for (seed, (is_sound, felt)) in played {
                failed.extend((!is_sound).then_some(seed));
                tally.add(&felt);
            }
        }
    });
    println!("{seeds} worlds\n{tally}");
    assert!(failed.is_empty(), "{} of {seeds} worlds: {failed:?}", failed.len());
    let unfelt = tally.unfelt();
    assert!(seeds < SEEDS || unfelt.is_empty(), "{unfelt:?}\n{tally}");
}

/// Returns whether nothing is wrong, and what was felt of its faults.
fn is_sound(seed: u64, kinds: u64) -> (bool, Felt) {
    let played = panic::catch_unwind(|| {
        let Played { found, mut world, plan } = play(seed, kinds);
        let told = match found.is_empty() {
            true => String::new(),
            false => format!("{:#?}\n{}", plan.told(), world.ladder()),
        };
        (found, told, plan.felt(&mut world))
    });
    let (found, told, felt) =
        played.unwrap_or_else(|_| (vec!["a panic".to_owned()], String::new(), Felt::default()));
    if !found.is_empty() {
        eprintln!(
            "TANDEM_SIM_FROM={seed} TANDEM_SIM=1 cargo test --test flows chaos\n{found:#?}\n{told}"
        );
    }
    (found.is_empty(), felt)
}

/// What these have shown: a PRACK or BYE with a number that came before, a copy of a refused INVITE that
/// became a call, a phone that never heard of its call's end; the same number of a PRACK and a BYE behind a second ACK
/// of the caller's, a copy of a refused INVITE that became a call of the next process, a nonce that was stale until the clock
/// that had been set back came to it. And, by mistakes of ours here: a disk that wrote in another order what had come
/// while it failed; an operator who did not reach the calls of the process before.
#[test]
fn worlds_that_failed_once() {
    for seed in [119, 1262, 1522, 1862, 2073, 2284, 2466, 2864, 2888, 6066, 9078, 9853] {
        assert!(is_sound(seed, FIRST_KINDS).0, "{seed}");
    }
    for seed in [202_679, 203_525, 207_687, 207_716] {
        assert!(is_sound(seed, KINDS).0, "{seed}");
    }
}

#[test]
fn the_same_number_is_the_same_world() {
    for seed in [3, 4] {
        let ladder = |seed| play(seed, KINDS).world.ladder();
        assert_eq!(ladder(seed), ladder(seed));
    }
}
