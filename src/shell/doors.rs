//! Everything through which somebody new comes in: listeners for connections, operators, monitors.
//!
//! Owns: these sockets, and the tasks behind them while they are open.
//! Never: reads datagrams; the shard's thread does.

use super::{
    control::{Control, ControlError},
    desk::Desk,
    http,
    listeners::Bound,
    routes::Listener,
    store,
    stream::Opener,
};
use crate::ids::Transport;
use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// How long the control socket may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// The sockets of a node, and who works behind them.
pub(super) struct Doors {
    listeners: Vec<Listener>,
    /// In the order of those of `listeners` that are for datagrams.
    udp: Vec<UdpSocket>,
    /// In the order of the others.
    streams: Vec<(Transport, TcpListener)>,
    http: Option<TcpListener>,
    control: PathBuf,
    opener: Opener,
    desk: Arc<Desk>,
    store: store::Handle,
    tasks: Vec<JoinHandle<()>>,
    /// While the control socket is open.
    open: Option<watch::Sender<bool>>,
}

/// What is behind the doors.
pub(super) struct Behind {
    pub(super) opener: Opener,
    pub(super) desk: Arc<Desk>,
    pub(super) store: store::Handle,
}

impl Doors {
    /// Takes the sockets; nobody comes in yet. Of the datagram sockets it keeps copies, for a process that
    /// takes over.
    pub(super) fn new(
        bound: &Bound,
        http: Option<TcpListener>,
        control: &Path,
        behind: Behind,
    ) -> io::Result<Self> {
        let udp = bound.udp.iter().map(UdpSocket::try_clone).collect::<io::Result<_>>()?;
        let streams = bound.streams.iter();
        let streams = streams.map(|(transport, listener)| Ok((*transport, listener.try_clone()?)));
        let Behind { opener, desk, store } = behind;
        Ok(Self {
            listeners: bound.listeners.clone(),
            udp,
            streams: streams.collect::<io::Result<_>>()?,
            http,
            control: control.to_owned(),
            opener,
            desk,
            store,
            tasks: vec![],
            open: None,
        })
    }

    /// Returns where is listened for SIP.
    pub(super) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Returns where HTTP is answered, if it is.
    pub(super) fn http(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Returns where operators come in.
    pub(super) fn control(&self) -> &Path {
        &self.control
    }

    /// Returns every socket: those of `listeners` in their order, then that of HTTP.
    pub(super) fn sockets(&self) -> Vec<BorrowedFd<'_>> {
        let mut udp = self.udp.iter();
        let mut streams = self.streams.iter();
        let of = |listener: &Listener| match listener.transport {
            Transport::Udp => udp.next().map(AsFd::as_fd),
            Transport::Tcp | Transport::Tls => streams.next().map(|(_, listener)| listener.as_fd()),
        };
        let sip: Vec<_> = self.listeners.iter().filter_map(of).collect();
        sip.into_iter().chain(self.http.as_ref().map(AsFd::as_fd)).collect()
    }

    /// Lets everybody in.
    ///
    /// # Errors
    /// If the runtime does not take a socket.
    pub(super) fn open(&mut self, control: Control) -> io::Result<()> {
        for (transport, listener) in &self.streams {
            let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
            self.tasks.push(tokio::spawn(self.opener.clone().accept(*transport, listener)));
        }
        if let Some(listener) = &self.http {
            let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
            self.tasks.push(tokio::spawn(serve_http(listener, self.desk.clone())));
        }
        let (open, mut is_open) = watch::channel(true);
        let (desk, store) = (self.desk.clone(), self.store.clone());
        let closing = async move { _ = is_open.wait_for(|is_open| !is_open).await };
        tokio::spawn(control.serve_until(desk, store, closing));
        self.open = Some(open);
        Ok(())
    }

    /// The same again after [`Self::close`].
    ///
    /// # Errors
    /// If the control socket is another's by now.
    pub(super) fn open_again(&mut self) -> Result<(), ControlError> {
        let control = Control::bind(&self.control)?;
        self.open(control).map_err(|error| ControlError::Io { path: self.control.clone(), error })
    }

    /// Lets nobody in any more. Who is inside stays: connections, operators who wait for an answer.
    pub(super) async fn close(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            // Once it has ended its socket is closed.
            let _ = task.await;
        }
        if let Some(open) = self.open.take() {
            open.send_replace(false);
            // The other end goes when the file has gone.
            if timeout(CLOSE_MAX, open.closed()).await.is_err() {
                tracing::error!("control socket does not close");
            }
        }
    }

    /// Closes what another process has now: where it listens no more, nobody may wait to be let in.
    pub(super) fn give_up(&mut self) {
        self.udp.clear();
        self.streams.clear();
        self.http = None;
    }

    /// Answers operators elsewhere from now on: of calls that stay in this process.
    pub(super) fn open_aside(&mut self, control: Control) {
        let (desk, store) = (self.desk.clone(), self.store.clone());
        self.tasks.push(tokio::spawn(control.serve(desk, store)));
    }
}

async fn serve_http(listener: tokio::net::TcpListener, desk: Arc<Desk>) {
    if let Ok(address) = listener.local_addr() {
        tracing::info!(transport = "http", %address, "listening");
    }
    if let Err(error) = http::serve(listener, desk).await {
        tracing::error!(%error, "http server ended");
    }
}
