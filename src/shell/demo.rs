//! `tandem demo`: the main job on embedded defaults, in one process, on loopback.
//!
//! Owns: the PBX, the simulated trunk and the phone of the demonstration, and what is printed.
//! Never: pretends: the phone and the trunk speak to the PBX through sockets, and both listen.

use super::{
    node::{Node, Place},
    now,
    routes::Listener,
    softphone::{Softphone, Sounds},
    twilio_sim::{Ended, FAR_TONE_HZ, FarEnds, NEAR_TONE_HZ, Trunk},
    views,
};
use crate::{
    config::{self, Config, Files, Listen, scenario::Speech},
    dialplan::Query,
    ids::{Entropy, Transport},
    observe::{
        cdr::Cdr,
        status::{CdrQuery, Response},
    },
    sim::{
        phone::{Act, Heard, Setup},
        twilio,
        voice::{Report, Says},
    },
};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

const CONFIG: &str = include_str!("../../conf/pbx.toml");
const DIALPLAN: &str = include_str!("../../dialplan/default.toml");
/// The trunk of the shipped configuration.
const TRUNK: &str = "twilio";
/// What the phone dials, as its user would write it, and as it stands in a URI.
const DIALLED: &str = "(415) 555-0199";
const DIALLED_IN_URI: &str = "(415)%20555-0199";
/// How long any one thing may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// For how long each side must hear the other.
const LISTEN: Duration = Duration::from_secs(2);

/// The arguments of `tandem demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// End after the call instead of staying up; exits with 1 if it failed
    #[arg(long)]
    pub once: bool,
    /// Where the PBX listens, for a softphone on another machine for example
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub listen: IpAddr,
}

/// Why the demonstration failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A socket or a file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The PBX did not start.
    #[error(transparent)]
    Start(#[from] super::node::StartError),
    /// The shipped files are wrong: our bug.
    #[error("the embedded configuration has mistakes:\n{0}")]
    Config(String),
    /// Something did not happen in time.
    #[error("{what} did not happen within {} s", PATIENCE.as_secs())]
    Late {
        /// What.
        what: &'static str,
    },
    /// The call was refused.
    #[error("the call was refused: {0}")]
    Refused(String),
}

/// The whole scene.
struct Scene {
    node: Node,
    trunk: Trunk,
    phone: Softphone,
    config: Config,
    passwords: [String; 2],
    began: Instant,
    /// The database and the control socket are in it; it goes with the scene.
    place: Place,
}

/// Runs the demonstration. Returns whether everything went as it should.
pub async fn run(args: DemoArgs) -> Result<bool, DemoError> {
    let folder = Folder::new()?;
    let mut scene = Scene::set(&args, &folder).await?;
    let is_well = match scene.play().await {
        Ok(is_well) => is_well,
        Err(error) => {
            scene.say(&format!("FAILED: {error}"))?;
            false
        }
    };
    if !args.once {
        scene.trunk.set_far_ends(far_ends(Speech::Echo));
        scene.invite_guests()?;
        tokio::signal::ctrl_c().await?;
    }
    scene.node.stop().await;
    Ok(is_well)
}

impl Scene {
    async fn set(args: &DemoArgs, folder: &Folder) -> Result<Self, DemoError> {
        let mut entropy = Entropy::new(super::node::seed()?);
        let passwords = [(); 2].map(|()| format!("{:016x}", entropy.next_u64()));
        let trunk_password = format!("{:016x}", entropy.next_u64());
        let mut config = embedded(&passwords, &trunk_password)?;
        let trunk = start_trunk(&config, &trunk_password).await?;
        place_on_loopback(&mut config, args.listen, trunk.address);

        let place = Place {
            config: None,
            socket: folder.0.join("tandem.sock"),
            database: folder.0.join("tandem.db"),
        };
        let began = now();
        let node = Node::start(config.clone(), place.clone()).await?;
        let registrar = address(node.listeners(), Transport::Udp);
        let mut setup = Setup::new("1001", &passwords[0], (args.listen, 0).into(), registrar);
        setup.domain = config.sip.realm.clone();
        let says = Says::Tone(NEAR_TONE_HZ);
        let sounds = Sounds { says, listens_for_hz: FAR_TONE_HZ };
        let phone = Softphone::start(setup, sounds, entropy.next_u64()).await?;
        Ok(Self { node, trunk, phone, config, passwords, began, place })
    }

