//! What a step of a call may use: the transaction layer, the clock's reading, identifiers, effects.
//!
//! Owns: nothing; it borrows from the shard for the length of one step.
//! Never: decides anything about a call.

use super::names::Names;
use crate::{
    config::{Config, PublicIp},
    dialog::{Acks, is_global},
    guard::{Ban, Watch},
    ids::{CallId, Entropy, Flow, LegId, Mint, Transport, push_address},
    media,
    network::Network,
    observe::cdr::Cdr,
    registrar::{Binding, Location},
    sip::Method,
    table::Table,
    transaction::{ClientId, Layer, Output},
    trunk::{Trunks, routes::Place},
};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Instant, SystemTime},
};

/// RFC 3261 18.1.1: a larger request goes over a congestion-controlled transport, where there is one.
pub(super) const DATAGRAM_REQUEST_MAX: usize = 1300;

/// Who a transaction, a tag or an answer belongs to.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Owner {
    /// The call.
    pub call: CallId,
    /// The leg.
    pub leg: LegId,
}

/// A question to the world outside. The answer names the same token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ask {
    /// Which addresses does this host have, and from which of ours are they reached?
    Resolve {
        /// Who asks.
        token: ResolveFor,
        /// A name or an address, without brackets.
        host: Box<str>,
        /// A port, where the URI names one.
        port: Option<u16>,
        /// How we mean to speak to it.
        transport: Transport,
    },
    /// What does this sound file hold?
    Prompt {
        /// Who asks.
        call: CallId,
        /// The file, as the dialplan names it.
        file: Box<str>,
    },
}

/// Who asked for an address.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ResolveFor {
    /// A leg that is to call it.
    Leg(Owner),
    /// A trunk, named in the configuration, of one of its places.
    Trunk(Box<str>, Place),
}

/// Something to keep.
#[derive(Clone, Debug)]
pub enum Record {
    /// A call has ended.
    Cdr(Box<Cdr>),
    /// A call goes on; this is what is known of it, should nobody be there at its end.
    Running(Box<Cdr>),
    /// A phone is reachable there.
    Bind(Box<Binding>),
    /// It no longer is.
    Unbind {
        /// The user's name.
        aor: Box<str>,
        /// The contact, as it was bound.
        contact: Box<str>,
    },
    /// Somebody is banned.
    Ban(Box<Ban>),
    /// Nobody in these addresses is any more.
    Lift(Network),
}

/// What a step wants done outside the core, in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// For the media worker that owns this call's legs.
    Media(CallId, media::Command),
    /// For a helper.
    Ask(Ask),
    /// For the store.
    Record(Record),
}

/// What stands in a Via of ours.
#[derive(Debug)]
pub struct Via {
    text: String,
    branch_at: usize,
}

impl Via {
    /// Returns the header's value.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the branch in it.
    pub fn branch(&self) -> &str {
        self.text.get(self.branch_at..).unwrap_or_default()
    }
}

/// The way out for one step.
pub struct Wire<'s> {
    /// The time.
    pub now: Instant,
    /// The time of day.
    pub wall: SystemTime,
    /// The configuration that holds for new calls.
    pub config: &'s Arc<Config>,
    /// Under which address carriers see us, where they have said so.
    pub learned: Option<IpAddr>,
    /// Makes identifiers.
    pub mint: &'s mut Mint,
    /// Makes everything else that is random.
    pub entropy: &'s mut Entropy,
    /// The transactions.
    pub tx: &'s mut Layer,
    /// The ACKs that may have to be repeated.
    pub acks: &'s mut Acks,
    /// Whose client transactions those are.
    pub owners: &'s mut Table<ClientId, Owner>,
    /// Whose dialogs and messages those are, by our tag and by Call-ID.
    pub names: &'s mut Names,
    /// Who is reachable where.
    pub location: &'s Location,
    /// The carriers.
    pub trunks: &'s mut Trunks,
    /// What the guards remember.
    pub watch: &'s mut Watch,
    /// What the transaction layer wants done.
    pub sent: &'s mut Vec<Output>,
    /// What else is wanted.
    pub effects: &'s mut VecDeque<Effect>,
    /// Whether calls are refused for want of time: what could be left undone is.
    pub is_overloaded: bool,
    /// The next leg's serial number.
    pub next_leg: &'s mut u64,
}

