//! What `tandem twilio-sim` plays: whose trunk, where, and which calls come from it.
//!
//! Owns: the keys of a scenario file and their defaults.
//! Never: plays it.

use super::{
    checked::Listen,
    load,
    problem::ConfigError,
    raw::{Span, Table, Value},
    report::Report,
    secret::Secret,
    section::{Keys, Reading, Section, items, table},
    source::Source,
    tidy,
    trunks::credentials,
    values::{
        address, count, digits, duration_within, e164, flag, host, ip, ipv4, listen, network,
        one_of, prefix,
    },
};
use crate::{
    dialplan::{Country, E164},
    network::Network,
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

/// The sections of a scenario file.
const SECTIONS: [&str; 6] = ["account", "policy", "limits", "place", "far_end", "call"];
/// The number that the simulated account has if nobody says.
const NUMBER: &str = "+17756187988";
/// How long anything in a scenario may take.
const LONGEST: &str = "1h";

/// A scenario. `Default` is what an empty file means.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// `[account]`
    pub account: Account,
    /// `[policy]`
    pub policy: Policy,
    /// `[limits]`
    pub limits: Limits,
    /// `[place]`
    pub place: Place,
    /// `[far_end]`
    pub far_end: FarEnd,
    /// `[[call]]`
    pub calls: Vec<Call>,
}

/// Whose trunk it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// The termination URI's host: `name.pstn.twilio.com`.
    pub termination: Box<str>,
    /// The user name and the password of the credential list, if there is one.
    pub credentials: Option<(Box<str>, Secret)>,
    /// The access control list; empty: none.
    pub allow: Vec<Network>,
    /// The account's numbers.
    pub numbers: Vec<E164>,
    /// Numbers elsewhere that it has proved to be its own.
    pub verified: Vec<E164>,
    /// Numbers that may not be called.
    pub blocked: Vec<E164>,
    /// What numbers must begin with to be called (`+1`); empty: anything.
    pub countries: Vec<Box<str>>,
    /// Whether it is paid for.
    pub state: State,
}

/// Whether an account is paid for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// It is.
    Active,
    /// Not yet: it calls verified numbers only.
    Trial,
    /// Not any more: it calls nobody.
    Suspended,
}

/// What the trunk allows and wants.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Policy {
    /// TLS and SRTP, and nothing else.
    pub secure: bool,
    /// Calls may be transferred by REFER.
    pub transfers: bool,
    /// Media may come from anywhere.
    pub symmetric: bool,
}

/// How much may be asked of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Calls per second, if limited.
    pub calls_per_second: Option<usize>,
    /// Calls at a time, if limited.
    pub calls: Option<usize>,
}

/// Where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// At one address, or at all edges.
    pub at: At,
    /// Where its names are served, if they are.
    pub dns: Option<SocketAddr>,
    /// Addresses from which nothing comes back.
    pub blackhole: Vec<IpAddr>,
    /// Addresses at which nobody listens.
    pub refuse: Vec<IpAddr>,
}

/// Where a trunk listens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum At {
    /// At one address; port 0: any free one.
    Address(SocketAddr),
    /// At eight edges of four addresses: A.B.EDGE.1 to .4, EDGE from 1 to 8.
    Edges {
        /// Its first two bytes are A and B.
        base: Ipv4Addr,
        /// 0: one that is free at all of them.
        port: u16,
    },
}

/// What the far ends of calls say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Speech {
    /// Three tones, then an echo.
    Echo,
    /// 1000 Hz for as long as the call lasts.
    Tone,
}

/// What the far ends of calls to the PSTN do.
#[derive(Clone, Debug, PartialEq)]
pub struct FarEnd {
    /// What they say; callers from the PSTN say it as well.
    pub voice: Speech,
    /// The keys that they press once they have answered.
    pub press: Box<str>,
    /// From the INVITE to the first ring.
    pub post_dial: Duration,
    /// From the first ring to the answer.
    pub ring: Duration,
}

