//! Runs a simulated peer on a real socket: what the simulated world does, with real time.
//!
//! Owns: the peer, its UDP socket, the task that drives both.
//! Never: knows what the peer is.

use super::now;
use crate::{
    ids::{Flow, Transport},
    sim::Node,
};
use bytes::Bytes;
use std::{future::pending, io, net::SocketAddr, time::Instant};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::sleep_until,
};

/// Steps that may wait for the peer.
const STEPS_MAX: usize = 64;
const DATAGRAM_MAX: usize = 65_535;

type Step<N> = Box<dyn FnOnce(&mut N, Instant) + Send>;

/// A running peer. It ends when this is dropped.
pub(super) struct Host<N> {
    steps: mpsc::Sender<Step<N>>,
    task: JoinHandle<()>,
}

impl<N: Node + Send> Host<N> {
    /// Starts the peer on a socket; whoever made the peer knows the socket's address.
    ///
    /// `after` is called after every step, for what the peer has to tell.
    pub(super) fn start(
        node: N,
        socket: UdpSocket,
        after: impl FnMut(&mut N) + Send + 'static,
    ) -> io::Result<Self> {
        let local = socket.local_addr()?;
        let (steps, queue) = mpsc::channel(STEPS_MAX);
        let task = tokio::spawn(run(node, socket, local, queue, after));
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
    socket: UdpSocket,
    local: SocketAddr,
    mut steps: mpsc::Receiver<Step<N>>,
    mut after: impl FnMut(&mut N),
) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        after(&mut node);
        while let Some((flow, bytes)) = node.poll_transmit() {
            if let Err(error) = socket.send_to(&bytes, flow.remote).await {
                tracing::debug!(%flow, %error, "send failed");
            }
        }
        let deadline = node.poll_timeout();
        tokio::select! {
            biased;
            () = sleep_to(deadline) => node.handle_timeout(now()),
            step = steps.recv() => match step {
                Some(step) => step(&mut node, now()),
                None => return,
            },
            received = socket.recv_from(&mut buffer) => match received {
                Ok((len, remote)) => {
                    let bytes = Bytes::copy_from_slice(buffer.get(..len).unwrap_or_default());
                    let flow = Flow { transport: Transport::Udp, local, remote };
                    node.receive(flow, bytes, now());
                }
                Err(error) => tracing::debug!(%error, "receive failed"),
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
