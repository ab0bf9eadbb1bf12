//! Answers operators and monitors from what the shard, the store and the workers say.
//!
//! Owns: the way to the shard for orders, the configuration in use, since when all this runs.
//! Never: changes a call itself.

use super::{
    config_files,
    control::{self, Admin},
    http::{Inspect, Readiness},
    media_worker::MediaHandle,
    node::{Upgrade, with_public_ip},
    now,
    routes::Listener,
    shard_loop::{Order, Pulses},
    store,
    tls::Security,
};
use crate::{
    config::{Config, Listen, PublicIp, difference},
    guard::Account,
    network::Network,
    observe::{
        cdr::UtcMs,
        explain::Story,
        metrics::{Media, Shard, Snapshot, Transports},
        status::{
            CallCounts, CallSummary, CertificateRow, ContactRow, PhoneRow, PortCounts,
            ReloadReport, Request, Response, SignallingCounts, StatusReport, TrunkRow,
        },
    },
    registrar::{Binding, Location},
    tls::Validity,
};
use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

/// What a node was started from.
pub(super) struct Origin {
    /// The configuration file, if there is one.
    pub(super) file: Option<Box<str>>,
    /// `[sip] listen` as the file has it: a port 0 is still a 0.
    pub(super) listen: Vec<Listen>,
    /// What connections over TLS are made with from now on.
    pub(super) security: watch::Sender<Security>,
}

/// Whom the desk can speak to.
pub(super) struct Ways {
    /// The shard.
    pub(super) orders: mpsc::Sender<Order>,
    /// Whoever can have this process replaced, if anybody.
    pub(super) upgrade: Option<mpsc::Sender<Upgrade>>,
    /// The control socket of the process before this one, which has calls of its own.
    pub(super) elder: Option<PathBuf>,
}

/// The operators' side of a running node.
pub struct Desk {
    ways: Ways,
    config: watch::Sender<Arc<Config>>,
    configured: watch::Sender<UtcMs>,
    location: Location,
    store: store::Handle,
    media: Vec<MediaHandle>,
    listeners: Vec<String>,
    origin: Origin,
    started: Instant,
    started_at: UtcMs,
    is_draining: AtomicBool,
    /// Held by whoever reads the configuration again: what was read last must be what is used.
    reloading: Mutex<()>,
}

impl Desk {
    #[expect(clippy::too_many_arguments, reason = "called once, with everything there is")]
    pub(super) fn new(
        ways: Ways,
        config: Arc<Config>,
        location: Location,
        store: store::Handle,
        media: Vec<MediaHandle>,
        listeners: &[Listener],
        origin: Origin,
    ) -> Self {
        let started_at = UtcMs::from(SystemTime::now());
        Self {
            ways,
            config: watch::Sender::new(config),
            configured: watch::Sender::new(started_at),
            location,
            store,
            media,
            listeners: listeners
                .iter()
                .map(|l| format!("{}:{}", l.transport.param(), l.address))
                .collect(),
            origin,
            started: now(),
            started_at,
            is_draining: AtomicBool::new(false),
            reloading: Mutex::new(()),
        }
    }

    /// Returns how long calls may take to end once no new ones come.
    pub(super) fn drain_max(&self) -> Duration {
        self.config.borrow().node.drain
    }

    /// Returns what peers outside are told: what is configured, or what trunks have seen.
    fn public_ip(&self, trunks: &[TrunkRow]) -> Option<IpAddr> {
        match self.config.borrow().node.public_ip {
            PublicIp::Address(ip) => Some(ip),
            PublicIp::Auto => trunks.iter().find_map(|row| row.seen_as),
            PublicIp::Interface(_) => None,
        }
    }

    /// Sends an order that has no answer.
    pub(super) async fn order(&self, order: Order) {
        match order {
            Order::Drain(_) | Order::Leave(..) => self.is_draining.store(true, Relaxed),
            Order::Stay => self.is_draining.store(false, Relaxed),
            Order::Configure(_)
            | Order::Stop
            | Order::HangUp(..)
            | Order::Calls(_)
            | Order::Call(..)
            | Order::Ladder(..)
            | Order::Trunks(_)
            | Order::Budgets(_)
            | Order::ResetBudget(..)
            | Order::Bans(_)
            | Order::Lift(..)
            | Order::CallsOf(..)
            | Order::Pulses(_)
            | Order::Counters(_) => {}
        }
        // A shard that is gone has drained.
        let _ = self.ways.orders.send(order).await;
    }