/// Calls from the PSTN, all alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Where the PBX is, and how it is called.
    pub to: Listen,
    /// The number called.
    pub did: E164,
    /// The caller's.
    pub from: E164,
    /// The caller's name, if it is known.
    pub name: Option<Box<str>>,
    /// The address of the trunk that they come from; `None`: the first.
    pub through: Option<IpAddr>,
    /// When.
    pub pace: Pace,
    /// How long the caller listens to the ringing tone.
    pub waits: Duration,
    /// How long it talks before it hangs up; `None`: until the PBX does.
    pub talks: Option<Duration>,
    /// The keys that it presses once the call is up.
    pub press: Box<str>,
    /// When it puts the PBX on hold, and for how long.
    pub hold: Option<(Duration, Duration)>,
}

/// When calls come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// The first, after the start.
    pub at: Duration,
    /// How many.
    pub count: u32,
    /// From one to the next.
    pub every: Duration,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            account: Account {
                termination: "simulated.pstn.twilio.com".into(),
                credentials: None,
                allow: vec![],
                numbers: E164::parse(NUMBER).into_iter().collect(),
                verified: vec![],
                blocked: vec![],
                countries: vec![],
                state: State::Active,
            },
            policy: Policy::default(),
            limits: Limits::default(),
            place: Place {
                at: At::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
                dns: None,
                blackhole: vec![],
                refuse: vec![],
            },
            far_end: FarEnd {
                voice: Speech::Echo,
                press: "".into(),
                post_dial: Duration::from_millis(300),
                ring: Duration::from_secs(2),
            },
            calls: vec![],
        }
    }
}

/// Reads the scenario at `path`; without one where there are mistakes.
pub fn check(path: &str, source: &dyn Source) -> (Option<Scenario>, Report) {
    let (scenario, report, _) = read(path, source);
    (scenario, report)
}

/// The same, with the keys that were looked for and those that were found.
fn read(path: &str, source: &dyn Source) -> (Option<Scenario>, Report, [Keys; 2]) {
    let mut reading = Reading::new(source);
    let root = load::read(path, None, &mut reading).unwrap_or_default();
    super::check_names(&root, &SECTIONS, "the scenario", &mut reading);
    let least = Scenario::default();
    let scenario = Scenario {
        account: account(&root, least.account, &mut reading),
        policy: policy(&root, &mut reading),
        limits: limits(&root, &mut reading),
        place: place(&root, least.place, &mut reading),
        far_end: far_end(&root, least.far_end, &mut reading),
        calls: calls(&root, &mut reading),
    };
    let Reading { mut report, asked, found, .. } = reading;
    tidy(&mut report);
    let scenario = (report.errors() == 0).then_some(scenario);
    (scenario, report, [asked, found])
}

fn section<'t, 'r, 's>(
    root: &'t Table,
    name: &'static str,
    reading: &'r mut Reading<'s>,
) -> Section<'t, 'r, 's> {
    Section::open(root.get(name), (name, format!("[{name}]")), reading)
}

fn account(root: &Table, least: Account, reading: &mut Reading<'_>) -> Account {
    let mut section = section(root, "account", reading);
    let (username, password) = credentials(&mut section);
    let numbers = all(&mut section, "numbers", e164(Country::US));
    let states =
        [("active", State::Active), ("trial", State::Trial), ("suspended", State::Suspended)];
    let account = Account {
        termination: section.or("termination", least.termination, host),
        credentials: username.zip(password),
        allow: all(&mut section, "allow", network).unwrap_or_default(),
        numbers: numbers.unwrap_or(least.numbers),
        verified: all(&mut section, "verified", e164(Country::US)).unwrap_or_default(),
        blocked: all(&mut section, "blocked", e164(Country::US)).unwrap_or_default(),
        countries: all(&mut section, "countries", prefix).unwrap_or_default(),
        state: section.or("state", least.state, one_of(&states)),
    };
    section.finish();
    account
}

