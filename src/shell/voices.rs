//! Voices of simulated calls on real sockets.
//!
//! Owns: a UDP socket and a task for each voice.
//! Never: knows which call it speaks in.

use super::now;
use crate::sim::{
    Agreement,
    voice::{Report, Voice},
};
use std::{
    future::pending,
    io,
    net::{IpAddr, SocketAddr},
    time::Instant,
};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::sleep_until,
};

/// No voice packet is larger.
const PACKET_MAX: usize = 2048;

/// Orders that may wait for a voice.
const ORDERS_MAX: usize = 16;

/// What a voice is told.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// Speak to this peer.
    Aim(Agreement),
    /// Fall silent until the next one.
    Hush,
    /// Press these keys.
    Press(Box<str>),
}

/// A running voice. It falls silent when this is dropped.
#[derive(Debug)]
pub(super) struct Speaker {
    /// Where it wants its RTP.
    pub(super) local: SocketAddr,
    orders: mpsc::Sender<Order>,
    report: watch::Receiver<Report>,
    task: JoinHandle<()>,
}

impl Speaker {
    /// Binds a free port of this address.
    pub(super) async fn start(voice: Voice, ip: IpAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind((ip, 0)).await?;
        let local = socket.local_addr()?;
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        let (publish, report) = watch::channel(Report::default());
        let task = tokio::spawn(run(voice, socket, queue, publish));
        Ok(Self { local, orders, report, task })
    }

    /// Returns the way to give it orders.
    pub(super) fn orders(&self) -> mpsc::Sender<Order> {
        self.orders.clone()
    }

    /// Gives it an order.
    pub(super) fn order(&self, order: Order) {
        // A voice that is so far behind will hear of a later one.
        let _ = self.orders.try_send(order);
    }

    /// Returns what it has heard so far.
    pub(super) fn report(&self) -> Report {
        self.report.borrow().clone()
    }

    /// Waits until it has seen this much, or its time is up.
    pub(super) async fn until(&self, is_enough: impl Fn(&Report) -> bool, by: Instant) -> bool {
        let mut report = self.report.clone();
        let wait = report.wait_for(|report| is_enough(report));
        tokio::time::timeout_at(by.into(), wait).await.is_ok_and(|found| found.is_ok())
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    mut voice: Voice,
    socket: UdpSocket,
    mut orders: mpsc::Receiver<Order>,
    publish: watch::Sender<Report>,
) {
    let mut buffer = vec![0; PACKET_MAX];
    loop {
        while let Some((to, packet)) = voice.poll_transmit() {
            if let Err(error) = socket.send_to(&packet, to).await {
                tracing::debug!(%error, "voice send failed");
            }
        }
        publish.send_replace(voice.report());
        let deadline = voice.poll_timeout();
        tokio::select! {
            biased;
            () = sleep_to(deadline) => voice.handle_timeout(now()),
            order = orders.recv() => match order {
                Some(Order::Aim(agreed)) => voice.aim(&agreed, now()),
                Some(Order::Hush) => voice.hush(),
                Some(Order::Press(digits)) => voice.press(&digits),
                None => return,
            },
            received = socket.recv_from(&mut buffer) => match received {
                Ok((len, _)) => voice.receive(buffer.get(..len).unwrap_or_default()),
                Err(error) => tracing::debug!(%error, "voice receive failed"),
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