    /// Asks the shard; the default where it is gone.
    async fn ask_shard<T: Default>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> T {
        self.try_ask_shard(order).await.unwrap_or_default()
    }

    async fn try_ask_shard<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.order(order(reply)).await;
        answer.await.ok()
    }

    async fn status(&self) -> StatusReport {
        let (shard, transports) = self.ask_shard(Order::Counters).await;
        let media = self.media_counters();
        let node = self.config.borrow().node.name.to_string();
        let configured = *self.configured.borrow();
        let trunks = self.trunks().await;
        StatusReport {
            node,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started_at,
            uptime_s: now().saturating_duration_since(self.started).as_secs(),
            configured,
            listeners: self.listeners.clone(),
            public_ip: self.public_ip(&trunks),
            certificates: self.certificates(),
            is_draining: self.is_draining.load(Relaxed),
            calls: call_counts(&shard),
            phones: self.location.count(SystemTime::now()).0,
            ports: PortCounts { used: media.ports_used, total: media.ports_total },
            signalling: signalling(&shard, &transports),
            store: self.store.report(),
            trunks,
        }
    }

    fn certificates(&self) -> Vec<CertificateRow> {
        let wall = SystemTime::now();
        let config = self.config.borrow();
        let row = |(of, validity): (String, Validity)| CertificateRow {
            of,
            left_s: validity.seconds_left(wall),
        };
        config.certificates().map(row).collect()
    }

    async fn trunks(&self) -> Vec<TrunkRow> {
        self.ask_shard(Order::Trunks).await
    }

    async fn phones(&self) -> Vec<PhoneRow> {
        let config = self.config.borrow().clone();
        let names: Vec<Box<str>> = config.users.keys().cloned().collect();
        let counts = self.ask_shard(|reply| Order::CallsOf(names, reply)).await;
        let pulses = self.ask_shard(Order::Pulses).await;
        let wall = SystemTime::now();
        let row = |(user, calls): (&Arc<crate::config::User>, u64)| PhoneRow {
            user: (&*user.name).into(),
            name: user.display.as_deref().map(str::to_owned),
            contacts: self
                .location
                .find(&user.name, wall)
                .iter()
                .map(|b| contact(b, &pulses, wall))
                .collect(),
            calls,
        };
        let calls = counts.into_iter().chain(std::iter::repeat(0));
        config.users.values().zip(calls).map(row).collect()
    }

    fn media_counters(&self) -> Media {
        let mut sum = Media::default();
        for worker in &self.media {
            sum.merge(&worker.counters());
        }
        sum
    }

    /// Reads the configuration again, and uses it if it is sound: all of it or nothing. What this process
    /// cannot change, another one does, which takes over; where there can be none, that waits for a
    /// restart. A `plan` only tells what would come of it.
    async fn reload(&self, is_plan: bool) -> ReloadReport {
        let _alone = self.reloading.lock().await;
        let (mut config, problems) = match self.read_again() {
            Ok(read) => read,
            Err(problems) => return ReloadReport { problems, ..ReloadReport::default() },
        };
        let running = self.config.borrow().clone();
        let by_process = needs_process(&running, &config, &self.origin.listen);
        let is_replaceable = self.ways.upgrade.is_some();
        // Which port a 0 became is no change.
        config.sip.listen.clone_from(&running.sip.listen);
        let changes = difference(&running, &config);
        let is_applied = !is_plan;
        let mut report = ReloadReport {
            is_applied,
            is_plan,
            problems,
            changes,
            by_process,
            is_replaceable,
            process: None,
        };
        if is_plan {
            return report;
        }
        if is_replaceable && !report.by_process.is_empty() {
            return match self.upgrade().await {
                Ok(process) => ReloadReport { process: Some(process), ..report },
                Err(why) => {
                    report.problems.push(why);
                    ReloadReport { problems: report.problems, ..ReloadReport::default() }
                }
            };
        }
        let config = Arc::new(config);
        self.origin.security.send_replace(Security::new(&config));
        self.order(Order::Configure(config.clone())).await;
        self.config.send_replace(config);
        self.configured.send_replace(SystemTime::now().into());
        let (changes, restart) = (report.changes.join(", "), report.by_process.join(", "));
        tracing::info!(changes, restart, "configuration reloaded");
        report
    }

    /// Returns the configuration as the files are now, with warnings; or what is wrong with it.
    fn read_again(&self) -> Result<(Config, Vec<String>), Vec<String>> {
        let Some(file) = &self.origin.file else {
            return Err(vec!["this tandem was not started from a configuration file".to_owned()]);
        };
        let checked = config_files::load(file);
        let mut problems = checked.report.problems();
        let Some(config) = checked.config else { return Err(problems) };
        match with_public_ip(config) {
            Ok(config) => Ok((config, problems)),
            Err(error) => {
                problems.push(error.to_string());
                Err(problems)
            }
        }
    }
}

