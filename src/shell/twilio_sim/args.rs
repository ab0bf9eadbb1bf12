//! The arguments of `tandem twilio-sim`, and the scenario that they stand for.
//!
//! Owns: the flags.
//! Never: adds a meaning: a flag stands for a key of the scenario.

use crate::{
    config::{
        Listen, Secret,
        scenario::{At, Call, Pace, Scenario, Speech},
    },
    dialplan::E164,
    ids::Transport,
    shell::config_files::Disk,
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

/// The arguments of `tandem twilio-sim`.
#[derive(Clone, Debug, clap::Args)]
pub struct SimArgs {
    /// What to play: account, edges, far ends, calls; see conf/reference-scenario.toml
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "listen", "edges", "port", "dns", "termination", "credentials", "number", "voice", "press", "to",
    ])]
    pub scenario: Option<String>,
    /// Where and how the trunk is reached.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The termination URI's host
    #[arg(long, value_name = "HOST", default_value = "simulated.pstn.twilio.com")]
    pub termination: String,
    /// User name and password of the credential list
    #[arg(long, value_name = "USER:PASSWORD", value_parser = credentials)]
    pub credentials: Option<(Box<str>, Secret)>,
    /// A number of the account, in E.164; may be given several times
    #[arg(long, value_name = "NUMBER", default_value = "+17756187988", value_parser = number)]
    pub number: Vec<E164>,
    /// What the far ends of calls say
    #[arg(long, value_enum, default_value = "echo")]
    pub voice: FarVoice,
    /// Keys that the far ends of calls press
    #[arg(long, value_name = "DIGITS", default_value = "")]
    pub press: String,
    /// A call to the PBX.
    #[command(flatten)]
    pub call: CallArgs,
    /// Write the authority that signed the trunk's certificate to this file, for the PBX to trust
    #[arg(long, value_name = "FILE")]
    pub ca_out: Option<std::path::PathBuf>,
    /// Make the calls of the scenario once a line comes in on standard input
    #[arg(long, requires = "scenario")]
    pub wait: bool,
    /// End after this many calls
    #[arg(long, value_name = "CALLS")]
    pub calls: Option<u64>,
    /// Exit with 1 if the PBX broke a rule
    #[arg(long)]
    pub strict: bool,
    /// Print JSON, one object a line
    #[arg(long)]
    pub json: bool,
    /// The seed of tags, nonces and the order of addresses
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Where the trunk is.
#[derive(Clone, Debug, clap::Args)]
pub struct PlaceArgs {
    /// Where the trunk listens, if it has one address only (UDP and TCP; TLS at the next
    /// port); port 0: any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", conflicts_with = "edges")]
    pub listen: SocketAddr,
    /// Be at all eight edges: 127.54.0.0 means 127.54.1.1 to .4 for ashburn, 127.54.2.1 to .4 for
    /// umatilla, then dublin, frankfurt, singapore, tokyo, sao-paulo and sydney
    #[arg(long, value_name = "IP")]
    pub edges: Option<Ipv4Addr>,
    /// The port of the edges, TLS at the next one; 0: one that is free at all of them
    #[arg(long, value_name = "PORT", default_value_t = 5060, requires = "edges")]
    pub port: u16,
    /// Where the trunk's names are served (DNS over UDP and TCP); port 0: any free one
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Option<SocketAddr>,
    /// An address from which nothing comes back; may be given several times
    #[arg(long, value_name = "IP")]
    pub blackhole: Vec<IpAddr>,
    /// An address at which nobody listens; may be given several times
    #[arg(long, value_name = "IP")]
    pub refuse: Vec<IpAddr>,
}

/// A call from the PSTN.
#[derive(Clone, Debug, clap::Args)]
pub struct CallArgs {
    /// Call the PBX at this address from the PSTN, once it is up
    #[arg(long = "call", id = "to", value_name = "ADDRESS", requires = "did")]
    pub to: Option<SocketAddr>,
    /// The number that such a call is for
    #[arg(long, value_name = "NUMBER", value_parser = number)]
    pub did: Option<E164>,
    /// Who calls
    #[arg(long, value_name = "NUMBER", default_value = "+14155550100", value_parser = number)]
    pub from: E164,
    /// For how long the caller talks, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub talk: u64,
}

/// What the far ends of calls say.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum FarVoice {
    /// Three tones, then an echo
    Echo,
    /// 1000 Hz for as long as the call lasts
    Tone,
}

fn credentials(text: &str) -> Result<(Box<str>, Secret), String> {
    let (user, password) = text.split_once(':').ok_or("write USER:PASSWORD")?;
    Ok((user.into(), Secret::new(password)))
}

fn number(text: &str) -> Result<E164, String> {
    E164::parse(text).ok_or_else(|| "write `+`, the country code and the number".to_owned())
}

impl SimArgs {
    /// Returns what to play, or all that is wrong with the file.
    pub(super) fn scenario(&self) -> Result<Scenario, String> {
        let mut scenario = match &self.scenario {
            Some(path) => {
                let (scenario, report) = crate::config::scenario::check(path, &Disk);
                scenario.ok_or_else(|| report.render(false))?
            }
            None => self.flags(),
        };
        // These are added to what a file says: failing addresses make a scenario another one.
        scenario.place.blackhole.extend(&self.place.blackhole);
        scenario.place.refuse.extend(&self.place.refuse);
        Ok(scenario)
    }

    /// The scenario that the flags alone stand for.
    fn flags(&self) -> Scenario {
        let mut scenario = Scenario::default();
        scenario.account.termination = self.termination.as_str().into();
        scenario.account.credentials = self.credentials.clone();
        scenario.account.numbers = self.number.clone();
        let port = self.place.port;
        scenario.place.at = match self.place.edges {
            Some(base) => At::Edges { base, port },
            None => At::Address(self.place.listen),
        };
        scenario.place.dns = self.place.dns;
        scenario.far_end.voice = match self.voice {
            FarVoice::Echo => Speech::Echo,
            FarVoice::Tone => Speech::Tone,
        };
        scenario.far_end.press = self.press.as_str().into();
        if let (Some(address), Some(did)) = (self.call.to, &self.call.did) {
            scenario.calls.push(Call {
                to: Listen { transport: Transport::Udp, address },
                did: did.clone(),
                from: self.call.from.clone(),
                name: Some("Simulated Caller".into()),
                through: None,
                pace: Pace { at: Duration::ZERO, count: 1, every: Duration::ZERO },
                waits: Duration::from_secs(60),
                talks: Some(Duration::from_secs(self.call.talk)),
                press: self.press.as_str().into(),
                hold: None,
            });
        }
        scenario
    }
}
