//! A whole shard: phones and a carrier call each other through it, while what comes in is garbled, repeated
//! from elsewhere and thrown in, connections die, and the clock is set.

use crate::{
    cases, messages,
    mutate::{Random, mutate},
    say, seed,
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tandem::{
    config::{self, Files},
    ids::{Flow, Transport},
    sim::{
        Network, Node, Pbx, Phone, World,
        pbx::Setup,
        phone::{self, Act, On},
    },
};

const PBX: &str = "10.0.0.1:5060";
const TANDEM: &str = "tandem";
const USERS: [(&str, [u8; 4]); 4] = [
    ("1001", [10, 0, 0, 11]),
    ("1002", [10, 0, 0, 12]),
    ("1003", [10, 0, 0, 13]),
    ("carrier", [192, 0, 2, 20]),
];
const CONFIG: &str = r#"
dialplan = ["rules.toml"]
[sip]
listen = ["udp:10.0.0.1:5060", "tcp:10.0.0.1:5060"]
[trunk.carrier]
uri = "carrier.example.com"
address = "192.0.2.20:5060"
caller_id = "+14155550100"
username = "carrier"
password = "secret"
[user.1001]
password = "secret"
[user.1002]
password = "secret"
[user.1003]
password = "secret"
"#;
const RULES: &str = r#"
[[internal.rule]]
match = "600"
echo = true
[[internal.rule]]
match = "_1XXX"
dial = ["user:{number}", "user:1003"]
ring = "20s"
[[internal.rule]]
match = "_+."
dial = "trunk:carrier"
[[inbound.rule]]
match = "re:.*"
dial = ["user:1001", "user:1002"]
ring = "20s"
"#;
/// Whom phones call.
const NUMBERS: [&str; 6] = ["1001", "1002", "1003", "600", "+14155550199", "nobody"];
/// How long the world goes on by itself once all have been let go.
const REST: Duration = Duration::from_secs(48 * 3600);

#[test]
fn a_shard() {
    let corpus = messages();
    for case in cases(150) {
        let mut said = vec![];
        let played = catch_unwind(AssertUnwindSafe(|| history(case, &corpus, &mut said)));
        if let Err(panic) = played {
            say(&format!("shard: TANDEM_FUZZ_FROM={case} TANDEM_FUZZ=1\n{}", said.join("\n")));
            resume_unwind(panic);
        }
    }
}

/// Plays a minute of a house and lets it come to rest.
fn history(case: u64, corpus: &[Vec<u8>], said: &mut Vec<String>) {
    let mut random = Random::new(seed("shard", case));
    let mut world = house(&mut random, corpus);
    for (name, _) in USERS {
        act(&mut world, name, Act::Register);
    }
    for _ in 0..12 {
        let until = world.now_ms() + random.below(6000) as u64;
        world.run_until(until);
        disturb(&mut world, &mut random, corpus);
    }
    world.with(TANDEM, |garbler: &mut Garbler, _| garbler.percent = 0);
    for (name, _) in USERS {
        act(&mut world, name, Act::HangUp);
    }
    world.settle(Duration::from_secs(300));
    // Where a goodbye was garbled on a connection, which repeats nothing, the silence tells.
    world.with(TANDEM, |garbler: &mut Garbler, now| {
        (0..garbler.pbx.open_legs()).rev().for_each(|nth| _ = garbler.pbx.silence(nth, now));
    });
    let is_quiet = world.settle(REST);
    world.with(TANDEM, |garbler: &mut Garbler, now| {
        said.append(&mut garbler.said);
        assert_eq!(
            garbler.pbx.with_shard(now, |shard, _| shard.counters()).panics,
            0,
            "a step panicked"
        );
    });
    assert!(is_quiet, "{:?} are busy:\n{}", world.busy(), world.ladder());
}

fn disturb(world: &mut World, random: &mut Random, corpus: &[Vec<u8>]) {
    let (name, _) = *random.of(&USERS);
    match random.below(16) {
        0 | 1 => act(world, name, Act::Call((*random.of(&NUMBERS)).into())),
        2 => act(world, name, Act::HangUp),
        3 => act(world, name, random.of(&[Act::Hold, Act::Resume, Act::Reinvite]).clone()),
        4 => {
            act(world, name, random.of(&[Act::Refresh, Act::HoldByUpdate, Act::Press('5')]).clone())
        }
        5 => {
            act(world, name, random.of(&[Act::Cancel, Act::Unregister, Act::UnregisterAll]).clone())
        }
        6 => act(world, name, Act::Call("1002".into())),
        7 => world.disconnect(name, TANDEM),
        8 => {
            let ahead = random.below(40) as u64 * 100_000;
            let until = world.now_ms() + ahead;
            world.run_until(until);
        }
        9 => {
            let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(random.next() % 4_000_000_000);
            world.with(TANDEM, |garbler: &mut Garbler, now| {
                garbler.pbx.with_shard(now, |shard, now| shard.set_clock(now, wall));
            });
        }
        _ => {
            let (mut bytes, salt) = (random.of(corpus).clone(), random.next());
            let mut random = Random::new(salt);
            mutate(&mut bytes, corpus, &mut random);
            let remote = (random.of(&USERS).1, 5060).into();
            let transport = *random.of(&[Transport::Udp, Transport::Tcp, Transport::Tls]);
            world.with(TANDEM, |garbler: &mut Garbler, now| {
                garbler.receive(Flow { transport, local: addr(PBX), remote }, bytes.into(), now);
            });
        }
    }
}

fn house(random: &mut Random, corpus: &[Vec<u8>]) -> World {
    let files = Files::default().with("pbx.toml", CONFIG).with("rules.toml", RULES);
    let checked = config::check("pbx.toml", &files);
    let config = checked.config.unwrap_or_else(|| panic!("{}", checked.report));
    let mut world =
        World::new(random.next(), if random.hits(50) { Network::CLEAN } else { Network::BAD });
    let setup = Setup {
        config: Arc::new(config),
        local: addr(PBX),
        public: None,
        hosts: BTreeMap::from([("carrier.example.com".into(), vec![addr("192.0.2.20:5060")])]),
        prompts: BTreeMap::new(),
        seed: random.next(),
    };
    let addresses = Pbx::addresses(&setup);
    let pbx = Pbx::new(setup, world.now());
    let (corpus, random_of_it) = (corpus.to_vec(), Random::new(random.next()));
    let percent = *random.of(&[5, 20, 50]);
    let garbler =
        Garbler { pbx, corpus, heard: vec![], random: random_of_it, percent, said: vec![] };
    world.add(TANDEM, &addresses, garbler);
    for (name, ip) in USERS {
        let mut setup = phone::Setup::new(name, "secret", (ip, 5060).into(), addr(PBX));
        if name != "carrier" && random.hits(30) {
            setup.transport = Transport::Tcp;
        }
        let mut phone = Phone::new(setup, random.next());
        let ringing = 50 + random.below(500) as u64;
        phone.when(On::Called, ringing, Act::Ring);
        let act = random.of(&[Act::Answer, Act::Answer, Act::Reject(486), Act::Progress]).clone();
        phone.when(On::Called, ringing + 1000, act);
        phone.when(On::Up, 20_000, Act::HangUp);
        world.add(name, &[(ip, 5060).into()], phone);
    }
    world
}

fn act(world: &mut World, name: &str, act: Act) {
    world.with(name, |phone: &mut Phone, now| phone.act(act, now));
}

/// The product, behind somebody who meddles with what it is told.
struct Garbler {
    pbx: Pbx,
    corpus: Vec<Vec<u8>>,
    heard: Vec<Vec<u8>>,
    random: Random,
    /// How many messages of a hundred are meddled with.
    percent: usize,
    /// What it was told instead.
    said: Vec<String>,
}

impl Garbler {
    fn tell(&mut self, flow: Flow, bytes: Bytes, now: Instant) {
        self.said.push(format!("{flow} {}", bytes.escape_ascii()));
        self.pbx.receive(flow, bytes, now);
    }
}

impl Node for Garbler {
    fn receive(&mut self, flow: Flow, bytes: Bytes, now: Instant) {
        self.heard.push(bytes.to_vec());
        if self.random.hits(self.percent) {
            let mut garbled = bytes.to_vec();
            let others = if self.random.hits(70) { &self.heard } else { &self.corpus };
            mutate(&mut garbled, others, &mut self.random);
            self.tell(flow, garbled.into(), now);
            if self.random.hits(50) {
                return;
            }
        }
        if self.random.hits(self.percent / 4) {
            let (other, remote) = (self.random.of(&self.heard).clone(), self.random.of(&USERS).1);
            self.tell(Flow { remote: (remote, 5060).into(), ..flow }, other.into(), now);
        }
        self.tell(flow, bytes, now);
    }

    fn closed(&mut self, flow: Flow, now: Instant) {
        self.pbx.closed(flow, now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.pbx.handle_timeout(now);
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.pbx.poll_timeout()
    }

    fn poll_transmit(&mut self) -> Option<(Flow, Bytes)> {
        self.pbx.poll_transmit()
    }

    fn is_idle(&self) -> bool {
        self.pbx.is_idle()
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