fn signalling(shard: &Shard, transports: &Transports) -> SignallingCounts {
    SignallingCounts {
        transactions: shard.kept.transactions,
        dialogs: shard.kept.dialogs,
        connections: transports.connections.saturating_add(transports.tls_connections),
        retransmissions: shard.retransmissions,
        timeouts: shard.timeouts,
        send_errors: transports.send_errors.total(),
        discarded: shard.discards.total(),
        overrun: transports.ingress_dropped,
        faults: shard.panics,
    }
}

fn call_counts(shard: &Shard) -> CallCounts {
    let ended: u64 = shard.calls.ended.values().sum();
    let refused = shard.calls.ended.iter().filter(|((_, outcome), _)| outcome.word() == "refused");
    CallCounts {
        ringing: shard.ringing,
        talking: shard.talking,
        total: ended.saturating_add(shard.ringing).saturating_add(shard.talking),
        failed: refused.map(|(_, n)| n).sum(),
    }
}

fn contact(binding: &Binding, pulses: &Pulses, wall: SystemTime) -> ContactRow {
    let key = (binding.aor.clone(), binding.contact.clone());
    let pulse = pulses.get(&key).copied().unwrap_or_default();
    ContactRow {
        contact: binding.contact.to_string(),
        flow: binding.flow.to_string(),
        user_agent: binding.user_agent.as_deref().map(str::to_owned),
        expires_s: binding.remaining_s(wall),
        rtt_ms: pulse.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
        missed_pings: pulse.missed,
    }
}

/// Names the sections whose changes are for a new process.
fn needs_process(running: &Config, new: &Config, listen: &[Listen]) -> Vec<String> {
    [
        ("[sip] listen", listen != new.sip.listen),
        ("[sip] dscp", running.sip.dscp != new.sip.dscp),
        (
            "[rtp] ports and workers",
            running.rtp.ports != new.rtp.ports || running.rtp.workers != new.rtp.workers,
        ),
        ("[rtp] dscp", running.rtp.dscp != new.rtp.dscp),
        ("[rtp] kernel", running.rtp.kernel != new.rtp.kernel),
        ("[http]", running.http != new.http),
        ("[store]", running.store != new.store),
        ("[log]", running.log != new.log),
        ("[control]", running.control != new.control),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(what, _)| what.to_owned())
    .collect()
}

impl Desk {
    /// Lists the calls, also those of the process before this one.
    async fn calls(&self) -> Vec<CallSummary> {
        let mut calls = self.ask_shard(Order::Calls).await;
        if let Some(Response::Calls(elders)) = self.ask_elder(&Request::Calls).await {
            calls.extend(elders);
        }
        calls
    }

    /// Asks the process before this one; `None` where there is none, or no more.
    async fn ask_elder(&self, request: &Request) -> Option<Response> {
        let elder = self.ways.elder.as_ref()?;
        control::ask(elder, request).await.ok()
    }

    /// Asks the process before this one about a call of which this one knows nothing.
    async fn ask_elder_instead(&self, request: &Request, response: Response) -> Response {
        if !matches!(response, Response::NotFound(_)) {
            return response;
        }
        self.ask_elder(request).await.unwrap_or(response)
    }

    async fn lift(&self, addresses: &str) -> Response {
        let network = match Network::parse(addresses) {
            Ok(network) => network,
            Err(error) => return Response::Refused(format!("`{addresses}`: {error}")),
        };
        match self.ask_shard(|reply| Order::Lift(network, reply)).await {
            0 => Response::NotFound(format!("nobody at {network} is banned")),
            _ => Response::Done(format!("{network} is answered again")),
        }
    }

