//! The trunk's edges: their names, their addresses, and how far away each is.
//!
//! Owns: one OPTIONS to each address, at the carrier's pace.
//! Never: asks an edge more often than the carrier allows.

use super::{
    line::{Heard, Line, facing},
    report::{Finding, Verdict},
};
use crate::{
    config::{Config, Trunk, TrunkUri},
    ids::{Entropy, Flow, Transport},
    shell::{
        now,
        peers::peer_of,
        resolver::Names,
        tls::{Security, certificate},
    },
    sip::{Builder, HeaderName, Message, Method},
};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    net::TcpStream,
    time::{sleep_until, timeout},
};

/// A carrier bans who asks more often than every 10 to 15 s.
const PACE: Duration = Duration::from_secs(12);
/// How long an address may take to answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// A certificate that ends sooner is worth a word.
const DAYS_FEW: i64 = 14;

/// What was found at one edge.
#[derive(Default)]
pub(super) struct Edge {
    /// For the report, in order.
    pub(super) findings: Vec<Finding>,
    /// The nearest address that answered, and how long that took.
    pub(super) nearest: Option<(SocketAddr, Duration)>,
    /// Our address, as the edge saw it.
    pub(super) seen: Option<IpAddr>,
}

/// Who asks, and when it may ask again.
pub(super) struct Asker {
    pub(super) entropy: Entropy,
    security: Security,
    /// Whether a running tandem asks the trunk already: then we must not.
    pub(super) is_asked: bool,
    next: Option<Instant>,
}

impl Asker {
    pub(super) fn new(config: &Config, entropy: Entropy, is_asked: bool) -> Self {
        Self { entropy, security: Security::new(config), is_asked, next: None }
    }

    /// Waits until the carrier may be asked.
    async fn turn(&mut self) {
        if let Some(next) = self.next {
            sleep_until(next.into()).await;
        }
        self.next = Some(now() + PACE);
    }
}

/// Looks at one edge: its name, then each of its addresses.
pub(super) async fn look(trunk: &Trunk, uri: &TrunkUri, names: &Names, asker: &mut Asker) -> Edge {
    let mut edge = Edge::default();
    for address in addresses(trunk, uri, names, &mut edge).await {
        if asker.is_asked {
            edge.connect(trunk, address).await;
        } else {
            asker.turn().await;
            edge.ask(trunk, uri, address, asker).await;
        }
    }
    edge
}

/// Returns where the edge is.
async fn addresses(
    trunk: &Trunk,
    uri: &TrunkUri,
    names: &Names,
    edge: &mut Edge,
) -> Vec<SocketAddr> {
    if let Some(address) = trunk.address {
        let found = format!("`address` says {address}");
        edge.findings.push(Finding::new("dns", Verdict::Well, found).of(&uri.host));
        return vec![address];
    }
    let port = uri.port.unwrap_or(trunk.transport.default_port());
    match names.addresses(&uri.host).await {
        Ok(found) => {
            let ips: Vec<_> = found.ips.iter().map(IpAddr::to_string).collect();
            let told = format!("{} for {} s", ips.join(" "), found.ttl.as_secs());
            edge.findings.push(Finding::new("dns", Verdict::Well, told).of(&uri.host));
            found.ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
        }
        Err(why) => {
            let finding = Finding::new("dns", Verdict::Wrong, why).of(&uri.host);
            let help = "set `uri` to the trunk's termination URI, word for word; see \
                        `/etc/resolv.conf`, or set `[node] resolver`";
            edge.findings.push(finding.help(help));
            vec![]
        }
    }
}

impl Edge {
    /// Measures the way to an address without a request.
    async fn connect(&mut self, trunk: &Trunk, address: SocketAddr) {
        let began = now();
        let finding = match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                let rtt = now() - began;
                self.is_nearest(address, rtt);
                let found = format!("connects after {}", millis(rtt));
                Finding::new("reach", Verdict::Well, found)
            }
            Ok(Err(error)) => Self::no_way(trunk, error.to_string()),
            Err(_) => Self::no_way(trunk, "no answer".to_owned()),
        };
        self.findings.push(finding.of(format_args!("tcp:{address}")));
    }

    /// Over UDP it may be reached all the same.
    fn no_way(trunk: &Trunk, found: String) -> Finding {
        let verdict = match trunk.transport {
            Transport::Udp => Verdict::Unknown,
            Transport::Tcp | Transport::Tls => Verdict::Wrong,
        };
        Finding::new("reach", verdict, found)
    }

    fn is_nearest(&mut self, address: SocketAddr, rtt: Duration) {
        if self.nearest.is_none_or(|(_, nearest)| rtt < nearest) {
            self.nearest = Some((address, rtt));
        }
    }

    async fn ask(&mut self, trunk: &Trunk, uri: &TrunkUri, address: SocketAddr, asker: &mut Asker) {
        let name = format!("{}:{address}", trunk.transport.param());
        let opened = timeout(PATIENCE, open(trunk, address, &uri.host, asker));
        let asked = match opened.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(mut opened) => {
                self.findings.extend(opened.days_left.map(|days| expiry(days).of(&name)));
                options(&mut opened.line, &uri.host).await
            }
            Err(error) => Err(error),
        };
        let finding = match asked {
            Ok((response, rtt)) => {
                self.seen = self.seen.or_else(|| response.via().received());
                self.is_nearest(address, rtt);
                judge(&response, rtt).of(name)
            }
            Err(error) => unreachable(trunk.transport, &error).of(name),
        };
        self.findings.push(finding);
    }
}

