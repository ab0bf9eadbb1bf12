//! A node as a service: readiness, watchdog and signals.
//!
//! Owns: what each signal means.
//! Never: exits by itself; the caller returns.

use super::{
    control::Admin,
    desk::Desk,
    node::{Node, Upgrade},
    shard_loop::Order,
    succession,
};
use crate::observe::status::{Request, Response};
use sd_notify::NotifyState;
use std::{io, sync::Arc, time::Duration};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

/// How often the watchdog is fed where nobody says how often it wants to be.
const WATCHDOG_DEFAULT: Duration = Duration::from_secs(3600);

/// How a service came to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// As it was told.
    Told,
    /// By itself: our bug. Whoever watches over us should start us again.
    Died,
}

/// Runs until SIGTERM or SIGINT, or until a drain has finished. SIGHUP reads the configuration again;
/// a first SIGTERM drains, a second one, or SIGINT, ends at once. SIGUSR2 lets the program that is
/// installed now take over; from then on this process is nobody's but its calls'.
pub async fn run_until_told(mut node: Node, mut signals: Signals) -> End {
    let desk = node.desk();
    notify(&[NotifyState::Ready, NotifyState::MainPid(std::process::id())]);
    let mut systemd = Systemd::Ours(tokio::spawn(feed_watchdog(desk.clone())));
    let mut is_draining = false;
    let mut upgrades = node.take_upgrades();
    let end = loop {
        let what = tokio::select! {
            is_drained = node.drained().wait() => What::Drained(is_drained),
            what = signals.next() => what,
            Some(upgrade) = next(&mut upgrades) => What::Upgrade(Some(upgrade)),
        };
        match what {
            What::Drained(true) | What::End => break End::Told,
            What::Drained(false) => {
                tracing::error!("shard died");
                break End::Died;
            }
            What::Terminate if is_draining => break End::Told,
            What::Terminate => {
                is_draining = true;
                systemd.tell(&[NotifyState::Stopping]);
                tracing::info!("draining");
                desk.order(Order::Drain(Some(desk.drain_max()))).await;
            }
            // It may want an upgrade, which is for this loop.
            What::Reload => _ = tokio::spawn(reload(desk.clone())),
            What::Upgrade(_) if upgrades.is_none() => {
                tracing::error!(
                    "not handed over: the first process of a container is the container"
                );
            }
            What::Upgrade(reply) => upgrade(&mut node, &mut systemd, reply).await,
        }
    };
    systemd.tell(&[NotifyState::Stopping]);
    node.stop().await;
    end
}

/// What is to be done next.
enum What {
    /// The shard has ended: as it should, or not.
    Drained(bool),
    Terminate,
    End,
    Reload,
    /// And whom to tell how it went.
    Upgrade(Option<Upgrade>),
}

async fn next(upgrades: &mut Option<mpsc::Receiver<Upgrade>>) -> Option<Upgrade> {
    match upgrades {
        Some(upgrades) => upgrades.recv().await,
        None => None,
    }
}

async fn reload(desk: Arc<Desk>) {
    if let Response::Reload(report) = desk.ask(Request::Reload).await
        && !report.is_applied
    {
        tracing::error!(problems = report.problems.join("; "), "reload refused");
    }
}

async fn upgrade(node: &mut Node, systemd: &mut Systemd, reply: Option<Upgrade>) {
    tracing::info!("handing over");
    let result = succession::hand_over(node).await;
    match &result {
        Ok(pid) => {
            tracing::info!(pid, "handed over");
            systemd.leave_to(*pid);
        }
        Err(error) => tracing::error!(%error, "not handed over"),
    }
    if let Some(reply) = reply {
        // An operator who has left is no error.
        let _ = reply.send(result.map_err(|error| error.to_string()));
    }
}

/// Whom systemd listens to.
enum Systemd {
    /// This process, which feeds the watchdog.
    Ours(JoinHandle<()>),
    /// The one that took over.
    Theirs,
}

impl Systemd {
    fn tell(&self, states: &[NotifyState<'_>]) {
        match self {
            Self::Ours(_) => notify(states),
            Self::Theirs => {}
        }
    }

    /// Only the main process can say which the next one is.
    fn leave_to(&mut self, pid: u32) {
        self.tell(&[NotifyState::MainPid(pid)]);
        if let Self::Ours(watchdog) = std::mem::replace(self, Self::Theirs) {
            watchdog.abort();
        }
    }
}

/// Only a shard that answers is alive.
async fn feed_watchdog(desk: Arc<Desk>) {
    let mut watchdog = interval(watchdog_interval());
    watchdog.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        watchdog.tick().await;
        super::http::Inspect::alive(&*desk).await;
        notify(&[NotifyState::Watchdog]);
    }
}

/// The signals that mean something. Listened to before anybody can know of the process: what nobody listens to would
/// kill it.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    upgrade: Signal,
}

impl Signals {
    /// Listens to them, in the runtime in which this is called.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits until the process is told to end, for as long as there is nothing to be drained.
    pub async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    async fn next(&mut self) -> What {
        tokio::select! {
            _ = self.interrupt.recv() => What::End,
            _ = self.terminate.recv() => What::Terminate,
            _ = self.hangup.recv() => What::Reload,
            _ = self.upgrade.recv() => What::Upgrade(None),
        }
    }
}

/// systemd wants a sign of life twice as often as it says.
fn watchdog_interval() -> Duration {
    sd_notify::watchdog_enabled().map_or(WATCHDOG_DEFAULT, |wanted| wanted / 2)
}

fn notify(states: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(states);
}
