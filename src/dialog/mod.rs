//! Dialogs (RFC 3261 12) and the small machines of the INVITE usage on them.
//!
//! Owns: a dialog's identity, its sequence numbers, its frozen route set and where its requests go.
//! Never: starts a transaction, reads a clock or looks into a body.
#![deny(
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects
)]

mod acks;
mod modify;
mod reliable;
mod session_timer;
mod success;

pub use acks::Acks;
pub use modify::{Glare, Modify, RefuseOffer};
pub use reliable::{PrackOutcome, ReliableReceiver, ReliableSender, Resend};
pub use session_timer::{Due, Refresher, SessionTimer, Wanted};
pub use success::{Success, SuccessDue};

use crate::{
    ids::{Flow, Transport},
    sip::{Builder, HeaderName, Message, Method, NameAddr, Scheme, Uri},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Requests in an early dialog (PRACK, UPDATE), at most, after which somebody may have forgotten it.
const FORGOTTEN_MAX: u32 = 1_000;

/// How requests inside a dialog find the peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reach {
    /// Back over the flow it speaks from: phones, which may sit behind a NAT.
    Flow,
    /// By route set and remote target (RFC 3261 12.2.1.1), where those can be reached at all.
    Target,
}

/// What of a request places it in its dialog (RFC 3261 12.2.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    /// The next one.
    InOrder,
    /// Its CSeq is lower than one already seen.
    Stale,
}

/// The next hop of a dialog's requests, where it is named by an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Hop {
    ip: IpAddr,
    port: u16,
    transport: Transport,
}

impl Hop {
    /// Reads the first route or the target. `sips:` would need TLS at every hop, which nobody can promise.
    fn read(route_set: &[Box<str>], remote_target: &str) -> Option<Self> {
        let first = route_set.first().map_or(remote_target, |route| route);
        let uri = Uri::parse(first).filter(|uri| uri.scheme == Scheme::Sip)?;
        let ip = uri.ip()?;
        let transport = uri.transport().unwrap_or(Transport::Udp);
        Some(Self { ip, port: uri.port.unwrap_or_else(|| transport.default_port()), transport })
    }
}

/// What an INVITE of ours says of the dialogs that it makes.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The Request-URI.
    pub uri: &'a str,
    /// The Call-ID.
    pub call_id: &'a Arc<str>,
    /// The tag in From.
    pub tag: &'a Arc<str>,
    /// The value of From, without the tag and other parameters.
    pub from: &'a Arc<[u8]>,
    /// The value of To, likewise.
    pub to: &'a Arc<[u8]>,
    /// The number in CSeq.
    pub cseq: u32,
}

/// One dialog, early or confirmed.
#[derive(Clone, Debug)]
pub struct Dialog {
    /// The Call-ID header's value.
    pub call_id: Arc<str>,
    /// Our tag. It names our shard.
    pub local_tag: Arc<str>,
    /// The peer's tag; empty where an RFC 2543 peer sent none.
    pub remote_tag: Box<str>,
    /// The From value of our requests, without the tag.
    pub local: Arc<[u8]>,
    /// The To value of our requests, without the tag.
    pub remote: Arc<[u8]>,
    local_cseq: u32,
    remote_cseq: Option<u32>,
    route_set: Vec<Box<str>>,
    remote_target: Box<str>,
    /// What the first of these says of the way there.
    hop: Option<Hop>,
    flow: Flow,
    /// Whether the flow's connection has closed since.
    is_parted: bool,
    reach: Reach,
}

impl Dialog {
    /// Creates the dialog of an INVITE that we received (RFC 3261 12.1.1).
    ///
    /// Returns `None` where its Contact is unusable: nothing could be sent to such a peer. Without
    /// any, as RFC 2543 had it, the caller is where its From says.
    pub fn from_invite(
        invite: &Message,
        local_tag: &Arc<str>,
        flow: Flow,
        reach: Reach,
    ) -> Option<Self> {
        let route_set = record_route(invite);
        let remote_target = match invite.header(HeaderName::Contact) {
            Some(_) => contact_uri(invite)?,
            None => invite.from().parsed_uri().and(Some(invite.from().uri.into()))?,
        };
        Some(Self {
            call_id: invite.call_id().into(),
            local_tag: local_tag.clone(),
            remote_tag: invite.from_tag().unwrap_or("").into(),
            local: without_tag(&invite.to()),
            remote: without_tag(&invite.from()),
            local_cseq: 0,
            remote_cseq: Some(invite.cseq().number),
            hop: Hop::read(&route_set, &remote_target),
            route_set,
            remote_target,
            flow,
            is_parted: false,
            reach,
        })
    }

