//! A node as a service: readiness, watchdog and signals.
//!
//! Owns: what each signal means.
//! Never: exits by itself; the caller returns.

use super::{control::Admin, node::Node, shard_loop::Order};
use crate::observe::status::{Request, Response};
use sd_notify::NotifyState;
use std::time::Duration;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
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
/// a first SIGTERM drains, a second one, or SIGINT, ends at once.
pub async fn run_until_told(node: Node) -> End {
    let signals = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    let Some([mut terminate, mut interrupt, mut hangup]) = listen(signals) else {
        return End::Died;
    };
    let desk = node.desk();
    notify(&[NotifyState::Ready]);
    let mut watchdog = interval(watchdog_interval());
    watchdog.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_draining = false;
    let end = loop {
        tokio::select! {
            is_drained = node.drained().wait() => match is_drained {
                true => break End::Told,
                false => {
                    tracing::error!("shard died");
                    break End::Died;
                }
            },
            _ = interrupt.recv() => break End::Told,
            _ = terminate.recv() => {
                if is_draining {
                    break End::Told;
                }
                is_draining = true;
                notify(&[NotifyState::Stopping]);
                tracing::info!("draining");
                desk.order(Order::Drain).await;
            }
            _ = hangup.recv() => {
                if let Response::Reload(report) = desk.ask(Request::Reload).await
                    && !report.is_applied
                {
                    tracing::error!(problems = report.problems.join("; "), "reload refused");
                }
            }
            // Only a shard that answers is alive.
            _ = watchdog.tick() => {
                let desk = desk.clone();
                tokio::spawn(async move {
                    super::http::Inspect::alive(&*desk).await;
                    notify(&[NotifyState::Watchdog]);
                });
            }
        }
    };
    notify(&[NotifyState::Stopping]);
    node.stop().await;
    end
}

fn listen(kinds: [SignalKind; 3]) -> Option<[Signal; 3]> {
    let [a, b, c] = kinds.map(signal);
    match (a, b, c) {
        (Ok(a), Ok(b), Ok(c)) => Some([a, b, c]),
        (a, b, c) => {
            for error in [a.err(), b.err(), c.err()].into_iter().flatten() {
                tracing::error!(%error, "no signal handler");
            }
            None
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
