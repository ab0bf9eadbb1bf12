//! `tandem doctor`: everything that keeps a first call from succeeding, in the order in which people
//! fail.
//!
//! Owns: what is looked at, and in which order.
//! Never: needs a running tandem, or disturbs one.

mod call;
mod edges;
mod host;
mod line;
mod lint;
mod network;
mod report;
mod stun;

pub use report::{Finding, Report, Verdict};

use super::{
    admin::Output,
    config_files, control,
    node::{Place, seed},
    resolver::Names,
    views::Exit,
};
use crate::{
    config::{Config, Trunk},
    dialplan::E164,
    ids::Entropy,
    observe::status::{Request, Response, StatusReport, TrunkRow, TrunkState},
};
use edges::{Asker, millis};
use network::Seen;
use std::{net::IpAddr, path::PathBuf, time::Duration};

/// Who tells us how the world sees us, and what time it is.
const STUN: [&str; 2] = ["global.stun.twilio.com:3478", "stun.l.google.com:19302"];
const NTP: &str = "pool.ntp.org";
/// An edge that is nearer by less is not worth a change.
const NEARER: Duration = Duration::from_millis(10);

/// The arguments of `tandem doctor`.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArgs {
    /// Only this trunk
    #[arg(long, value_name = "NAME")]
    pub trunk: Option<String>,
    /// Call this number through the trunk, and take the call back as soon as it gets through
    #[arg(long, value_name = "+E164", value_parser = parse_number)]
    pub call: Option<E164>,
    /// The configuration; by default conf/pbx.toml, else /etc/tandem/pbx.toml
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A STUN server; may be given twice, which tells the kind of NAT
    #[arg(long, value_name = "HOST", default_values_t = STUN.map(String::from))]
    pub stun: Vec<String>,
    /// A time server
    #[arg(long, value_name = "HOST", default_value = NTP)]
    pub ntp: String,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Looks at everything.
pub async fn run(args: &DoctorArgs) -> Output {
    let named = args.config.as_ref().map(|path| path.to_string_lossy());
    let file = config_files::path(named.as_deref());
    let mut report = Report::default();
    let checked = config_files::load(file);
    report.add(configuration(file, &checked));
    if let Some(config) = checked.config {
        if let Some(name) = args.trunk.as_deref().filter(|name| !config.trunks.contains_key(*name))
        {
            let known: Vec<_> = config.trunks.keys().map(|name| &**name).collect();
            let text = format!("error: no trunk `{name}`; there are: {}\n", known.join(", "));
            return Output { text, exit: Exit::Usage };
        }
        let place = Place::of(&config, Some(file));
        report.add(host::exposure("control socket", &place.socket));
        report.add(host::exposure("database", &place.database));
        let socket = place.socket;
        let running = match control::ask(&socket, &Request::Status).await {
            Ok(Response::Status(status)) => Some(*status),
            Ok(_) | Err(_) => None,
        };
        examine(args, &config, running.as_ref(), &mut report).await;
    }
    let text = if args.json { report.json() } else { report.to_string() };
    Output { text, exit: report.exit() }
}

fn configuration(file: &str, checked: &crate::config::Checked) -> Finding {
    let (errors, warnings) = (checked.report.errors(), checked.report.warnings());
    let found = format!("{errors} errors, {warnings} warnings");
    let help = format!("`tandem check -c {file}` lists them");
    match (errors, warnings) {
        (0, 0) => Finding::new("configuration", Verdict::Well, found).of(file),
        (0, _) => Finding::new("configuration", Verdict::Note, found).of(file).help(help),
        (_, _) => Finding::new("configuration", Verdict::Wrong, found).of(file).help(help),
    }
}