    /// Creates the dialog that a 101-299 response to our INVITE makes (RFC 3261 12.1.2).
    ///
    /// A response without Contact keeps the Request-URI as remote target.
    pub fn from_response(invite: &Message, response: &Message, flow: Flow, reach: Reach) -> Self {
        let asked = Asked {
            uri: invite.uri(),
            call_id: &invite.call_id().into(),
            tag: &invite.from_tag().unwrap_or("").into(),
            from: &without_tag(&invite.from()),
            to: &without_tag(&invite.to()),
            cseq: invite.cseq().number,
        };
        Self::from_answer(&asked, response, flow, reach)
    }

    /// Creates the same where what the INVITE said is known without reading it.
    pub fn from_answer(asked: &Asked<'_>, response: &Message, flow: Flow, reach: Reach) -> Self {
        let mut route_set = record_route(response);
        route_set.reverse();
        let remote_target = contact_uri(response).unwrap_or_else(|| asked.uri.into());
        Self {
            call_id: asked.call_id.clone(),
            local_tag: asked.tag.clone(),
            remote_tag: response.to_tag().unwrap_or("").into(),
            local: asked.from.clone(),
            remote: asked.to.clone(),
            local_cseq: asked.cseq,
            remote_cseq: None,
            hop: Hop::read(&route_set, &remote_target),
            route_set,
            remote_target,
            flow,
            is_parted: false,
            reach,
        }
    }

    /// Returns whether somebody stands between us and the peer who wants to hear all that is said.
    pub fn is_routed(&self) -> bool {
        !self.route_set.is_empty()
    }

    /// Returns whether a message with this Call-ID and peer's tag belongs here.
    pub fn is(&self, call_id: &str, remote_tag: &str) -> bool {
        *self.call_id == *call_id && *self.remote_tag == *remote_tag
    }

    /// Checks and notes the CSeq of a request from the peer (RFC 3261 12.2.2).
    pub fn note_request(&mut self, request: &Message, flow: Flow) -> Order {
        let number = request.cseq().number;
        if self.remote_cseq.is_some_and(|last| number <= last) {
            return Order::Stale;
        }
        self.remote_cseq = Some(number);
        let is_reach = match self.reach {
            Reach::Flow => true,
            // Another connection of the same peer (RFC 5923).
            Reach::Target => {
                flow.transport.is_reliable()
                    && flow.transport == self.flow.transport
                    && flow.remote.ip() == self.flow.remote.ip()
            }
        };
        if is_reach {
            self.flow = flow;
            self.is_parted = false;
        }
        Order::InOrder
    }

    /// Learns that a connection has closed. Carriers close idle ones; requests then go where the
    /// route set says, instead of back to a port on which nobody listens.
    pub fn part(&mut self, flow: Flow) {
        self.is_parted |= self.flow == flow;
    }

    /// Takes the peer's new Contact from a target refresh (RFC 3261 12.2). The route set stays.
    ///
    /// Twilio marks 2xx over connections that were opened anew with `;twnat=` in the Contact; who takes
    /// that target loses the ACK and the BYE.
    pub fn refresh_target(&mut self, message: &Message) {
        // Most peers say what they have said before.
        let Some(value) = message.values(HeaderName::Contact).next() else { return };
        let target = target_of(&value).filter(|target| **target != *self.remote_target);
        if let Some(target) = target.filter(|target| !target.contains(";twnat=")) {
            self.remote_target = target.into();
            self.hop = Hop::read(&self.route_set, &self.remote_target);
        }
    }

    /// Raises our CSeq above one that another dialog of the same INVITE has used.
    pub fn raise_cseq(&mut self, at_least: u32) {
        self.local_cseq = self.local_cseq.max(at_least);
    }

    /// Returns our last CSeq number.
    pub fn local_cseq(&self) -> u32 {
        self.local_cseq
    }

    /// Returns the peer's Contact, as it wrote it.
    pub fn remote_target(&self) -> &str {
        &self.remote_target
    }

    /// Returns where the next request goes.
    pub fn flow(&self) -> Flow {
        match self.reach {
            Reach::Flow => self.flow,
            Reach::Target => self.next_hop().unwrap_or(self.flow),
        }
    }

    /// Starts a request inside the dialog, with the next CSeq. Via and Contact are the caller's.
    pub fn request(&mut self, method: Method, via: &str) -> Builder {
        self.local_cseq = self.local_cseq.saturating_add(1);
        self.build(method, self.local_cseq, via)
    }

