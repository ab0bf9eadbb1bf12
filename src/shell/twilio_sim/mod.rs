//! `tandem twilio-sim`: the simulated trunk on real sockets.
//!
//! Owns: the arguments, and what is told in the end.
//! Never: judges the PBX; the simulated trunk keeps the list.

mod names;
mod tell;
mod trunk;

pub use trunk::FarVoice;
pub(super) use trunk::{Ended, FAR_TONE_HZ, FarEnds, NEAR_TONE_HZ, Trunk};

use super::now;
use crate::{
    ids::Transport,
    sim::{
        Reach,
        twilio::{CallIn, Edge, Proxy, Setup},
    },
};
use names::Names;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};
use tell::{Form, Told, tell};
use tokio::sync::watch;
use trunk::Origination;

/// The arguments of `tandem twilio-sim`.
#[derive(Clone, Debug, clap::Args)]
pub struct SimArgs {
    /// Where and how the trunk is reached.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The termination URI's host
    #[arg(long, value_name = "HOST", default_value = "simulated.pstn.twilio.com")]
    pub termination: String,
    /// User name and password of the credential list
    #[arg(long, value_name = "USER:PASSWORD")]
    pub credentials: Option<String>,
    /// A number of the account, in E.164; may be given several times
    #[arg(long, value_name = "NUMBER", default_value = "+17756187988")]
    pub number: Vec<String>,
    /// What the far ends of calls say
    #[arg(long, value_enum, default_value = "echo")]
    pub voice: FarVoice,
    /// Keys that the far ends of calls press
    #[arg(long, value_name = "DIGITS", default_value = "")]
    pub press: String,
    /// A call to the PBX.
    #[command(flatten)]
    pub call: CallArgs,
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
    /// Where the trunk listens, if it has one address only (UDP and TCP); port 0: any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", conflicts_with = "edges")]
    pub listen: SocketAddr,
    /// Be at all eight edges: 127.54.0.0 means 127.54.1.1 to .4 for ashburn, 127.54.2.1 to .4 for
    /// umatilla, then dublin, frankfurt, singapore, tokyo, sao-paulo and sydney
    #[arg(long, value_name = "IP")]
    pub edges: Option<Ipv4Addr>,
    /// The port of the edges; 0: one that is free at all of them
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
    #[arg(long = "call", value_name = "ADDRESS", requires = "did")]
    pub to: Option<SocketAddr>,
    /// The number that such a call is for
    #[arg(long, value_name = "NUMBER")]
    pub did: Option<String>,
    /// Who calls
    #[arg(long, value_name = "NUMBER", default_value = "+14155550100")]
    pub from: String,
    /// For how long the caller talks, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub talk: u64,
}

/// Runs the trunk until interrupted, or until it has had its calls. Returns whether all is well: with
/// `--strict`, whether the PBX kept every rule.
pub async fn run(args: SimArgs) -> io::Result<bool> {
    let form = if args.json { Form::Json } else { Form::Text };
    let far_ends = FarEnds { voice: args.voice, press: args.press.as_str().into() };
    let trunk = Trunk::start(setup(&args), far_ends, &reach(&args.place), args.seed).await?;
    let listening = |transport, address| tell(form, &Told::Listening { transport, address });
    listening("udp", trunk.address)?;
    listening("tcp", trunk.address)?;
    let _names = match (args.place.dns, trunk.zone(args.seed).await) {
        (Some(wanted), Some(zone)) => {
            let names = Names::start(zone, wanted).await?;
            listening("dns", names.address)?;
            Some(names)
        }
        (_, _) => None,
    };
    if let (Some(to), Some(did)) = (args.call.to, &args.call.did) {
        let call = CallIn {
            did: did.as_str().into(),
            from: args.call.from.as_str().into(),
            name: Some("Simulated Caller".into()),
            to,
            transport: Transport::Udp,
            through: None,
            talks_for: Some(Duration::from_secs(args.call.talk)),
            waits: None,
        };
        trunk.call_in(Origination { call, press: args.press.as_str().into(), hold: None }).await;
    }
    let mut ended = trunk.ended();
    let wanted = args.calls.unwrap_or(u64::MAX);
    tokio::select! {
        _ = ended.wait_for(|ended| ended.len() as u64 >= wanted) => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    let is_clean = conclude(&trunk, form).await?;
    Ok(is_clean || !args.strict)
}

/// Tells what there was. Returns whether the PBX kept every rule.
async fn conclude(trunk: &Trunk, form: Form) -> io::Result<bool> {
    let deviations = trunk.deviations().await;
    for deviation in &deviations {
        tell(form, &Told::deviation(deviation))?;
    }
    let ended = trunk.ended().borrow().clone();
    for call in &ended {
        tell(form, &Told::call(call))?;
    }
    let (calls, open) = (ended.len(), trunk.calls().await);
    tell(form, &Told::Total { calls, deviations: deviations.len(), open })?;
    Ok(deviations.is_empty())
}

fn setup(args: &SimArgs) -> Setup {
    let mut setup = Setup::new(args.place.listen, &args.termination);
    if let Some(base) = args.place.edges {
        setup.edges = edges_at(base, args.place.port);
    }
    let credentials = args.credentials.as_deref().and_then(|both| both.split_once(':'));
    setup.account.credentials = credentials.map(|(user, password)| (user.into(), password.into()));
    setup.account.numbers = args.number.iter().map(|number| number.as_str().into()).collect();
    setup
}

/// Twilio's edges at addresses of ours: the third byte is the edge, the last one the proxy.
fn edges_at(base: Ipv4Addr, port: u16) -> Vec<Edge> {
    let [a, b, ..] = base.octets();
    let mut edges = Edge::all();
    for (number, edge) in (1..).zip(&mut edges) {
        for (last, proxy) in (1..).zip(&mut edge.proxies) {
            *proxy = Proxy::new((Ipv4Addr::new(a, b, number, last), port).into());
        }
    }
    edges
}

fn reach(place: &PlaceArgs) -> BTreeMap<IpAddr, Reach> {
    let blackholed = place.blackhole.iter().map(|ip| (*ip, Reach::Blackholed));
    let refusing = place.refuse.iter().map(|ip| (*ip, Reach::Refusing));
    blackholed.chain(refusing).collect()
}

/// Waits for one more call to end than `before`, at most until `by`.
pub(super) async fn next_ended(
    ended: &mut watch::Receiver<Vec<Ended>>,
    before: usize,
    by: Instant,
) -> Option<Ended> {
    let more = ended.wait_for(|ended| ended.len() > before);
    let found = tokio::time::timeout_at(by.into(), more).await.ok()?.ok()?;
    found.get(before).cloned()
}

/// Returns the end of a wait that begins now.
pub(super) fn within(time: Duration) -> Instant {
    now() + time
}
