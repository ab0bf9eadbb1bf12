//! Runs a simulated peer on real sockets: what the simulated world does, with real time.
//!
//! Owns: the peer, and the task that drives it.
//! Never: knows what the peer is.

use super::{
    now,
    wires::{Arrival, Security, Sockets, Wires},
};
use crate::sim::Node;
use std::{future::pending, io, time::Instant};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::sleep_until,
};

/// Steps that may wait for the peer.
const STEPS_MAX: usize = 64;

type Step<N> = Box<dyn FnOnce(&mut N, Instant) + Send>;

/// A running peer. It ends when this is dropped.
pub(super) struct Host<N> {
    steps: mpsc::Sender<Step<N>>,
    task: JoinHandle<()>,
}

impl<N: Node + Send> Host<N> {
    /// Starts the peer on its sockets; whoever made the peer knows their addresses.
    ///
    /// `after` is called after every step, for what the peer has to tell.
    pub(super) fn start(
        node: N,
        (sockets, security): (Sockets, Security),
        after: impl FnMut(&mut N) + Send + 'static,
    ) -> io::Result<Self> {
        let wires = Wires::start(sockets, security)?;
        let (steps, queue) = mpsc::channel(STEPS_MAX);
        let task = tokio::spawn(run(node, wires, queue, after));
        Ok(Self { steps, task })
    }

    /// Does something with the peer and returns the outcome; `None` once the peer has ended.
    pub(super) async fn with<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut N, Instant) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, outcome) = oneshot::channel();
        let step: Step<N> = Box::new(move |node, now| _ = reply.send(step(node, now)));
        self.steps.send(step).await.ok()?;
        outcome.await.ok()
    }
}

impl<N> Drop for Host<N> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run<N: Node>(
    mut node: N,
    mut wires: Wires,
    mut steps: mpsc::Receiver<Step<N>>,
    mut after: impl FnMut(&mut N),
) {
    loop {
        after(&mut node);
        while let Some((flow, bytes)) = node.poll_transmit() {
            wires.send(flow, bytes).await;
        }
        while let Some(flow) = node.poll_close() {
            wires.close(flow);
        }
        let deadline = node.poll_timeout();
        tokio::select! {
            biased;
            () = sleep_to(deadline) => node.handle_timeout(now()),
            step = steps.recv() => match step {
                Some(step) => step(&mut node, now()),
                None => return,
            },
            arrival = wires.arrival() => match arrival {
                Some(Arrival::Message(flow, bytes)) => node.receive(flow, bytes, now()),
                Some(Arrival::Closed(flow)) => node.closed(flow, now()),
                Some(Arrival::Shaken(flow, shaken)) => node.secured(flow, shaken),
                Some(Arrival::Opened(..)) => {}
                None => return,
            },
        }
    }
}

async fn sleep_to(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}