fn policy(root: &Table, reading: &mut Reading<'_>) -> Policy {
    let mut section = section(root, "policy", reading);
    let policy = Policy {
        secure: section.or("secure", false, flag),
        transfers: section.or("transfers", false, flag),
        symmetric: section.or("symmetric", false, flag),
    };
    section.finish();
    policy
}

fn limits(root: &Table, reading: &mut Reading<'_>) -> Limits {
    let mut section = section(root, "limits", reading);
    let limits = Limits {
        calls_per_second: section.or_off("calls_per_second", None, count(1, 10_000)),
        calls: section.or_off("calls", None, count(1, 1_000_000)),
    };
    section.finish();
    limits
}

fn place(root: &Table, least: Place, reading: &mut Reading<'_>) -> Place {
    let mut section = section(root, "place", reading);
    let listened = section.optional("listen", address);
    let edges = section.optional("edges", ipv4);
    let port = section.or("port", 5060, count(0, 65_535));
    for key in ["edges", "port"] {
        if section.has("listen") && section.has(key) {
            let span = section.span_of(key);
            section.reading.problem(&span, ConfigError::Instead { key, other: "listen" });
        }
    }
    let place = Place {
        at: match (edges, listened) {
            (Some(base), _) => At::Edges { base, port },
            (None, Some(address)) => At::Address(address),
            (None, None) => least.at,
        },
        dns: section.or_off("dns", None, address),
        blackhole: all(&mut section, "blackhole", ip).unwrap_or_default(),
        refuse: all(&mut section, "refuse", ip).unwrap_or_default(),
    };
    section.finish();
    place
}

fn far_end(root: &Table, least: FarEnd, reading: &mut Reading<'_>) -> FarEnd {
    let mut section = section(root, "far_end", reading);
    let voices = [("echo", Speech::Echo), ("tone", Speech::Tone)];
    let far_end = FarEnd {
        voice: section.or("voice", least.voice, one_of(&voices)),
        press: section.or("press", least.press, digits),
        post_dial: section.or("post_dial", least.post_dial, duration_within("0s", LONGEST)),
        ring: section.or("ring", least.ring, duration_within("0s", LONGEST)),
    };
    section.finish();
    far_end
}

/// Reads `[[call]]`.
fn calls(root: &Table, reading: &mut Reading<'_>) -> Vec<Call> {
    let list = root.get("call").map(|entry| items(&entry.value)).unwrap_or_default();
    list.iter().filter_map(|value| call(value, reading)).collect()
}

fn call(value: &Value, reading: &mut Reading<'_>) -> Option<Call> {
    let table = reading.keep(&value.span, table(value))?;
    let mut section = Section::new(table, &value.span, ("call", "this call".into()), reading);
    for (key, example) in [("to", "to = \"udp:127.0.0.1:5060\""), ("did", "did = \"+17756187988\"")]
    {
        if !section.has(key) {
            section.missing(key, example);
        }
    }
    let (to, did) = (section.optional("to", listen), section.optional("did", e164(Country::US)));
    let time = || duration_within("0s", LONGEST);
    let hold = (section.optional("hold_after", time()), section.optional("hold_for", time()));
    alone(&mut section, ["hold_after", "hold_for"]);
    let call = Call {
        to: to?,
        did: did?,
        from: section.optional("from", e164(Country::US)).or(E164::parse("+14155550100"))?,
        name: section.optional("name", super::values::header_text),
        through: section.optional("through", ip),
        pace: Pace {
            at: section.or("at", Duration::ZERO, time()),
            count: section.or("count", 1, count(1, 1_000_000)),
            every: section.or("every", Duration::from_secs(1), time()),
        },
        waits: section.or("waits", Duration::from_secs(60), time()),
        talks: section.or_off("talks", None, time()),
        press: section.or("press", "".into(), digits),
        hold: hold.0.zip(hold.1),
    };
    section.finish();
    Some(call)
}

