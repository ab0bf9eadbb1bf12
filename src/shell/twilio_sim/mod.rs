//! `tandem twilio-sim`: the simulated trunk on real sockets.
//!
//! Owns: the run: the trunk, its name server, the calls of the scenario, and what is told.
//! Never: judges the PBX; the simulated trunk keeps the list.

mod args;
mod authority;
mod names;
mod tell;
mod trunk;

pub use args::{CallArgs, FarVoice, PlaceArgs, SimArgs};
pub(super) use trunk::{Ended, FAR_TONE_HZ, FarEnds, NEAR_TONE_HZ, Trunk};

use super::now;
use crate::{
    config::scenario::{At, Call, Place, Scenario, State},
    dialplan::E164,
    ids::Transport,
    sim::{
        Reach,
        twilio::{self, CallIn, Edge, Policy, Proxy, Setup, Timing},
    },
};
use names::Names;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};
use tell::{Form, Told, tell};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::{sleep, sleep_until},
};
use trunk::Origination;

/// Between two looks at whether calls are still there.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long calls that are up at the end may take to be over.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// Why the trunk did not run.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// A socket.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The scenario has mistakes: all of them.
    #[error("the scenario has mistakes:\n{0}")]
    Scenario(String),
}

/// Runs the trunk until interrupted, or until it has had its calls. Returns whether all is well: with
/// `--strict`, whether the PBX kept every rule.
pub async fn run(args: SimArgs) -> Result<bool, SimError> {
    let scenario = args.scenario().map_err(SimError::Scenario)?;
    let form = if args.json { Form::Json } else { Form::Text };
    let far_ends = FarEnds { voice: scenario.far_end.voice, press: scenario.far_end.press.clone() };
    let reach = reach(&scenario.place);
    let trunk = Trunk::start(setup(&scenario), far_ends, &reach, args.seed).await?;
    let listening = |transport, address| tell(form, &Told::Listening { transport, address });
    listening("udp", trunk.address)?;
    listening("tcp", trunk.address)?;
    let secure = trunk.proxy(trunk.address.ip(), Transport::Tls);
    listening("tls", secure.unwrap_or(trunk.address))?;
    if let Some(path) = &args.ca_out {
        std::fs::write(path, &trunk.certificate)?;
    }
    let _names = match (scenario.place.dns, trunk.zone(args.seed).await) {
        (Some(wanted), Some(zone)) => {
            let names = Names::start(zone, wanted).await?;
            listening("dns", names.address)?;
            Some(names)
        }
        (_, _) => None,
    };
    let trunk = Arc::new(trunk);
    let mut callers = JoinSet::new();
    let beginning = args.wait.then(a_line);
    let caller = trunk.clone();
    callers.spawn(async move {
        if let Some(line) = beginning {
            // The end of the input is a beginning too.
            let _ = line.await;
        }
        let calls = scenario.calls.into_iter().map(|call| originate(caller.clone(), call));
        calls.collect::<JoinSet<()>>().join_all().await;
    });
    let mut ended = trunk.ended();
    let wanted = args.calls.unwrap_or(u64::MAX);
    tokio::select! {
        _ = ended.wait_for(|ended| ended.len() as u64 >= wanted) => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    callers.shutdown().await;
    let is_clean = conclude(&trunk, form).await?;
    Ok(is_clean || !args.strict)
}

/// Waits for a line on standard input, in a thread that may wait for ever.
fn a_line() -> oneshot::Receiver<()> {
    let (came, line) = oneshot::channel();
    std::thread::spawn(move || {
        let read = io::stdin().read_line(&mut String::new());
        tracing::debug!(?read, "calls begin");
        came.send(())
    });
    line
}

/// Makes the calls of one `[[call]]`.
async fn originate(trunk: Arc<Trunk>, call: Call) {
    let to = vec![twilio::Origination::new(call.to.address, call.to.transport)];
    let origination = Origination {
        call: CallIn {
            name: call.name,
            through: call.through.and_then(|ip| trunk.proxy(ip, call.to.transport)),
            talks_for: call.talks,
            waits: Some(call.waits),
            ..CallIn::new(call.did.expose(), call.from.expose(), to)
        },
        press: call.press,
        hold: call.hold,
    };
    let mut at = now() + call.pace.at;
    for _ in 0..call.pace.count {
        sleep_until(at.into()).await;
        trunk.call_in(origination.clone()).await;
        at += call.pace.every;
    }
}

/// Tells what there was. Returns whether the PBX kept every rule.
async fn conclude(trunk: &Trunk, form: Form) -> io::Result<bool> {
    let by = within(LEAVE_MAX);
    while trunk.calls().await > 0 && now() < by {
        sleep(LOOK_EVERY).await;
    }
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

fn setup(scenario: &Scenario) -> Setup {
    let account = &scenario.account;
    let edges = match scenario.place.at {
        At::Address(address) => Setup::new(address, "").edges,
        At::Edges { base, port } => edges_at(base, port),
    };
    let mut setup = Setup { edges, ..Setup::new(([0, 0, 0, 0], 0).into(), &account.termination) };
    let credentials = account.credentials.as_ref();
    setup.account.credentials =
        credentials.map(|(user, password)| (user.clone(), password.expose().into()));
    setup.account.allowed = account.allow.clone();
    let exposed = |numbers: &[E164]| numbers.iter().map(|number| number.expose().into()).collect();
    setup.account.verified = exposed(&account.verified);
    setup.account.blocked = exposed(&account.blocked);
    setup.account.countries = account.countries.clone();
    setup.account.state = match account.state {
        State::Active => twilio::State::Active,
        State::Trial => twilio::State::Trial,
        State::Suspended => twilio::State::Suspended,
    };
    setup.policy = Policy {
        secure: scenario.policy.secure,
        transfers: scenario.policy.transfers,
        symmetric: scenario.policy.symmetric,
    };
    setup.account.numbers = exposed(&account.numbers);
    setup.limits.calls_per_s = scenario.limits.calls_per_second;
    setup.limits.calls_max = scenario.limits.calls;
    let far_end = &scenario.far_end;
    setup.timing = Timing { post_dial: far_end.post_dial, ring: far_end.ring };
    setup
}

/// Twilio's edges at addresses of ours: the third byte is the edge, the last one the proxy.
fn edges_at(base: Ipv4Addr, port: u16) -> Vec<Edge> {
    let [a, b, ..] = base.octets();
    let mut edges = Edge::all();
    for (number, edge) in (1..).zip(&mut edges) {
        for (last, proxy) in (1..).zip(&mut edge.proxies) {
            *proxy = Proxy::new(SocketAddr::from((Ipv4Addr::new(a, b, number, last), port)));
        }
    }
    edges
}

fn reach(place: &Place) -> BTreeMap<IpAddr, Reach> {
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