    /// Leaves room for requests that were sent while the dialog was early and that nobody remembers:
    /// a number that came before would be refused, a gap is no error (RFC 3261 12.2.2).
    pub fn skip_forgotten(&mut self) {
        self.local_cseq = self.local_cseq.saturating_add(FORGOTTEN_MAX);
    }

    /// Starts the ACK of a 2xx to the INVITE with this CSeq number (RFC 3261 13.2.2.4).
    pub fn ack(&self, cseq: u32, via: &str) -> Builder {
        self.build(Method::Ack, cseq, via)
    }

    fn build(&self, method: Method, cseq: u32, via: &str) -> Builder {
        let (uri, routes) = self.request_uri_and_routes();
        let mut builder = Builder::request(method.as_str(), uri);
        builder.text(HeaderName::Via, via);
        for route in routes {
            builder.parts(HeaderName::Route, &["<", route, ">"]);
        }
        builder
            .number(HeaderName::MaxForwards, 70)
            .tagged(HeaderName::From, &self.local, &self.local_tag)
            .tagged(HeaderName::To, &self.remote, &self.remote_tag)
            .text(HeaderName::CallId, &self.call_id)
            .cseq(cseq, method.as_str());
        builder
    }

    /// Loose routing keeps the target in the Request-URI; a strict router wants its own address
    /// there and the target at the end (RFC 3261 12.2.1.1).
    fn request_uri_and_routes(&self) -> (&str, impl Iterator<Item = &str>) {
        let target = &*self.remote_target;
        let (uri, routes, last) = match self.route_set.split_first() {
            None => (target, &[][..], None),
            Some((first, _)) if is_loose(first) => (target, &*self.route_set, None),
            Some((first, rest)) => (&**first, rest, Some(target)),
        };
        (uri, routes.iter().map(|route| &**route).chain(last))
    }

    /// Returns the address of the first route or the target, unless it is a name (whoever spoke to us is
    /// there), one that only the peer's own network can reach, or the connection that we already have
    /// leads there.
    fn next_hop(&self) -> Option<Flow> {
        let Hop { ip, port, transport } = self.hop?;
        if ip == self.flow.remote.ip()
            && transport.is_reliable()
            && transport == self.flow.transport
            && !self.is_parted
        {
            return None;
        }
        if ip != self.flow.remote.ip() && !is_global(ip) {
            return None;
        }
        let remote = SocketAddr::new(ip, port);
        // The listener of another transport has another address: only the shell's routing knows.
        (transport == self.flow.transport).then_some(Flow { remote, ..self.flow })
    }
}

/// Returns whether the whole internet could reach this address.
pub fn is_global(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
                || shared)
        }
        IpAddr::V6(v6) => {
            let first = v6.segments().first().copied().unwrap_or(0);
            let local = first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80;
            !(v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || local)
        }
    }
}

/// Returns the URI of the first Contact, as written.
pub fn contact_uri(message: &Message) -> Option<Box<str>> {
    let value = message.values(HeaderName::Contact).next()?;
    target_of(&value).map(Into::into)
}

/// Returns the URI of a Contact value, where it can be read.
fn target_of(contact: &[u8]) -> Option<&str> {
    let contact = NameAddr::parse(contact)?;
    contact.parsed_uri().map(|_| contact.uri)
}

fn record_route(message: &Message) -> Vec<Box<str>> {
    message
        .values(HeaderName::RecordRoute)
        .filter_map(|value| Some(NameAddr::parse(&value)?.uri.into()))
        .collect()
}

fn is_loose(uri: &str) -> bool {
    Uri::parse(uri).is_some_and(|uri| uri.params.has("lr"))
}

