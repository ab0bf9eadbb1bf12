//! A dialog, as a simulated peer sees it (RFC 3261 12).
//!
//! Owns: its names, numbers, routes and target.
//! Never: is forgiving: what the other side gets wrong must show.

use super::agent::Agent;
use crate::{
    ids::Flow,
    sip::{Builder, HeaderName, Message, Method, NameAddr, Uri},
};
use std::net::SocketAddr;

/// Max-Forwards, as RFC 3261 8.1.1.6 proposes.
const HOPS: u32 = 70;

/// One dialog, or the INVITE that may become one.
#[derive(Clone, Debug)]
pub(super) struct Talk {
    pub(super) call_id: String,
    pub(super) local_tag: String,
    pub(super) remote_tag: String,
    /// From and To of our requests, without tags.
    local: String,
    remote: String,
    /// The Request-URI: at first whom we call, then the peer's Contact.
    pub(super) target: String,
    /// Route values, brackets and all.
    pub(super) routes: Vec<String>,
    pub(super) cseq: u32,
    pub(super) remote_cseq: u32,
    pub(super) flow: Flow,
    /// Max-Forwards of our requests.
    pub(super) hops: u32,
}

impl Talk {
    /// Begins with an INVITE or REGISTER to be sent.
    pub(super) fn outgoing(
        from: &str,
        to: &str,
        target: &str,
        agent: &mut Agent,
        flow: Flow,
    ) -> Self {
        Self {
            call_id: agent.token(),
            local_tag: agent.token(),
            remote_tag: String::new(),
            local: from.to_owned(),
            remote: to.to_owned(),
            target: target.to_owned(),
            routes: vec![],
            cseq: 0,
            remote_cseq: 0,
            flow,
            hops: HOPS,
        }
    }

    /// Begins with an INVITE that came.
    pub(super) fn incoming(invite: &Message, agent: &mut Agent, flow: Flow) -> Self {
        let plain = |address: &NameAddr<'_>| format!("<{}>", address.uri);
        let mut talk = Self {
            call_id: invite.call_id().to_owned(),
            local_tag: agent.token(),
            remote_tag: invite.from_tag().unwrap_or_default().to_owned(),
            local: plain(&invite.to()),
            remote: plain(&invite.from()),
            target: String::new(),
            routes: routes(invite),
            cseq: 0,
            remote_cseq: invite.cseq().number,
            flow,
            hops: HOPS,
        };
        talk.retarget(invite);
        talk
    }

    /// Learns who answered an INVITE: RFC 3261 12.1.2. The first response with a tag decides.
    pub(super) fn learn(&mut self, response: &Message) {
        let Some(tag) = response.to_tag().filter(|_| self.remote_tag.is_empty()) else { return };
        self.remote_tag = tag.to_owned();
        self.routes = routes(response);
        self.routes.reverse();
        self.retarget(response);
    }

    /// Becomes the dialog of another answer to the same INVITE.
    pub(super) fn fork(&self, response: &Message) -> Self {
        let mut fork = Self { remote_tag: String::new(), routes: vec![], ..self.clone() };
        fork.learn(response);
        fork
    }

    /// Becomes the dialog of another of our own answers to the same INVITE.
    pub(super) fn with_local_tag(&self, local_tag: String) -> Self {
        Self { local_tag, ..self.clone() }
    }

    /// Takes the peer's Contact. In-dialog requests go where it says, as far as that is an address
    /// and no proxy is in between.
    pub(super) fn retarget(&mut self, message: &Message) {
        let contact = message.values(HeaderName::Contact).next();
        let uri = contact.and_then(|value| Some(NameAddr::parse(&value)?.uri.to_owned()));
        if let Some(uri) = uri {
            self.target = uri;
        }
        self.follow();
    }

    /// Turns to the address in the peer's Contact, if there is one.
    pub(super) fn follow(&mut self) {
        if let (Some(ip), Some(uri)) =
            (Uri::parse(&self.target).and_then(|uri| uri.ip()), Uri::parse(&self.target))
        {
            self.flow.remote =
                SocketAddr::new(ip, uri.port.unwrap_or(self.flow.transport.default_port()));
        }
    }

    /// Returns whether a request belongs here.
    pub(super) fn owns(&self, request: &Message) -> bool {
        request.call_id() == self.call_id
            && request.from_tag().unwrap_or_default() == self.remote_tag
            && request.to_tag() == Some(&*self.local_tag)
    }

    /// Notes the CSeq of a request; returns whether it is new.
    pub(super) fn note(&mut self, request: &Message) -> bool {
        let is_new = request.cseq().number > self.remote_cseq;
        self.remote_cseq = self.remote_cseq.max(request.cseq().number);
        is_new
    }

    /// Starts the next request; returns it and its branch.
    pub(super) fn request(&mut self, method: Method, agent: &mut Agent) -> (Builder, String) {
        self.cseq += 1;
        self.build(method, self.cseq, agent)
    }

    /// Starts the ACK of a 2xx to the INVITE with this CSeq number.
    pub(super) fn ack(&self, cseq: u32, agent: &mut Agent) -> Builder {
        self.build(Method::Ack, cseq, agent).0
    }

    fn build(&self, method: Method, cseq: u32, agent: &mut Agent) -> (Builder, String) {
        let (via, branch) = agent.via(self.flow);
        let (local, local_tag) = (&self.local, &self.local_tag);
        let mut builder = Builder::request(method.as_str(), &self.target);
        builder.header(HeaderName::Via, via);
        for route in &self.routes {
            builder.header(HeaderName::Route, route);
        }
        builder
            .header(HeaderName::MaxForwards, self.hops)
            .header(HeaderName::From, format_args!("{local};tag={local_tag}"))
            .header(HeaderName::To, self.to())
            .header(HeaderName::CallId, &self.call_id)
            .header(HeaderName::CSeq, format_args!("{cseq} {}", method.as_str()));
        (builder, branch)
    }

    fn to(&self) -> String {
        match &*self.remote_tag {
            "" => self.remote.clone(),
            tag => format!("{};tag={tag}", self.remote),
        }
    }
}

/// Returns the Record-Route values as they came.
fn routes(message: &Message) -> Vec<String> {
    let values = message.values(HeaderName::RecordRoute);
    values.map(|value| String::from_utf8_lossy(&value).into_owned()).collect()
}
