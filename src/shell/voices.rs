//! Voices of simulated calls on real sockets.
//!
//! Owns: a UDP socket and a task for each voice.
//! Never: knows which call it speaks in.

use super::now;
use crate::sim::{
    Agreement,
    twilio::Packet,
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
    /// Go on as another stream: with another SSRC, from another port.
    Renew,
}

/// As many packets alike are told of: half a second, within which the peer may have moved rightly.
const ALIKE: u32 = 25;

/// Whoever wants to know what comes from where.
pub(super) type Judge = Box<dyn Fn(Packet) + Send>;

/// What has come so far, as its judge sees it.
struct Watch {
    judge: Judge,
    last: Option<Packet>,
    alike: u32,
}

impl Watch {
    fn note(&mut self, source: SocketAddr, packet: &[u8]) {
        let Some(second) = packet.get(1) else { return };
        let packet = Packet { source, ttl: None, payload_type: second & 0x7f };
        self.alike = if self.last == Some(packet) { self.alike.saturating_add(1) } else { 1 };
        self.last = Some(packet);
        if self.alike == ALIKE {
            (self.judge)(packet);
        }
    }
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
        Self::launch(voice, ip, None).await
    }

    /// The same, telling somebody what comes from where.
    pub(super) async fn start_judged(voice: Voice, ip: IpAddr, judge: Judge) -> io::Result<Self> {
        Self::launch(voice, ip, Some(Watch { judge, last: None, alike: 0 })).await
    }

    async fn launch(voice: Voice, ip: IpAddr, watch: Option<Watch>) -> io::Result<Self> {
        let socket = UdpSocket::bind((ip, 0)).await?;
        let local = socket.local_addr()?;
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        let (publish, report) = watch::channel(Report::default());
        let task = tokio::spawn(run(voice, (socket, watch), queue, publish));
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
    (socket, mut watch): (UdpSocket, Option<Watch>),
    mut orders: mpsc::Receiver<Order>,
    publish: watch::Sender<Report>,
) {
    let mut buffer = vec![0; PACKET_MAX];
    // Where it speaks from, once that is not where it listens.
    let mut mouth = None;
    loop {
        while let Some((to, packet)) = voice.poll_transmit() {
            let from = mouth.as_ref().unwrap_or(&socket);
            if let Err(error) = from.send_to(&packet, to).await {
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
                Some(Order::Renew) => {
                    voice.renew();
                    mouth = elsewhere(&socket).await;
                }
                None => return,
            },
            received = socket.recv_from(&mut buffer) => match received {
                Ok((len, source)) => {
                    let packet = buffer.get(..len).unwrap_or_default();
                    if let Some(watch) = &mut watch {
                        watch.note(source, packet);
                    }
                    voice.receive(packet);
                }
                Err(error) => tracing::debug!(%error, "voice receive failed"),
            },
        }
    }
}

/// Binds another port of the same address; `None` where there is none.
async fn elsewhere(socket: &UdpSocket) -> Option<UdpSocket> {
    let ip = socket.local_addr().ok()?.ip();
    UdpSocket::bind((ip, 0)).await.ok()
}

async fn sleep_to(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc as std_mpsc;

    /// Half a second of the same is told once; a few of something else are not.
    #[test]
    fn a_judge_hears_of_what_lasts() {
        let (told, heard) = std_mpsc::channel();
        let judge = Box::new(move |packet: Packet| told.send(packet).unwrap());
        let mut watch = Watch { judge, last: None, alike: 0 };
        let source = |port| SocketAddr::from(([127, 0, 0, 1], port));
        for port in [4000, 4002, 4000] {
            let count = if port == 4002 { 5 } else { 60 };
            (0..count).for_each(|_| watch.note(source(port), &[0x80, 0x80]));
        }
        let told: Vec<Packet> = heard.try_iter().collect();
        let packet = Packet { source: source(4000), ttl: None, payload_type: 0 };
        assert_eq!(told, [packet, packet]);
    }
}
