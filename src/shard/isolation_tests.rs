//! A call whose step panics costs itself and nothing else.

use super::*;
use crate::{
    config::{self, Files},
    sim::{
        Network, Pbx, Phone, World, pbx,
        phone::{self, Act, Heard, On},
    },
};

const CONFIG: &str = r#"
dialplan = "dialplan.toml"
[sip]
listen = ["udp:10.0.0.1:5060"]
[user.1001]
password = "a"
[user.1002]
password = "b"
[user.1003]
password = "c"
[user.1004]
password = "d"
"#;
const DIALPLAN: &str = "[[internal.rule]]\nmatch = '_1XXX'\ndial = 'user:{number}'\n";

/// Two calls; the first one panics, before or after it was answered.
#[test]
fn a_panic_ends_its_own_call_only() {
    for (panics_ms, heard) in [
        (500, Heard::Refused(500, "Server Internal Error".into())),
        (3000, Heard::HungUp(Some("SIP;cause=500;text=\"Internal error\"".into()))),
    ] {
        let mut world = world();
        for (from, to) in [("1001", "1002"), ("1003", "1004")] {
            world.with(to, |phone: &mut Phone, _| {
                phone.when(On::Called, 100, Act::Ring).when(On::Called, 1000, Act::Answer);
            });
            world.with(from, |phone: &mut Phone, now| {
                phone.when(On::Up, 5000, Act::HangUp);
                phone.act(Act::Call(to.into()), now);
            });
            world.run_until(world.now_ms() + 10);
        }
        world.at(panics_ms, |world| {
            world.with("tandem", |pbx: &mut Pbx, now| pbx.with_shard(now, panic_first));
        });
        assert!(world.settle(Duration::from_secs(120)), "{:?}\n{}", world.busy(), world.ladder());

        let last = |world: &mut World, name| {
            world.with(name, |phone: &mut Phone, _| phone.heard().last().cloned()).flatten()
        };
        assert_eq!(last(&mut world, "1001"), Some(heard), "{}", world.ladder());
        assert_eq!(last(&mut world, "1003"), Some(Heard::Gone(200)));
        let codes = world.with("tandem", |pbx: &mut Pbx, _| {
            let code =
                |cdr: &crate::observe::cdr::Cdr| cdr.ending.why.as_ref().map(|w| w.code.clone());
            pbx.cdrs().iter().map(code).collect::<Vec<_>>()
        });
        assert_eq!(codes, Some(vec![Some("X001".to_owned()), None]));
    }
}

fn panic_first(shard: &mut Shard, now: Instant) {
    let first = *shard.calls.keys().next().expect("there is a call");
    shard.step(first, now, |_, _| panic!("as a bug would"));
    shard.settle(now);
    assert_eq!(shard.counters.panics, 1);
}

fn world() -> World {
    let files = Files::default().with("pbx.toml", CONFIG).with("dialplan.toml", DIALPLAN);
    let checked = config::check("pbx.toml", &files);
    let config = checked.config.unwrap_or_else(|| panic!("{}", checked.report));
    let mut world = World::new(1, Network::CLEAN);
    let local = "10.0.0.1:5060".parse().expect("an address");
    let setup = pbx::Setup {
        config: Arc::new(config),
        local,
        public: None,
        hosts: BTreeMap::new(),
        prompts: BTreeMap::new(),
        seed: 1,
    };
    let pbx = Pbx::new(setup, world.now());
    world.add("tandem", &[local], pbx);
    for (n, (name, password)) in
        [("1001", "a"), ("1002", "b"), ("1003", "c"), ("1004", "d")].into_iter().enumerate()
    {
        let own = format!("10.0.0.{}:5060", n + 10).parse().expect("an address");
        let mut phone = Phone::new(phone::Setup::new(name, password, own, local), n as u64);
        phone.act(Act::Register, world.now());
        world.add(name, &[own], phone);
    }
    world.run_until(1000);
    world.begin_again();
    world
}
