//! A house with phones, a PBX and a trunk: what every flow begins with.

use std::{
    collections::BTreeMap,
    fmt::Write,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tandem::{
    config::{self, Files},
    media::Prompt,
    observe::cdr::Cdr,
    sim::{
        Network, Pbx, Phone, Twilio, World, pbx,
        phone::{self, Act},
        twilio,
    },
};

/// Where the PBX is; behind a NAT that shows it to the trunk under another address.
pub(crate) const PBX: &str = "10.0.0.1:5060";
const PBX_V6: &str = "[fd00::1]:5060";
const PUBLIC: &str = "203.0.113.1";
/// Where the trunk is.
pub(crate) const TRUNK: &str = "54.172.60.0:5060";
pub(crate) const TERMINATION: &str = "asterisk-pbx1.pstn.twilio.com";
/// What they are called in ladders.
pub(crate) const TANDEM: &str = "tandem";
pub(crate) const TWILIO: &str = "twilio";
/// The trunk's number.
pub(crate) const DID: &str = "+17756187988";

/// The configuration of every house; flows add to it.
const CONFIG: &str = r#"
[node]
public_ip = "203.0.113.1"
[sip]
listen = ["udp:10.0.0.1:5060", "tcp:10.0.0.1:5060"]
[trunk.twilio]
preset    = "twilio"
uri       = "asterisk-pbx1.pstn.twilio.com"
username  = "Asterisk"
password  = "the trunk's secret"
caller_id = "+17756187988"
"#;

/// Phones call each other and out; the trunk's number rings at 1001 and 1002.
const DIALPLAN: &str = r#"
[[internal.rule]]
match = "_1XXX"
dial  = "user:{number}"
ring  = "20s"
[[internal.rule]]
match = "_+."
dial  = "trunk:twilio"
[[inbound.rule]]
match = "+17756187988"
dial  = ["user:1001", "user:1002"]
ring  = "20s"
"#;

/// What is put into a world.
pub(crate) struct House {
    config: String,
    trunk: String,
    users: BTreeMap<String, String>,
    dialplan: String,
    phones: Vec<(String, phone::Setup)>,
    account: Option<twilio::Setup>,
    is_v6: bool,
    prompts: BTreeMap<Box<str>, Prompt>,
    names_hold: Option<Duration>,
    seed: u64,
}

impl House {
    /// Creates a house with users 1001 to 1004 and a trunk that is not watched.
    pub(crate) fn new(seed: u64) -> Self {
        let users = ["1001", "1002", "1003", "1004"];
        let users = users.map(|name| (name.to_owned(), String::new()));
        Self {
            config: CONFIG.to_owned(),
            trunk: "qualify = false\n".to_owned(),
            users: users.into(),
            dialplan: DIALPLAN.to_owned(),
            phones: vec![],
            account: None,
            is_v6: false,
            prompts: BTreeMap::new(),
            names_hold: None,
            seed,
        }
    }

    /// Adds lines to `[trunk.twilio]`, instead of `qualify = false`.
    pub(crate) fn trunk_keys(&mut self, lines: &str) -> &mut Self {
        self.trunk = format!("{lines}\n");
        self
    }

    /// Replaces the trunk's termination URI, or its caller ID, by what is written here in TOML.
    pub(crate) fn trunk_key(&mut self, key: &str, value: &str) -> &mut Self {
        let lines = self.config.lines().map(|line| match line.split_once('=') {
            Some((known, _)) if known.trim() == key => format!("{key} = {value}\n"),
            Some(_) | None => format!("{line}\n"),
        });
        self.config = lines.collect();
        self
    }

    /// Adds lines to `[user.NAME]`.
    pub(crate) fn user_keys(&mut self, name: &str, lines: &str) -> &mut Self {
        self.users.insert(name.to_owned(), lines.to_owned());
        self
    }

    /// Adds lines to `[sip]`.
    pub(crate) fn sip_keys(&mut self, lines: &str) -> &mut Self {
        self.config = self.config.replace("[sip]\n", &format!("[sip]\n{lines}\n"));
        self
    }

    /// Adds lines to `[node]`.
    pub(crate) fn node_keys(&mut self, lines: &str) -> &mut Self {
        self.config = self.config.replace("[node]\n", &format!("[node]\n{lines}\n"));
        self
    }

    /// Adds further sections to the configuration.
    pub(crate) fn sections(&mut self, lines: &str) -> &mut Self {
        self.config = format!("{lines}\n{}", self.config);
        self
    }

    /// Says another `public_ip` than that of the house.
    pub(crate) fn public_ip(&mut self, value: &str) -> &mut Self {
        self.config = self
            .config
            .replace(&format!("public_ip = \"{PUBLIC}\""), &format!("public_ip = \"{value}\""));
        self
    }

    /// Gives the PBX and the phones that are added from now on IPv6 addresses.
    pub(crate) fn ipv6(&mut self) -> &mut Self {
        self.is_v6 = true;
        self.config = self.config.replace("10.0.0.1:", "[fd00::1]:");
        self.public_ip("auto")
    }

    fn pbx(&self) -> SocketAddr {
        addr(if self.is_v6 { PBX_V6 } else { PBX })
    }

    /// Replaces the dialplan.
    pub(crate) fn dialplan(&mut self, text: &str) -> &mut Self {
        self.dialplan = text.to_owned();
        self
    }

    /// Adds a sound file of so many seconds.
    pub(crate) fn prompt(&mut self, file: &str, seconds: usize) -> &mut Self {
        self.prompts.insert(file.into(), Prompt::new(vec![0; seconds * 8000]));
        self
    }

    /// Lets every answer of the name server hold for so long.
    pub(crate) fn names_hold(&mut self, ttl: Duration) -> &mut Self {
        self.names_hold = Some(ttl);
        self
    }

    /// Adds an ordinary phone of this user.
    pub(crate) fn phone(&mut self, user: &str) -> &mut Self {
        self.phone_like(user, user, |setup| setup)
    }

    /// Adds a phone of this user under a name of its own.
    pub(crate) fn phone_like(
        &mut self,
        name: &str,
        user: &str,
        change: impl FnOnce(phone::Setup) -> phone::Setup,
    ) -> &mut Self {
        let host = 10 + u8::try_from(self.phones.len()).unwrap();
        let local = match self.is_v6 {
            true => SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, host.into()], 5060)),
            false => SocketAddr::from(([10, 0, 0, host], 5060)),
        };
        let setup = phone::Setup::new(user, &password(user), local, self.pbx());
        self.phones.push((name.to_owned(), change(setup)));
        self
    }

    /// Returns what the phones are called.
    pub(crate) fn names(&self) -> Vec<String> {
        self.phones.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Adds the trunk's other end.
    pub(crate) fn twilio(&mut self) -> &mut Self {
        self.twilio_like(|setup| setup)
    }

    /// Adds the trunk's other end, with an account that differs.
    pub(crate) fn twilio_like(
        &mut self,
        change: impl FnOnce(twilio::Setup) -> twilio::Setup,
    ) -> &mut Self {
        let mut setup = twilio::Setup::new(addr(TRUNK), TERMINATION);
        setup.account.credentials = Some(("Asterisk".into(), "the trunk's secret".into()));
        setup.account.numbers = vec![DID.into()];
        setup.media = Some("168.86.128.9".parse().unwrap());
        self.account = Some(change(setup));
        self
    }

    /// Puts everybody into a world, unregistered.
    pub(crate) fn open(&mut self) -> World {
        let mut world = World::new(self.seed, Network::CLEAN);
        let setup = pbx::Setup {
            config: Arc::new(self.checked()),
            local: self.pbx(),
            public: (!self.is_v6).then(|| PUBLIC.parse().unwrap()),
            hosts: BTreeMap::new(),
            prompts: std::mem::take(&mut self.prompts),
            seed: self.seed,
        };
        let addresses = Pbx::addresses(&setup);
        let mut pbx = Pbx::new(setup, world.now());
        let account = self.account.take();
        let known = account.clone().unwrap_or_else(|| twilio::Setup::new(addr(TRUNK), TERMINATION));
        self.names_hold.into_iter().for_each(|ttl| pbx.hold_names(ttl));
        pbx.use_zone(Twilio::new(known, 0).zone(self.seed));
        world.add(TANDEM, &addresses, pbx);
        if let Some(account) = account {
            world.add(TWILIO, &account.addresses(), Twilio::new(account, self.seed));
        }
        for (index, (name, setup)) in std::mem::take(&mut self.phones).into_iter().enumerate() {
            let (local, seed) = (setup.local, self.seed.wrapping_add(1 + index as u64));
            world.add(&name, &[local], Phone::new(setup, seed));
        }
        world
    }

    /// Puts everybody into a world and registers all phones; time begins after that.
    pub(crate) fn open_registered(&mut self) -> World {
        let names: Vec<String> = self.phones.iter().map(|(name, _)| name.clone()).collect();
        let mut world = self.open();
        for name in &names {
            act(&mut world, name, Act::Register);
        }
        world.run_until(1);
        assert!(world.settle(Duration::from_secs(60)), "{}", world.ladder());
        world.begin_again();
        world
    }

    /// Returns the PBX's configuration, for a reload.
    pub(crate) fn checked(&self) -> config::Config {
        let mut text = format!("dialplan = \"dialplan.toml\"\n{}{}", self.config, self.trunk);
        for (name, lines) in &self.users {
            write!(text, "[user.{name}]\npassword = \"{}\"\n{lines}\n", password(name)).unwrap();
        }
        let files = Files::default().with("pbx.toml", &text).with("dialplan.toml", &self.dialplan);
        let files = self.prompts.keys().fold(files, |files, prompt| files.with(prompt, ""));
        let checked = config::check("pbx.toml", &files);
        checked.config.unwrap_or_else(|| panic!("{}", checked.report))
    }
}