/// Reports a key that needs another one.
fn alone(section: &mut Section<'_, '_, '_>, [a, b]: [&'static str; 2]) {
    for (has, needs) in [(a, b), (b, a)] {
        if section.has(has) && !section.has(needs) {
            let span: Span = section.span_of(has);
            section.reading.problem(&span, ConfigError::Alone { has, needs });
        }
    }
}

/// Reads one value or a list of them.
fn all<T>(
    section: &mut Section<'_, '_, '_>,
    key: &'static str,
    read: impl Fn(&Value) -> Result<T, ConfigError>,
) -> Option<Vec<T>> {
    let values = section.several(key, read)?;
    Some(values.into_iter().map(|(value, _)| value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Files;

    const REFERENCE: &str = include_str!("../../conf/reference-scenario.toml");

    /// Without the `#` of keys that have no default.
    fn uncommented(text: &str) -> String {
        let bare = |line: &str| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') && !rest.is_empty() => rest.to_owned(),
            Some(_) | None => line.to_owned(),
        };
        text.lines().map(|line| bare(line) + "\n").collect()
    }

    #[test]
    fn the_reference_has_every_key_and_the_defaults() {
        let files = Files::default().with("x.toml", REFERENCE);
        let (scenario, report) = check("x.toml", &files);
        assert_eq!(report.to_string(), "");
        assert_eq!(scenario.unwrap(), Scenario::default());

        let files = Files::default()
            .with("x.toml", &uncommented(REFERENCE))
            .with_env("TRUNK_PASSWORD", "secret");
        let (scenario, report, [asked, found]) = read("x.toml", &files);
        let scenario = scenario.unwrap_or_else(|| panic!("{report}"));
        let absent: Vec<_> = asked.difference(&found).collect();
        assert_eq!(absent, [&("place", "listen")], "this one and `edges` exclude each other");
        let [call] = &*scenario.calls else { panic!("{:?}", scenario.calls) };
        assert_eq!((call.pace.count, call.waits.as_secs()), (1, 60));
    }

    #[test]
    fn each_mistake_has_its_sentence() {
        let call = "[[call]]\nto = 'udp:127.0.0.1:5060'\ndid = '+17756187988'\n";
        for (text, want) in [
            ("[acount]\n", "`acount` is not a key of the scenario"),
            ("[account]\nnumbers = '4155550100'", "`4155550100` is not an E.164 number"),
            ("[account]\nusername = 'x'", "`username` without `password`"),
            ("[account]\ncountries = ['1']", "`1` is not the beginning of a number"),
            ("[account]\nstate = 'Trial'", "`Trial` is not one of `active`, `trial`, `suspended`"),
            ("[place]\nedges = '127.54'", "`127.54` is not an IPv4 address"),
            ("[place]\nblackhole = ['x']", "`x` is not an address"),
            (
                "[place]\nlisten = '127.0.0.1:0'\nedges = '127.54.0.0'",
                "`edges` and `listen` exclude each other",
            ),
            ("[far_end]\npress = '12x'", "`12x` are not keys of a telephone"),
            ("[far_end]\nvoice = 'tones'", "`tones` is not one of `echo`, `tone`"),
            ("[far_end]\nring = '2h'", "`2h` is out of range"),
            ("[[call]]\ndid = '+17756187988'", "this call needs `to`"),
            (&format!("{call}hold_for = '2s'"), "`hold_for` without `hold_after`"),
            (&format!("{call}talk = '2s'"), "`talk` is not a key of this call"),
        ] {
            let (scenario, report) = check("x.toml", &Files::default().with("x.toml", text));
            let said: Vec<_> = report.diagnostics.iter().map(|d| d.problem.to_string()).collect();
            assert!(said.len() == 1 && said[0].starts_with(want), "{text}: {said:?}");
            assert_eq!(scenario, None);
        }
    }
}
