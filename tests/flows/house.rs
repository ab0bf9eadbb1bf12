//! A house with phones and a PBX: what every flow begins with.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tandem::{
    config::{
        Config, Control, Http, LatchPolicy, Listen, Log, LogFormat, LogLevel, Node, PublicIp, Rtp,
        Secret, Sip, Store, Timezone, User, UserSecret,
    },
    dialplan::{Action, Callee, Country, Dialplan, Origin, Pattern, Ring, Rule, Template},
    ids::Transport,
    sdp::Codec,
    sim::{Network, Pbx, Phone, World, pbx, phone},
};

/// Where the PBX is.
pub(crate) const PBX: &str = "10.0.0.1:5060";
/// What the PBX is called in ladders.
pub(crate) const TANDEM: &str = "tandem";

/// What is put into a world.
pub(crate) struct House {
    pub(crate) config: Config,
    pub(crate) phones: Vec<phone::Setup>,
    pub(crate) prompts: BTreeMap<Box<str>, tandem::media::Prompt>,
    seed: u64,
}

impl House {
    /// Creates a house with users 1001 to 1004, who can call each other.
    pub(crate) fn new(seed: u64) -> Self {
        let mut house = Self { config: config(), phones: vec![], prompts: BTreeMap::new(), seed };
        for name in ["1001", "1002", "1003", "1004"] {
            house.config.users.insert(name.into(), Arc::new(user(name)));
        }
        house.rule("internal", "_1XXX", vec![dial(&[&["user:{number}"]])]);
        house
    }

    /// Adds a rule to the end of a context.
    pub(crate) fn rule(&mut self, context: &str, pattern: &str, actions: Vec<Action>) -> &mut Self {
        let plan = Arc::make_mut(&mut self.config.dialplan);
        let rules = plan.contexts.entry(context.into()).or_default();
        rules.push(Rule {
            name: format!("{context}[{}]", rules.len() + 1).into(),
            origin: Origin::default(),
            matches: vec![Pattern::parse(pattern).unwrap()],
            from: vec![],
            when: vec![],
            actions,
        });
        self
    }

    /// Adds an ordinary phone of this user.
    pub(crate) fn phone(&mut self, user: &str) -> &mut Self {
        self.phone_like(user, |setup| setup)
    }

    /// Adds a phone of this user; it is called like the user in ladders.
    pub(crate) fn phone_like(
        &mut self,
        user: &str,
        change: impl FnOnce(phone::Setup) -> phone::Setup,
    ) -> &mut Self {
        let host = 10 + u8::try_from(self.phones.len()).unwrap();
        let local = SocketAddr::from(([10, 0, 0, host], 5060));
        let setup = phone::Setup::new(user, &password(user), local, addr(PBX));
        self.phones.push(change(setup));
        self
    }

    /// Puts everybody into a world, unregistered.
    pub(crate) fn open(self) -> World {
        let mut world = World::new(self.seed, Network::CLEAN);
        let setup = pbx::Setup {
            config: Arc::new(self.config),
            local: addr(PBX),
            public: None,
            hosts: BTreeMap::new(),
            prompts: self.prompts,
            seed: self.seed,
        };
        let addresses = Pbx::addresses(&setup);
        let pbx = Pbx::new(setup, world.now());
        world.add(TANDEM, &addresses, pbx);
        for (index, setup) in self.phones.into_iter().enumerate() {
            let (name, local) = (setup.user.to_string(), setup.local);
            let seed = self.seed.wrapping_add(1 + index as u64);
            world.add(&name, &[local], Phone::new(setup, seed));
        }
        world
    }

    /// Puts everybody into a world and registers all phones; time begins after that.
    pub(crate) fn open_registered(self) -> World {
        let names: Vec<String> = self.phones.iter().map(|setup| setup.user.to_string()).collect();
        let mut world = self.open();
        for name in &names {
            act(&mut world, name, phone::Act::Register);
        }
        assert!(world.settle(Duration::from_secs(60)), "{}", world.ladder());
        world.begin_again();
        world
    }
}

/// Makes a phone do something now.
pub(crate) fn act(world: &mut World, phone: &str, act: phone::Act) {
    with_phone(world, phone, |phone, now| phone.act(act, now));
}

/// Gives access to a phone.
pub(crate) fn with_phone<R>(
    world: &mut World,
    name: &str,
    f: impl FnOnce(&mut Phone, std::time::Instant) -> R,
) -> R {
    world.with(name, f).unwrap()
}

/// Gives access to the PBX.
pub(crate) fn with_pbx<R>(
    world: &mut World,
    f: impl FnOnce(&mut Pbx, std::time::Instant) -> R,
) -> R {
    world.with(TANDEM, f).unwrap()
}

/// `user:1001` and the like, one group after the other, for 20 s each.
pub(crate) fn dial(groups: &[&[&str]]) -> Action {
    Action::Dial(ring(groups))
}

/// The same, to be changed.
pub(crate) fn ring(groups: &[&[&str]]) -> Ring {
    let callee = |text: &&str| match text.split_once(':').unwrap() {
        ("user", name) => Callee::User(Template::parse(name).unwrap()),
        ("trunk", name) => Callee::Trunk {
            trunk: name.into(),
            number: Template::parse("{number}").unwrap(),
            caller_id: None,
            e164: true,
        },
        (_, _) => Callee::Uri(Template::parse(text).unwrap()),
    };
    Ring {
        groups: groups.iter().map(|group| group.iter().map(callee).collect()).collect(),
        ring: Duration::from_secs(20),
        caller_id: None,
        busy: vec![],
        no_answer: vec![],
        failed: vec![],
    }
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn password(user: &str) -> String {
    format!("secret of {user}")
}

fn user(name: &str) -> User {
    User {
        name: name.into(),
        secret: UserSecret::Password(Secret::new(&password(name))),
        display: None,
        caller_id: None,
        did: vec![],
        context: "internal".into(),
        max_contacts: 4,
        latch: LatchPolicy::Learn,
    }
}

fn config() -> Config {
    let listen = |transport| Listen { transport, address: addr(PBX) };
    Config {
        node: Node {
            name: TANDEM.into(),
            country: Country::US,
            timezone: Timezone::UTC,
            public_ip: PublicIp::Auto,
        },
        sip: Sip {
            listen: vec![listen(Transport::Udp), listen(Transport::Tcp)],
            realm: TANDEM.into(),
            expires_min: Duration::from_secs(60),
            expires_default: Duration::from_secs(3600),
            expires_max: Duration::from_secs(7200),
            ping_phones: None,
            session_expires: Duration::from_secs(1800),
            min_se: Duration::from_secs(90),
            max_forwards: 70,
            user_agent: "Tandem".into(),
        },
        rtp: Rtp {
            ports: (10_000, 20_000),
            codecs: vec![Codec::Pcmu, Codec::Pcma, Codec::TelephoneEvent],
            timeout: Duration::from_secs(60),
            workers: 1,
        },
        http: Http { listen: None },
        store: Store { sqlite: None },
        log: Log { level: LogLevel::Info, format: LogFormat::Text },
        control: Control { socket: None },
        trunks: BTreeMap::new(),
        users: BTreeMap::new(),
        dialplan: Arc::new(Dialplan::empty(Country::US)),
    }
}
