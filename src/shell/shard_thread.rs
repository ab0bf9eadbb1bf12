//! The thread of a shard, with a runtime of its own: nothing else runs in it.
//!
//! Owns: the thread, its start and its end.
//! Never: handles a message; `shard_loop` does.

use super::{
    routes::Routes,
    shard_loop::{Ears, Hands, ShardLoop},
    succession::Inherited,
    udp::Udp,
};
use crate::{config::Config, shard::Shard};
use std::{
    io,
    net::UdpSocket,
    sync::Arc,
    thread::{self, JoinHandle},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{oneshot, watch},
};

/// What a shard's thread begins with.
pub(super) struct Plan {
    pub(super) shard: Shard,
    pub(super) hands: Hands,
    pub(super) ears: Ears,
    pub(super) udp: Vec<UdpSocket>,
    pub(super) routes: Routes,
    pub(super) config: Arc<Config>,
    /// What the process before this one leaves.
    pub(super) inherited: Option<Inherited>,
}

/// A running shard.
pub(super) struct ShardThread {
    thread: JoinHandle<()>,
    /// Becomes true when the loop has ended as it should; closed without, it died.
    pub(super) ended: watch::Receiver<bool>,
}

impl ShardThread {
    /// Starts it; returns once it listens.
    pub(super) async fn start(plan: Plan) -> io::Result<Self> {
        let (end, ended) = watch::channel(false);
        let (begin, begun) = oneshot::channel();
        let thread = thread::Builder::new().name("shard-0".into()).spawn(move || {
            let Plan { shard, hands, ears, udp, routes, config, mut inherited } = plan;
            let elders = inherited.as_mut().map(|left| std::mem::take(&mut left.elders));
            match prepare(udp, elders.unwrap_or_default(), routes) {
                Ok((runtime, udp)) => {
                    let mut shard = ShardLoop::new(shard, hands, udp);
                    shard.know_peers(&config);
                    if let Some(inherited) = inherited {
                        shard.inherit(inherited);
                    }
                    // Whoever started it has given up.
                    _ = begin.send(Ok(()));
                    runtime.block_on(shard.run(ears));
                    end.send_replace(true);
                }
                Err(error) => _ = begin.send(Err(error)),
            }
        })?;
        begun.await.unwrap_or_else(|_| Err(io::Error::other("the thread died")))?;
        Ok(Self { thread, ended })
    }

    /// Returns once the thread has ended.
    pub(super) async fn join(mut self) {
        // Closed where it died, which is the end as well.
        _ = self.ended.wait_for(|ended| *ended).await;
        if self.thread.join().is_err() {
            tracing::error!("shard thread panicked");
        }
    }
}

fn prepare(
    sockets: Vec<UdpSocket>,
    elders: Vec<UdpSocket>,
    routes: Routes,
) -> io::Result<(Runtime, Udp)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let mut udp = Udp::new(sockets, routes)?;
    udp.read_for_elder(elders)?;
    drop(guard);
    Ok((runtime, udp))
}