impl Wire<'_> {
    /// Returns the address that we name to this peer in Via, Contact and SDP.
    pub fn advertised(&self, flow: Flow) -> SocketAddr {
        SocketAddr::new(advertised_ip(self.config, self.learned, flow), flow.local.port())
    }

    /// Makes a Via value with a branch of its own.
    pub fn via(&mut self, flow: Flow) -> Via {
        let mut via = String::with_capacity(96);
        via.push_str("SIP/2.0/");
        via.push_str(flow.transport.token());
        via.push(' ');
        push_address(&mut via, self.advertised(flow));
        via.push_str(";rport;branch=");
        let branch_at = via.len();
        self.mint.push_branch(&mut via);
        Via { text: via, branch_at }
    }

    /// Makes a Contact value that leads back to this listener.
    pub fn contact(&self, flow: Flow, user: &str) -> String {
        contact(self.config, self.learned, flow, user)
    }

    /// Starts the transaction of an INVITE that is to begin a leg's dialog.
    pub fn invite(&mut self, owner: Owner, branch: &str, bytes: Bytes, flow: Flow) -> ClientId {
        let id = self.tx.invite(bytes, branch, flow, self.now, self.sent);
        self.owners.insert(id, owner);
        id
    }

    /// Starts a client transaction for a leg, within its dialog.
    pub fn request(
        &mut self,
        owner: Owner,
        method: Method,
        branch: &str,
        bytes: Bytes,
        flow: Flow,
    ) -> ClientId {
        let id = self.tx.request(bytes, branch, method, flow, self.now, self.sent);
        self.owners.insert(id, owner);
        id
    }

    /// Sends bytes that belong to no transaction: an ACK to a 2xx.
    pub fn send(&mut self, flow: Flow, bytes: Bytes) {
        self.sent.push(Output::Send { flow, bytes });
    }

    /// Returns the same peer over TCP, where we listen on it.
    pub fn over_tcp(&self, flow: Flow) -> Option<Flow> {
        let listen = self.config.sip.listen.iter().find(|l| l.transport == Transport::Tcp)?;
        let local = SocketAddr::new(flow.local.ip(), listen.address.port());
        Some(Flow { transport: Transport::Tcp, local, ..flow })
    }

    /// Asks a media worker for something.
    pub fn media(&mut self, call: CallId, command: media::Command) {
        self.effects.push_back(Effect::Media(call, command));
    }

    /// Asks a helper for something.
    pub fn ask(&mut self, ask: Ask) {
        self.effects.push_back(Effect::Ask(ask));
    }

    /// Names a new leg.
    pub fn leg_id(&mut self, call: CallId) -> LegId {
        *self.next_leg = self.next_leg.wrapping_add(1);
        LegId::new(call.shard(), *self.next_leg)
    }
}

/// Makes a Contact value that leads back to this listener.
pub fn contact(config: &Config, learned: Option<IpAddr>, flow: Flow, user: &str) -> String {
    let address = SocketAddr::new(advertised_ip(config, learned, flow), flow.local.port());
    let mut contact = String::with_capacity(user.len() + 48);
    contact.push_str("<sip:");
    contact.push_str(user);
    contact.push('@');
    push_address(&mut contact, address);
    match flow.transport {
        Transport::Udp => {}
        Transport::Tcp | Transport::Tls => {
            contact.push_str(";transport=");
            contact.push_str(flow.transport.param());
        }
    }
    contact.push('>');
    contact
}

/// Returns the address of ours that this peer is told: the public one where the peer is outside.
/// `learned` is what a carrier has seen, for `public_ip = "auto"`.
pub fn advertised_ip(config: &Config, learned: Option<IpAddr>, flow: Flow) -> IpAddr {
    let public = match &config.node.public_ip {
        PublicIp::Address(ip) => Some(*ip),
        PublicIp::Auto => learned.filter(|_| !is_global(flow.local.ip())),
        PublicIp::Interface(_) => None,
    };
    let is_outside = is_global(flow.remote.ip());
    let fits = |ip: &IpAddr| is_outside && ip.is_ipv4() == flow.remote.is_ipv4();
    public.filter(fits).unwrap_or_else(|| flow.local.ip())
}