    /// Has this process replaced. Returns the number of the one that serves now, or why there is none.
    async fn upgrade(&self) -> Result<u32, String> {
        let Some(upgrade) = &self.ways.upgrade else {
            let why = "this process cannot be replaced: it is the container, or not `tandem run`";
            return Err(format!("{why} (help: restart it)"));
        };
        let (reply, answer) = oneshot::channel();
        if upgrade.try_send(reply).is_err() {
            return Err("another upgrade is under way".to_owned());
        }
        answer.await.unwrap_or_else(|_| Err("this process ends".to_owned()))
    }

    /// Answers from this process alone.
    async fn ask_here(&self, request: Request) -> Response {
        match request {
            Request::Status => Response::Status(Box::new(self.status().await)),
            Request::Calls => Response::Calls(self.calls().await),
            Request::CallShow { call } => {
                match self.ask_shard(|reply| Order::Call(call, reply)).await {
                    Some(detail) => Response::Call(Box::new(detail)),
                    None => Response::NotFound(format!("there is no call {call}")),
                }
            }
            Request::CallLadder { call } => {
                match self.ask_shard(|reply| Order::Ladder(call, reply)).await {
                    Some(rungs) => Response::Ladder(rungs),
                    None => Response::NotFound(format!(
                        "there is no ladder of {call}: there was no such call, or there were too many to draw them all"
                    )),
                }
            }
            Request::CallExplain { call } => {
                match self.ask_shard(|reply| Order::Call(call, reply)).await {
                    Some(detail) => Response::Story(Box::new(Story::of_running(&detail))),
                    None => Response::NotFound(format!("there is no call {call}")),
                }
            }
            Request::Phones => Response::Phones(self.phones().await),
            Request::Trunks => Response::Trunks(self.trunks().await),
            Request::Budgets => Response::Budgets(self.ask_shard(Order::Budgets).await),
            Request::ResetBudget { kind, name } => {
                let account = match &*kind {
                    "trunk" => Account::Trunk(name.into()),
                    _ => Account::User(name.into()),
                };
                match self.ask_shard(|reply| Order::ResetBudget(account.clone(), reply)).await {
                    true => Response::Done(format!("{account} begins anew")),
                    false => Response::NotFound(format!("{account} has used nothing")),
                }
            }
            Request::Bans => Response::Bans(self.ask_shard(Order::Bans).await),
            Request::Lift { addresses } => self.lift(&addresses).await,
            Request::Cdr(_) => Response::Refused("the store answers this".to_owned()),
            Request::Upgrade => match self.upgrade().await {
                Ok(process) => Response::Done(format!(
                    "process {process} serves; this one ends with the last of its calls"
                )),
                Err(why) => Response::Refused(why),
            },
            Request::Reload => Response::Reload(self.reload(false).await),
            Request::PlanReload => Response::Reload(self.reload(true).await),
            Request::Drain { within_s } => {
                let within = within_s.map_or_else(|| self.drain_max(), Duration::from_secs);
                self.order(Order::Drain(Some(within))).await;
                Response::Done(format!(
                    "new calls are refused; tandem ends with the last call, in {} s at the latest",
                    within.as_secs()
                ))
            }
            Request::Hangup { call } => {
                match self.ask_shard(|reply| Order::HangUp(call, reply)).await {
                    true => Response::Done(format!("{call} is being hung up")),
                    false => Response::NotFound(format!("there is no call {call}")),
                }
            }
        }
    }
}

impl Admin for Desk {
    async fn ask(&self, request: Request) -> Response {
        let response = self.ask_here(request.clone()).await;
        self.ask_elder_instead(&request, response).await
    }
}

impl Inspect for Desk {
    fn readiness(&self) -> Readiness {
        Readiness {
            has_listeners: !self.listeners.is_empty(),
            is_store_open: self.store.is_open(),
            is_draining: self.is_draining.load(Relaxed),
        }
    }

    async fn alive(&self) {
        let counters: Option<(Shard, Transports)> = self.try_ask_shard(Order::Counters).await;
        if counters.is_none() || !self.media.iter().all(MediaHandle::is_alive) {
            // Whoever asks gives up in the end, which is the answer.
            std::future::pending().await
        }
    }

    async fn snapshot(&self) -> Snapshot {
        let (shard, transports) = self.ask_shard(Order::Counters).await;
        Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: now().saturating_duration_since(self.started).as_secs(),
            is_draining: self.is_draining.load(Relaxed),
            shard,
            media: self.media_counters(),
            transports,
            store: self.store.counters(),
            contacts: self.location.count(SystemTime::now()).1,
            certificates: self.certificates(),
            trunks: self.trunks().await,
        }
    }
}