    /// The phone registers, calls, listens and hangs up.
    async fn play(&mut self) -> Result<bool, DemoError> {
        let registrar = address(self.node.listeners(), Transport::Udp);
        self.say(&format!(
            "the PBX listens on {registrar}, the simulated trunk on {}",
            self.trunk.address
        ))?;
        self.phone.act(Act::Register).await;
        self.wait("the registration", |heard| matches!(heard, Heard::Registered(_))).await?;
        self.say("the phone has registered as 1001 (digest)")?;

        self.phone.act(Act::Call(DIALLED_IN_URI.into())).await;
        self.say(&format!("it dials {DIALLED}"))?;
        self.wait("ringing", |heard| matches!(heard, Heard::EarlyMedia(_))).await?;
        self.say("the far end rings, with early media")?;
        self.wait("the answer", |heard| *heard == Heard::Up).await?;
        self.say("the far end has answered")?;

        let phone_hears = self.listen().await;
        let mut ended = self.trunk.ended();
        self.phone.act(Act::HangUp).await;
        self.wait("the end of the call", |heard| matches!(heard, Heard::Gone(_))).await?;
        self.say("the phone has hung up")?;
        let far = super::twilio_sim::next_ended(&mut ended, 0, within(PATIENCE)).await;
        let far = far.ok_or(DemoError::Late { what: "the far end's BYE" })?;
        let both = self.verdict(phone_hears, far)?;
        let told = self.tell_the_story().await?;
        Ok(both && told)
    }

    /// Waits until the phone has heard enough, and a little for the other direction.
    async fn listen(&self) -> Report {
        let enough = |report: &Report| report.heard >= LISTEN && report.sent >= 150;
        self.phone.listens(enough, within(PATIENCE)).await
    }

    fn verdict(&self, phone: Report, far: Ended) -> io::Result<bool> {
        let side = |who: &str, report: &Report, hz: f64| {
            format!(
                "{who} heard {hz:.0} Hz for {} ms, {} packets received, {} lost",
                report.heard.as_millis(),
                report.received,
                report.lost
            )
        };
        self.say(&side("the phone", &phone, FAR_TONE_HZ))?;
        self.say(&side("the far end", &far.report, NEAR_TONE_HZ))?;
        let both = phone.heard >= LISTEN && far.report.heard >= LISTEN / 2;
        self.say(if both {
            "BOTH SIDES HEAR EACH OTHER"
        } else {
            "NOT BOTH SIDES HEARD EACH OTHER"
        })?;
        Ok(both)
    }

    /// Prints the ladder, the reason for the rule, and the CDR.
    async fn tell_the_story(&self) -> Result<bool, DemoError> {
        let cdr = self.record().await.ok_or(DemoError::Late { what: "the CDR" })?;
        let query = Query {
            context: "internal",
            from: "1001",
            dialled: DIALLED,
            at: self.config.node.timezone.local(SystemTime::now()),
        };
        let why = self.config.dialplan.explain(&query).sentence();
        let ladder = self.node.store().ladder(cdr.call).await.ok().flatten();
        let mut out = io::stdout();
        if let Some(ladder) = ladder {
            writeln!(out, "\nThe ladder of both legs:\n\n{}", ladder.columns())?;
        }
        writeln!(out, "Why: {why}\n\nThe CDR:\n")?;
        let is_well = cdr.ending.status == 200 && cdr.ending.why.is_none();
        writeln!(out, "{}", views::text(&Response::Record(Box::new(cdr))))?;
        let deviations = self.trunk.deviations().await;
        for deviation in &deviations {
            self.say(&format!("the trunk complains: {deviation}"))?;
        }
        if deviations.is_empty() {
            self.say("the trunk has nothing to complain about")?;
        }
        Ok(is_well && deviations.is_empty())
    }