fn judge(response: &Message, rtt: Duration) -> Finding {
    let status = response.status();
    let found = format!("{status} after {}", millis(rtt));
    match status {
        200..=299 => Finding::new("options", Verdict::Well, found),
        _ => Finding::new("options", Verdict::Note, found)
            .help("the carrier answers, but not with 200: see that `uri` is the termination URI"),
    }
}

/// `12.3 ms`
pub(super) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn unreachable(transport: Transport, error: &io::Error) -> Finding {
    let is_silent = error.kind() == io::ErrorKind::TimedOut;
    let found = if is_silent { "no answer".to_owned() } else { error.to_string() };
    let help = match transport {
        Transport::Udp => "let UDP out to port 5060 and its answers in; see that `uri` is right",
        Transport::Tcp => "let TCP out to port 5060",
        Transport::Tls => {
            "let TCP out to port 5061; `tls = { ca = \"...\" }` names another authority"
        }
    };
    Finding::new("options", Verdict::Wrong, found).help(help)
}

/// A flow to one address, and how many days the peer's certificate still holds.
pub(super) struct Opened {
    pub(super) line: Line,
    days_left: Option<i64>,
}

/// Opens a flow to one address; a TLS peer must prove to be who the trunk is.
pub(super) async fn open(
    trunk: &Trunk,
    remote: SocketAddr,
    host: &str,
    asker: &mut Asker,
) -> io::Result<Opened> {
    let transport = trunk.transport;
    let entropy = &mut asker.entropy;
    if transport == Transport::Udp {
        let socket = facing(remote).await?;
        let flow = Flow { transport, local: socket.local_addr()?, remote };
        return Ok(Opened { line: Line::datagrams(flow, socket, entropy), days_left: None });
    }
    let stream = TcpStream::connect(remote).await?;
    stream.set_nodelay(true)?;
    let flow = Flow { transport, local: stream.local_addr()?, remote };
    if transport == Transport::Tcp {
        let line = Line::stream(flow, Box::new(stream), entropy);
        return Ok(Opened { line, days_left: None });
    }
    let peer = peer_of(trunk, Some(host));
    let stream = asker.security.connect(stream, &peer).await.map_err(io::Error::other)?;
    let days_left = certificate(&stream).map(|validity| validity.days_left(SystemTime::now()));
    Ok(Opened { line: Line::stream(flow, Box::new(stream), entropy), days_left })
}

/// Says for how long the peer's certificate holds.
fn expiry(days_left: i64) -> Finding {
    let found = format!("the carrier's certificate holds for {days_left} days");
    let verdict = if days_left < DAYS_FEW { Verdict::Note } else { Verdict::Well };
    Finding::new("certificate", verdict, found)
}

/// Sends OPTIONS, and returns the answer and how long it took.
async fn options(line: &mut Line, host: &str) -> io::Result<(Message, Duration)> {
    let (via, branch) = line.via();
    let (call_id, tag) = (line.mint().call_id(), line.mint().tag());
    let local = line.flow().local;
    let mut options = Builder::request(Method::Options.as_str(), &format!("sip:{host}"));
    options
        .header(HeaderName::Via, via)
        .header(HeaderName::MaxForwards, 70)
        .header(HeaderName::From, format_args!("<sip:tandem@{local}>;tag={tag}"))
        .header(HeaderName::To, format_args!("<sip:{host}>"))
        .header(HeaderName::CallId, call_id)
        .header(HeaderName::CSeq, "1 OPTIONS");
    let began = now();
    let tx = line.request(options.finish(), &branch, Method::Options).await?;
    loop {
        match line.hear(began + PATIENCE).await? {
            Some(Heard::Response(from, response)) if from == tx && response.status() >= 200 => {
                return Ok((response, now() - began));
            }
            Some(Heard::Response(..)) => {}
            Some(Heard::Nothing(_)) | None => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}