/// `running`: what a running tandem says of itself.
async fn examine(
    args: &DoctorArgs,
    config: &Config,
    running: Option<&StatusReport>,
    report: &mut Report,
) {
    let mut entropy = match seed() {
        Ok(seed) => Entropy::new(seed),
        Err(error) => {
            let found = format!("the system gives no random numbers: {error}");
            return report.add(Finding::new("randomness", Verdict::Wrong, found));
        }
    };
    report.add(host::clock(&args.ntp).await);
    for listen in &config.sip.listen {
        report.add(host::listener(listen, running.map_or(&[], |status| &status.listeners)));
    }
    report.add(host::bursts());
    report.add(host::media_ports(&config.rtp, running.is_some()));
    report.add(host::files(&config.rtp));
    report.add(host::kernel_path(&config.rtp.kernel));
    let names = Names::new(&config.node.resolver);
    let seen = network::look(&args.stun, &names, &mut entropy).await;
    report.add(network::nat(&seen));
    for trunk in config.trunks.values() {
        if args.trunk.as_deref().is_none_or(|name| *name == *trunk.name) {
            let row = running.into_iter().flat_map(|status| &status.trunks);
            let row = row.into_iter().find(|row| *row.name == *trunk.name);
            let entropy = Entropy::from_u64(entropy.next_u64());
            let asker = Asker::new(config, entropy, watched(row, report));
            examine_trunk(args, config, trunk, (&names, &seen), report, asker).await;
        }
    }
    lint::dialplan(config, report);
}

/// Reports what a running tandem knows of the trunk, and returns whether it asks it.
fn watched(row: Option<&TrunkRow>, report: &mut Report) -> bool {
    let Some(row) = row.filter(|row| row.state != TrunkState::Unmonitored) else { return false };
    let rtt = row.rtt_ms.map_or_else(String::new, |ms| format!(", {ms:.1} ms"));
    let found = format!("the running tandem asks: {}{rtt}", row.state.word());
    let verdict = match row.state {
        TrunkState::Up | TrunkState::Unmonitored => Verdict::Well,
        TrunkState::Suspect => Verdict::Note,
        TrunkState::Down => Verdict::Wrong,
    };
    report.add(Finding::new("options", verdict, found).of(&row.name));
    true
}

async fn examine_trunk(
    args: &DoctorArgs,
    config: &Config,
    trunk: &Trunk,
    (names, seen): (&Names, &Seen),
    report: &mut Report,
    mut asker: Asker,
) {
    let mut edge_saw = None;
    let mut nearest = None;
    let mut first = None;
    for uri in &trunk.uris {
        let edge = edges::look(trunk, uri, names, &mut asker).await;
        edge_saw = edge_saw.or(edge.seen);
        edge.findings.into_iter().for_each(|finding| report.add(finding));
        let rtt = edge.nearest.map(|(_, rtt)| rtt);
        first = first.or(Some(rtt.unwrap_or(Duration::MAX)));
        nearest = nearest
            .into_iter()
            .chain(edge.nearest.map(|(address, rtt)| (rtt, address, &*uri.host)))
            .min();
    }
    if let Some((rtt, address, host)) = nearest {
        let found = format!("{host} at {address}, {}", millis(rtt));
        let is_first_far = first.is_some_and(|first| first > rtt + NEARER);
        let finding = |verdict| Finding::new("nearest edge", verdict, &*found).of(&trunk.name);
        report.add(match is_first_far {
            false => finding(Verdict::Well),
            true => finding(Verdict::Note).help(format!("put \"{host}\" first in `uri`")),
        });
    }
    let local = nearest.and_then(|(_, address, _)| super::routes::source_of(address.ip()));
    let known = edge_saw.or_else(|| seen.public());
    let sdp = network::sdp_address(&config.node.public_ip, local.or(seen.local), known);
    report.add(sdp.of(&trunk.name));
    lint::trunk(config, trunk, report);
    if let (Some(number), Some((_, address, host))) = (&args.call, nearest) {
        let media = local.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        report.add(trial(trunk, number, (address, host), media, &mut asker).await.of(&trunk.name));
    }
}

async fn trial(
    trunk: &Trunk,
    number: &E164,
    (address, host): (std::net::SocketAddr, &str),
    media: IpAddr,
    asker: &mut Asker,
) -> Finding {
    let Some(caller_id) = &trunk.caller_id else {
        return Finding::new("call", Verdict::Wrong, "the trunk has no number to call from")
            .help("set `caller_id` of the trunk");
    };
    let media = call::media_at(media);
    let trial = call::Trial { trunk, host, number, caller_id, media };
    let outcome = match edges::open(trunk, address, host, asker).await {
        Ok(mut opened) => trial.run(&mut opened.line, &mut asker.entropy).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(outcome) => outcome.finding(),
        Err(error) => Finding::new("call", Verdict::Wrong, error.to_string()),
    }
}

fn parse_number(text: &str) -> Result<E164, String> {
    E164::parse(text).ok_or_else(|| "write it in E.164: +14155550199".to_owned())
}

#[cfg(test)]
mod tests;