/// Makes a phone do something now.
pub(crate) fn act(world: &mut World, phone: &str, act: Act) {
    with_phone(world, phone, |phone, now| phone.act(act, now));
}

/// Gives access to a phone.
pub(crate) fn with_phone<R>(
    world: &mut World,
    name: &str,
    f: impl FnOnce(&mut Phone, Instant) -> R,
) -> R {
    world.with(name, f).unwrap()
}

/// Gives access to the PBX.
pub(crate) fn with_pbx<R>(world: &mut World, f: impl FnOnce(&mut Pbx, Instant) -> R) -> R {
    world.with(TANDEM, f).unwrap()
}

/// Gives access to the trunk's other end.
pub(crate) fn with_twilio<R>(world: &mut World, f: impl FnOnce(&mut Twilio, Instant) -> R) -> R {
    world.with(TWILIO, f).unwrap()
}

/// Returns the only CDR.
pub(crate) fn cdr(world: &mut World) -> Cdr {
    with_pbx(world, |pbx, _| match pbx.cdrs() {
        [cdr] => cdr.clone(),
        cdrs => panic!("{} CDRs", cdrs.len()),
    })
}

/// Returns what a failed call ended with: code and sentence.
pub(crate) fn why(world: &mut World) -> String {
    let why = cdr(world).ending.why;
    why.map(|why| format!("{} {}", why.code, why.sentence)).unwrap_or_default()
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn password(user: &str) -> String {
    format!("secret of {user}")
}