/// Rewrites a From or To value as `display <uri>` with its parameters, less the tag.
fn without_tag(value: &NameAddr<'_>) -> Arc<[u8]> {
    let display_len = value.display.as_ref().map_or(0, |display| display.len());
    let mut out = Vec::with_capacity(value.uri.len().saturating_add(display_len).saturating_add(8));
    if let Some(display) = &value.display {
        out.push(b'"');
        for byte in display.iter() {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(*byte);
        }
        out.extend_from_slice(b"\" ");
    }
    out.push(b'<');
    out.extend_from_slice(value.uri.as_bytes());
    out.push(b'>');
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const EDGE: &str = "54.172.60.0:5060";

    /// What a carrier behind two proxies looks like: private Contact, recorded routes.
    #[test]
    fn requests_to_a_carrier_take_the_recorded_route_to_its_private_contact() {
        let mut dialog =
            Dialog::from_response(&invite(), &ringing(TWO_ROUTES), flow(EDGE), Reach::Target);
        let bye = sent(dialog.request(Method::Bye, VIA));
        assert_eq!(bye.uri(), "sip:+14155550199@172.25.75.240:5060;transport=udp");
        let routes: Vec<_> =
            bye.routes(HeaderName::Route).iter().map(|route| route.uri.to_owned()).collect();
        assert_eq!(routes, ["sip:54.172.60.1;r2=on;lr", "sip:54.172.60.0:5060;r2=on;lr"]);
        assert_eq!(bye.cseq().number, 3, "one more than the INVITE");
        assert_eq!((bye.from_tag(), bye.to_tag()), (Some("ours"), Some("theirs")));
        assert_eq!(dialog.flow().remote, "54.172.60.1:5060".parse().unwrap());
    }

    /// RFC 3261 12.2.1.1: a route without `lr` wants its own address in the Request-URI.
    #[test]
    fn a_strict_router_gets_the_target_last() {
        let strict = "Record-Route: <sip:54.172.60.0:5060>\r\n";
        let mut dialog =
            Dialog::from_response(&invite(), &ringing(strict), flow(EDGE), Reach::Target);
        let bye = sent(dialog.request(Method::Bye, VIA));
        assert_eq!(bye.uri(), "sip:54.172.60.0:5060");
        let routes = bye.routes(HeaderName::Route);
        assert_eq!(routes.len(), 1);
        assert_eq!(routes[0].uri, "sip:+14155550199@172.25.75.240:5060;transport=udp");
    }

    #[test]
    fn where_requests_go() {
        for (route, reach, want) in [
            // Back over the flow, whatever the Contact says.
            ("", Reach::Flow, EDGE),
            // A private Contact behind a public address cannot be reached: the flow can.
            ("", Reach::Target, EDGE),
            // A route that the whole internet can reach.
            (
                "Record-Route: <sip:177.71.206.192:5080;lr>\r\n",
                Reach::Target,
                "177.71.206.192:5080",
            ),
            // A name would have to be resolved; whoever answered is there.
            ("Record-Route: <sip:edge.example.com;lr>\r\n", Reach::Target, EDGE),
            // Another transport would need another listener.
            ("Record-Route: <sip:177.71.206.192;transport=tcp;lr>\r\n", Reach::Target, EDGE),
        ] {
            let dialog = Dialog::from_response(&invite(), &ringing(route), flow(EDGE), reach);
            assert_eq!(dialog.flow().remote, want.parse().unwrap(), "{route} {reach:?}");
        }
    }

    /// The carrier's edge at 54.172.60.0, over TLS and TCP: connections are kept, other addresses and
    /// the default ports are those of the transport.
    #[test]
    fn where_requests_go_over_streams() {
        for (transport, route, want) in [
            (Transport::Tls, "sip:54.172.60.0:5061;transport=tls;lr", "54.172.60.0:40061"),
            (Transport::Tls, "sip:54.172.60.1;transport=tls;lr", "54.172.60.1:5061"),
            (Transport::Tls, "sip:54.172.60.1:5071;transport=tls;lr", "54.172.60.1:5071"),
            (Transport::Tls, "sips:54.172.60.1;lr", "54.172.60.0:40061"),
            (Transport::Tls, "sips:54.172.60.1;transport=tls;lr", "54.172.60.0:40061"),
            (Transport::Tls, "sip:edge.example.com;transport=tls;lr", "54.172.60.0:40061"),
            (Transport::Tls, "sip:54.172.60.1;lr", "54.172.60.0:40061"),
            (Transport::Tcp, "sip:54.172.60.1;transport=tcp;lr", "54.172.60.1:5060"),
            (Transport::Tcp, "sip:54.172.60.0;transport=tcp;lr", "54.172.60.0:40061"),
            (Transport::Tcp, "sip:54.172.60.1;transport=tls;lr", "54.172.60.0:40061"),
        ] {
            let flow = Flow { transport, ..flow("54.172.60.0:40061") };
            let route_line = format!("Record-Route: <{route}>\r\n");
            let response = ringing(&route_line);
            let dialog = Dialog::from_response(&invite(), &response, flow, Reach::Target);
            let went = dialog.flow();
            assert_eq!(
                (went.transport, went.remote),
                (transport, want.parse().unwrap()),
                "{route}"
            );
        }
    }

    /// The connection on which a carrier called us ends at a port on which nobody listens.
    #[test]
    fn a_closed_connection_is_replaced_where_the_route_says() {
        let over = |remote: &str| Flow { transport: Transport::Tls, ..flow(remote) };
        let (called, edge) = (over("54.172.60.0:34567"), over("54.172.60.0:5061"));
        let request = |method: &str, cseq: u32| {
            message(&format!(
                "{method} sip:x SIP/2.0\r\n{COMMON}\
                 Record-Route: <sip:54.172.60.0;transport=tls;lr>\r\nCSeq: {cseq} {method}\r\n\r\n"
            ))
        };
        let mut dialog =
            Dialog::from_invite(&request("INVITE", 2), &"ours".into(), called, Reach::Target)
                .unwrap();
        assert_eq!(dialog.flow(), called);
        dialog.part(over("54.172.60.0:34568"));
        assert_eq!(dialog.flow(), called);
        dialog.part(called);
        assert_eq!(dialog.flow(), edge);
        // The carrier is back on a connection of its own.
        let again = over("54.172.60.0:40000");
        assert_eq!(dialog.note_request(&request("BYE", 3), again), Order::InOrder);
        assert_eq!(dialog.flow(), again);
        // A phone is where its connection is, or nowhere.
        let mut phone =
            Dialog::from_invite(&request("INVITE", 2), &"ours".into(), called, Reach::Flow)
                .unwrap();
        phone.part(called);
        assert_eq!(phone.flow(), called);
    }

    #[test]
    fn a_peers_requests_must_be_in_order() {
        let mut dialog = Dialog::from_invite(&invite(), &"ours".into(), flow(EDGE), Reach::Flow)
            .expect("has a Contact");
        for (cseq, order) in [(2, Order::Stale), (3, Order::InOrder), (3, Order::Stale)] {
            let bye = format!("BYE sip:x SIP/2.0\r\n{COMMON}CSeq: {cseq} BYE\r\n\r\n");
            assert_eq!(dialog.note_request(&message(&bye), flow(EDGE)), order, "{cseq}");
        }
        let reply = sent(dialog.request(Method::Bye, VIA));
        assert_eq!((reply.from_tag(), reply.to_tag()), (Some("ours"), Some("ours")));
    }

    #[test]
    fn display_names_survive() {
        let from = NameAddr::parse(b"\"A \\\"B\\\"\" <sip:a@b>;tag=1").unwrap();
        assert_eq!(&*without_tag(&from), b"\"A \\\"B\\\"\" <sip:a@b>");
    }

    #[test]
    fn what_the_internet_can_reach() {
        for (ip, want) in [
            ("54.172.60.0", true),
            ("10.1.2.3", false),
            ("172.25.75.240", false),
            ("100.64.0.1", false),
            ("127.0.0.1", false),
            ("2001:db8::1", true),
            ("fd00::1", false),
            ("fe80::1", false),
            ("::1", false),
            ("::ffff:10.0.0.1", false),
        ] {
            assert_eq!(is_global(ip.parse().unwrap()), want, "{ip}");
        }
    }

    const VIA: &str = "SIP/2.0/UDP 203.0.113.7:5060;branch=z9hG4bKx";
    const COMMON: &str = "Via: SIP/2.0/UDP 203.0.113.7:5060;branch=z9hG4bKx\r\n\
        Max-Forwards: 70\r\nFrom: <sip:+17756187988@t>;tag=ours\r\nTo: <sip:+14155550199@t>\r\n\
        Call-ID: c1\r\nContact: <sip:tandem@203.0.113.7>\r\n";
    const TWO_ROUTES: &str = "Record-Route: <sip:54.172.60.0:5060;r2=on;lr>\r\n\
        Record-Route: <sip:54.172.60.1;r2=on;lr>\r\n";

    fn invite() -> Message {
        message(&format!("INVITE sip:+14155550199@t SIP/2.0\r\n{COMMON}CSeq: 2 INVITE\r\n\r\n"))
    }

    fn ringing(routes: &str) -> Message {
        message(&format!(
            "SIP/2.0 183 Session Progress\r\nVia: {VIA}\r\n{routes}\
             From: <sip:+17756187988@t>;tag=ours\r\nTo: <sip:+14155550199@t>;tag=theirs\r\n\
             Call-ID: c1\r\nCSeq: 2 INVITE\r\n\
             Contact: <sip:+14155550199@172.25.75.240:5060;transport=udp>\r\n\r\n"
        ))
    }

    fn sent(builder: Builder) -> Message {
        Message::parse(builder.finish()).expect("own requests are readable")
    }

    fn message(text: &str) -> Message {
        Message::parse(Bytes::copy_from_slice(text.as_bytes())).expect("readable")
    }

    fn flow(remote: &str) -> Flow {
        let local = "203.0.113.7:5060".parse().unwrap();
        Flow { transport: Transport::Udp, local, remote: remote.parse().unwrap() }
    }
}