    /// The record is written once the media workers have reported.
    async fn record(&self) -> Option<Cdr> {
        let store = self.node.store();
        let by = within(PATIENCE);
        while now() < by {
            store.flush().await.ok()?;
            let found = store.cdrs(CdrQuery { limit: 1, ..CdrQuery::default() }).await.ok()?;
            if let Some(cdr) = found.into_iter().next() {
                return Some(cdr);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }

    fn invite_guests(&self) -> io::Result<()> {
        let registrar = address(self.node.listeners(), Transport::Udp);
        let [first, second] = &self.passwords;
        let socket = self.place.socket.display();
        let realm = &self.config.sip.realm;
        let mut out = io::stdout();
        writeln!(
            out,
            "Register a softphone of your own (UDP or TCP):\n\n    \
             address   {registrar}\n    realm     {realm}\n    \
             user      1001   password  {first}\n    user      1002   password  {second}\n\n\
             Dial 1001 or 1002 to reach the other, or any telephone number: the simulated network answers\n\
             with three tones and an echo. +15005550486 is busy, +15005550403 is refused; see\n\
             `tandem twilio-sim --help`.\n\nWatch it:\n\n    \
             tandem status --socket {socket}\n    tandem cdr --socket {socket}\n\n\
             Ctrl-C ends it."
        )?;
        out.flush()
    }

    /// Waits until the phone has heard something; a refusal meanwhile ends the wait.
    async fn wait(
        &mut self,
        what: &'static str,
        is_it: impl Fn(&Heard) -> bool,
    ) -> Result<(), DemoError> {
        let refusal = |heard: &Heard| {
            if let Heard::Refused(status, reason) = heard {
                Some(format!("{status} {reason}"))
            } else if let Heard::RegistrationRefused(status) = heard {
                Some(format!("REGISTER: {status}"))
            } else {
                None
            }
        };
        let done = |heard: &Heard| is_it(heard) || refusal(heard).is_some();
        let heard = self.phone.hears(done, within(PATIENCE)).await;
        let heard = heard.ok_or(DemoError::Late { what })?;
        refusal(&heard).map_or(Ok(()), |refused| Err(DemoError::Refused(refused)))
    }

    /// Prints a line with the time since the beginning.
    fn say(&self, line: &str) -> io::Result<()> {
        let ms = now().saturating_duration_since(self.began).as_millis();
        let mut out = io::stdout();
        writeln!(out, "{ms:>6} ms  {line}")?;
        out.flush()
    }
}

fn within(time: Duration) -> Instant {
    super::twilio_sim::within(time)
}

/// Reads the shipped files, with passwords made for this run.
fn embedded(passwords: &[String; 2], trunk_password: &str) -> Result<Config, DemoError> {
    let [first, second] = passwords;
    let files = Files::default()
        .with("conf/pbx.toml", CONFIG)
        .with("dialplan/default.toml", DIALPLAN)
        .with_env("TWILIO_TRUNK_PASSWORD", trunk_password)
        .with_env("PHONE_1001_PASSWORD", first)
        .with_env("PHONE_1002_PASSWORD", second);
    let checked = config::check("conf/pbx.toml", &files);
    checked.config.ok_or_else(|| DemoError::Config(checked.report.render(false)))
}

fn far_ends(voice: Speech) -> FarEnds {
    FarEnds { voice, press: "".into() }
}

async fn start_trunk(config: &Config, password: &str) -> Result<Trunk, DemoError> {
    let trunk = config.trunks.get(TRUNK);
    let host = trunk.and_then(|trunk| Some(trunk.uris.first()?.host.clone())).unwrap_or_default();
    let user = trunk.and_then(|trunk| trunk.username.clone()).unwrap_or_default();
    let number = trunk.and_then(|trunk| trunk.caller_id.as_ref().map(|n| n.expose().into()));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut setup = twilio::Setup::new(any, &host);
    setup.account.credentials = Some((user, password.into()));
    setup.account.numbers = number.into_iter().collect();
    let post_dial = Duration::from_millis(200);
    setup.timing = twilio::Timing { post_dial, ring: Duration::from_secs(1) };
    Ok(Trunk::start(setup, far_ends(Speech::Tone), &BTreeMap::new(), 1).await?)
}

/// The shipped configuration, but on this machine alone and beside whatever else runs here.
fn place_on_loopback(config: &mut Config, listen: IpAddr, trunk_at: SocketAddr) {
    let address = SocketAddr::new(listen, 0);
    config.sip.listen = vec![
        Listen { transport: Transport::Udp, address },
        Listen { transport: Transport::Tcp, address },
    ];
    config.http.listen = None;
    if let Some(trunk) = config.trunks.get_mut(TRUNK) {
        Arc::make_mut(trunk).address = Some(trunk_at);
    }
}

fn address(listeners: &[Listener], transport: Transport) -> SocketAddr {
    let found = listeners.iter().find(|listener| listener.transport == transport);
    found.map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |listener| listener.address)
}

/// A folder of our own that goes when the demonstration does.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("tandem-demo-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning of its temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
