//! `floor-relay`: the least that a forwarder of RTP in user space can be. One thread, epoll, a
//! connected socket per side, no look at any packet.
//!
//! Owns: its sockets. Never: reads what it forwards.

use crate::media::{sockets::raise_descriptors, way::DIRECT_PORTS};
use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    poll::ppoll,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        time::TimeSpec,
    },
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

/// What is read in one go before the kernel is asked again who is ready.
const READY_MAX: usize = 1024;
/// More than any packet of the generator.
const ROOM: usize = 2048;

/// Where, and for how many.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// The address of all its ports.
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST)]
    pub ip: Ipv4Addr,
    /// The first port: call n has those 4 n and 4 n + 2 behind it, one for either side.
    #[arg(long, default_value_t = 20_000)]
    pub port: u16,
    /// How many calls.
    #[arg(long, default_value_t = 800)]
    pub calls: usize,
    /// After each round of reading, wait so many microseconds for more.
    #[arg(long, default_value_t = 0)]
    pub coalesce: u64,
}

/// Forwards until it is killed. Says `ready` once it can.
///
/// # Errors
/// If a port is not to be had.
pub fn run(args: &Args) -> Result<()> {
    serve(args, || println!("ready"))
}

/// Forwards for ever; says so before it starts.
///
/// # Errors
/// If a port is not to be had.
pub fn serve(args: &Args, ready: impl FnOnce()) -> Result<()> {
    raise_descriptors()?;
    let mut relay = Relay::open(args)?;
    ready();
    loop {
        relay.round(EpollTimeout::NONE)?;
        if args.coalesce > 0 {
            // A signal ends it early, which harms nobody.
            _ = ppoll(&mut [], Some(TimeSpec::from(Duration::from_micros(args.coalesce))), None);
        }
    }
}

/// One of the two sockets of a call; the other one is its neighbour. Once somebody has sent to it,
/// it is connected to them.
struct Side {
    socket: UdpSocket,
    is_connected: bool,
}

struct Relay {
    epoll: Epoll,
    ready: Vec<EpollEvent>,
    sides: Vec<Side>,
    room: [u8; ROOM],
}

impl Relay {
    fn open(args: &Args) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut sides = Vec::with_capacity(args.calls * 2);
        for index in 0..args.calls * 2 {
            let port = usize::from(args.port) + index * DIRECT_PORTS / 2;
            let local = SocketAddr::new(IpAddr::V4(args.ip), u16::try_from(port)?);
            let socket = UdpSocket::bind(local).with_context(|| local.to_string())?;
            socket.set_nonblocking(true)?;
            epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
            sides.push(Side { socket, is_connected: false });
        }
        Ok(Self { epoll, ready: vec![EpollEvent::empty(); READY_MAX], sides, room: [0; ROOM] })
    }

    /// Waits until somebody is ready, and forwards one packet of each.
    fn round(&mut self, patience: EpollTimeout) -> Result<()> {
        let count = match self.epoll.wait(&mut self.ready, patience) {
            // Whoever was stopped goes on.
            Err(Errno::EINTR) => 0,
            waited => waited?,
        };
        for event in &self.ready[..count] {
            let index = event.data() as usize;
            let side = &mut self.sides[index];
            let received = if side.is_connected {
                side.socket.recv(&mut self.room)
            } else {
                side.socket.recv_from(&mut self.room).map(|(len, from)| {
                    side.is_connected = side.socket.connect(from).is_ok();
                    len
                })
            };
            let other = &self.sides[index ^ 1];
            // An error is about an earlier packet that found nobody.
            if let (Ok(len), true) = (received, other.is_connected) {
                _ = other.socket.send(&self.room[..len]);
            }
        }
        Ok(())
    }
}
