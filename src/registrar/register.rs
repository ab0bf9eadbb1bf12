//! The procedure of a REGISTER (RFC 3261 10.3), after the phone has proved who it is.
//!
//! Owns: what a request asks for, whether all of it can be granted, the answer.
//! Never: authenticates, sends, or changes half of what was asked.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used
)]

use super::{
    date::date,
    location::{Binding, Location, Q_MAX},
};
use crate::{
    ids::{Flow, Transport},
    sip::{Contacts, HeaderName, Message, NameAddr, Params, Scheme, Uri, Via},
};
use std::{
    borrow::Cow,
    net::IpAddr,
    time::{Duration, SystemTime},
};

/// Extensions that a REGISTER may require.
const SUPPORTED: [&str; 2] = ["path", "outbound"];
/// The longest contact, Call-ID, instance or Path we keep.
const KEPT_BYTES_MAX: usize = 1024;
/// The most proxies on a Path.
const PATH_MAX: usize = 8;
/// From so long on, what is granted may be shorter than what was asked for: phones that have registered together, after an
/// outage, do not come back together for ever. Who asks for less has a reason, and gets what it asks for.
const SPREAD_FROM: Duration = Duration::from_secs(600);
/// How much shorter it may be, in thousandths.
pub const SPREAD_MAX: u32 = 100;
/// How much of a User-Agent we keep.
const USER_AGENT_CHARS_MAX: usize = 128;

/// What may be asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Less is refused with 423; at most an hour (RFC 3261 10.3 step 7).
    pub min_expires: Duration,
    /// Where the phone names no time.
    pub default_expires: Duration,
    /// More is shortened to this.
    pub max_expires: Duration,
    /// Contacts of one user at a time.
    pub max_contacts: usize,
    /// By how many thousandths a long time is shortened, at most [`SPREAD_MAX`]: other ones for others.
    pub shortened_by: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            min_expires: Duration::from_secs(60),
            default_expires: Duration::from_secs(3600),
            max_expires: Duration::from_secs(7200),
            max_contacts: 10,
            shortened_by: 0,
        }
    }
}

impl Policy {
    /// Shortens what would be granted, by whole seconds, and not below what is too brief.
    fn spread(&self, granted: Duration) -> Duration {
        if granted < SPREAD_FROM {
            return granted;
        }
        let by = u64::from(self.shortened_by.min(SPREAD_MAX));
        let less = granted.as_secs().saturating_mul(by) / 1000;
        granted.saturating_sub(Duration::from_secs(less)).max(self.min_expires)
    }
}

/// What to answer, and what has changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    /// 200..=699.
    pub status: u16,
    /// Says what to change where it is a refusal.
    pub reason: Cow<'static, str>,
    /// To be added to the response.
    pub headers: Vec<(HeaderName, String)>,
    /// For the store; empty unless the status is 200.
    pub events: Vec<RegisterEvent>,
}

/// A change of the location service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RegisterEvent {
    /// Bound, refreshed or changed.
    Bound(Box<Binding>),
    /// Removed.
    Unbound {
        /// The user.
        aor: Box<str>,
        /// As [`Binding::contact`] had it.
        contact: Box<str>,
    },
}

/// Why a REGISTER changes nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Denied {
    Extensions(String),
    BadContact(&'static str),
    BadPath,
    TooBrief,
    OutOfOrder,
    TooMany(usize),
}

/// One contact of the request.
struct Wish {
    binding: Binding,
    /// The contact shall go.
    is_removal: bool,
}

/// Carries out a REGISTER of the authenticated user `aor` that came over `flow`. All or nothing.
///
/// A user whose contacts are as many as allowed gets 403 for one more: throwing out the oldest
/// would silence a phone that somebody relies on, and nobody would be told.
pub fn handle_register(
    request: &Message,
    flow: Flow,
    aor: &str,
    policy: &Policy,
    location: &Location,
    wall: SystemTime,
) -> Reply {
    let asker = Asker { request, flow, aor, policy, wall };
    match asker.run(location) {
        Ok((contacts, events)) => asker.accept(contacts, events),
        Err(denied) => deny(&denied, policy),
    }
}

/// One request and its circumstances.
struct Asker<'a> {
    request: &'a Message,
    flow: Flow,
    aor: &'a str,
    policy: &'a Policy,
    wall: SystemTime,
}

/// What is bound afterwards, as the answer shows it, and what has changed.
type Outcome = (Vec<(HeaderName, String)>, Vec<RegisterEvent>);

impl Asker<'_> {
    fn run(&self, location: &Location) -> Result<Outcome, Denied> {
        self.check_extensions()?;
        let path = self.path()?;
        match self.request.contacts() {
            Contacts::Bad => Err(Denied::BadContact("Bad Contact")),
            Contacts::Star if self.request.number(HeaderName::Expires) != Some(0) => {
                Err(Denied::BadContact("Contact * Needs Expires 0"))
            }
            Contacts::Star => location.update(self.aor, |bindings| self.remove_all(bindings)),
            Contacts::List(contacts) => {
                let wishes: Vec<Wish> = contacts
                    .iter()
                    .map(|contact| self.wish(contact, &path))
                    .collect::<Result<_, _>>()?;
                location.update(self.aor, |bindings| self.grant(wishes, bindings))
            }
        }
    }

    /// RFC 3261 10.3 step 2 (8.2.2.3).
    fn check_extensions(&self) -> Result<(), Denied> {
        let required = self.request.values(HeaderName::Require);
        let unsupported: Vec<String> = required
            .map(|tag| String::from_utf8_lossy(&tag).into_owned())
            .filter(|tag| !SUPPORTED.iter().any(|known| known.eq_ignore_ascii_case(tag)))
            .collect();
        if unsupported.is_empty() {
            Ok(())
        } else {
            Err(Denied::Extensions(unsupported.join(", ")))
        }
    }

    /// RFC 3327 5.3: kept as the route to the phone.
    fn path(&self) -> Result<Vec<Box<str>>, Denied> {
        let hops = self.request.routes(HeaderName::Path);
        let is_good = |hop: &NameAddr<'_>| {
            let uri = hop.parsed_uri();
            uri.is_some_and(|uri| is_sip(uri.scheme)) && hop.uri.len() <= KEPT_BYTES_MAX
        };
        let written = self.request.values(HeaderName::Path).count();
        if hops.len() != written || hops.len() > PATH_MAX || !hops.iter().all(is_good) {
            return Err(Denied::BadPath);
        }
        Ok(hops.iter().map(|hop| format!("<{}>", hop.uri).into()).collect())
    }

    /// Reads one contact (RFC 3261 10.3 step 7).
    fn wish(&self, contact: &NameAddr<'_>, path: &[Box<str>]) -> Result<Wish, Denied> {
        let uri = contact.parsed_uri().filter(|uri| is_sip(uri.scheme));
        let uri = uri.ok_or(Denied::BadContact("Contact Is Not A sip URI"))?;
        let expires = self.expires(&contact.params)?;
        let instance = contact.params.get("+sip.instance").filter(|i| !i.is_empty());
        let is_outbound = self.is_outbound(path) && instance.is_some();
        let reg_id = contact.params.get("reg-id").and_then(|id| id.parse().ok());
        let kept = [contact.uri, self.request.call_id(), instance.unwrap_or_default()];
        if kept.iter().any(|text| text.len() > KEPT_BYTES_MAX) {
            return Err(Denied::BadContact("Contact Too Long"));
        }
        let user_agent = self.request.header_str(HeaderName::UserAgent);
        let expires_at = self.wall.checked_add(expires).unwrap_or(self.wall);
        let binding = Binding {
            aor: self.aor.into(),
            contact: contact.uri.into(),
            flow: reach(self.flow, &uri, &self.request.via(), path),
            received: self.flow.remote,
            path: path.to_vec(),
            instance: instance.map(Into::into),
            reg_id: reg_id.filter(|_| is_outbound),
            q: contact.params.get("q").and_then(parse_q).unwrap_or(Q_MAX),
            call_id: self.request.call_id().into(),
            cseq: self.request.cseq().number,
            updated_at: self.wall,
            expires_at,
            user_agent: user_agent.map(|name| shorten(&name).into()),
            stored_until: expires_at,
        };
        Ok(Wish { binding, is_removal: expires.is_zero() })
    }

    /// The contact's own time, else the request's, else ours; nonsense counts as none (20.10, 20.19).
    fn expires(&self, contact: &Params<'_>) -> Result<Duration, Denied> {
        let own = contact.get("expires").map(parse_seconds);
        let asked = match own {
            Some(own) => own,
            None => self.request.number(HeaderName::Expires),
        };
        let asked = asked.map(|s| Duration::from_secs(s.into()));
        let asked = asked.unwrap_or(self.policy.default_expires);
        if !asked.is_zero() && asked < self.policy.min_expires {
            return Err(Denied::TooBrief);
        }
        Ok(self.policy.spread(asked.min(self.policy.max_expires)))
    }

    /// Whether RFC 5626 applies: over a connection only, since over UDP it would promise answers to
    /// STUN, and only when the flow ends at the phone or at an edge proxy that keeps it (section 6).
    fn is_outbound(&self, path: &[Box<str>]) -> bool {
        let is_flow_kept = match path.first() {
            None => self.request.vias().count() == 1,
            Some(edge) => {
                Uri::parse(edge.trim_matches(['<', '>'])).is_some_and(|uri| uri.params.has("ob"))
            }
        };
        self.flow.transport.is_reliable()
            && is_flow_kept
            && self.request.has_option(HeaderName::Supported, "outbound")
    }

    /// RFC 3261 10.3 step 6.
    fn remove_all(&self, bindings: &mut Vec<Binding>) -> Result<Outcome, Denied> {
        if bindings.iter().any(|old| self.is_overtaken(old)) {
            return Err(Denied::OutOfOrder);
        }
        Ok((vec![], bindings.drain(..).map(unbound).collect()))
    }

    /// RFC 3261 10.3 step 7: changes nothing before everything is granted.
    fn grant(&self, wishes: Vec<Wish>, bindings: &mut Vec<Binding>) -> Result<Outcome, Denied> {
        let is_replaced =
            |old: &Binding| wishes.iter().any(|wish| old.is_replaced_by(&wish.binding));
        let mut stays = vec![];
        for old in bindings.iter() {
            let is_replaced = is_replaced(old);
            if is_replaced && self.is_overtaken(old) {
                return Err(Denied::OutOfOrder);
            }
            stays.push(!is_replaced && !old.is_expired(self.wall));
        }
        let mut new: Vec<Binding> = vec![];
        for Wish { mut binding, is_removal } in wishes {
            if let Some(old) = bindings.iter().find(|old| old.contact == binding.contact) {
                binding.refresh(old);
            }
            new.retain(|other| !other.is_replaced_by(&binding));
            if !is_removal {
                new.push(binding);
            }
        }
        let count = stays.iter().filter(|stays| **stays).count().saturating_add(new.len());
        if count > bindings.len() && count > self.policy.max_contacts {
            return Err(Denied::TooMany(self.policy.max_contacts));
        }
        let events = changes(bindings, &stays, &new);
        let mut stays = stays.into_iter();
        bindings.retain(|_| stays.next().unwrap_or(false));
        // As large as they are and no larger: there may be 50,000 phones.
        bindings.reserve_exact(new.len());
        bindings.extend(new);
        let contacts = bindings.iter().map(|b| (HeaderName::Contact, contact_value(b, self.wall)));
        Ok((contacts.collect(), events))
    }

    /// A request that its own successor has overtaken must not undo it.
    fn is_overtaken(&self, old: &Binding) -> bool {
        *old.call_id == *self.request.call_id() && self.request.cseq().number <= old.cseq
    }

    /// RFC 3261 10.3 step 8.
    fn accept(&self, mut headers: Vec<(HeaderName, String)>, events: Vec<RegisterEvent>) -> Reply {
        for hop in self.request.values(HeaderName::Path) {
            headers.push((HeaderName::Path, String::from_utf8_lossy(&hop).into_owned()));
        }
        let is_ours = |event: &RegisterEvent| match event {
            RegisterEvent::Bound(binding) => binding.reg_id.is_some(),
            RegisterEvent::Unbound { .. } => false,
        };
        if events.iter().any(is_ours) {
            headers.push((HeaderName::Require, "outbound".into()));
        }
        headers.push((HeaderName::Supported, SUPPORTED.join(", ")));
        headers.push((HeaderName::Date, date(self.wall)));
        Reply { status: 200, reason: "OK".into(), headers, events }
    }
}

fn deny(denied: &Denied, policy: &Policy) -> Reply {
    let (status, reason, headers): (u16, Cow<'static, str>, _) = match denied {
        Denied::Extensions(tags) => {
            (420, "Bad Extension".into(), vec![(HeaderName::Unsupported, tags.clone())])
        }
        Denied::BadContact(reason) => (400, (*reason).into(), vec![]),
        Denied::BadPath => (400, "Bad Path".into(), vec![]),
        Denied::TooBrief => {
            let min_s = policy.min_expires.as_secs().to_string();
            (423, "Interval Too Brief".into(), vec![(HeaderName::MinExpires, min_s)])
        }
        Denied::OutOfOrder => (500, "CSeq Not Above The Last".into(), vec![]),
        Denied::TooMany(max) => {
            (403, format!("Too Many Contacts, {max} Are Registered Already").into(), vec![])
        }
    };
    Reply { status, reason, headers, events: vec![] }
}

/// Compares by text, as the store does: the same device or contact may come in new words.
fn changes(before: &[Binding], stays: &[bool], new: &[Binding]) -> Vec<RegisterEvent> {
    let is_left = |contact: &str| {
        let old = before.iter().zip(stays).filter(|(_, stays)| **stays).map(|(old, _)| old);
        old.chain(new).any(|left| *left.contact == *contact)
    };
    let gone = before.iter().filter(|old| !is_left(&old.contact)).cloned().map(unbound);
    let new = new.iter().filter(|new| !before.contains(new)).cloned().map(Box::new);
    gone.chain(new.map(RegisterEvent::Bound)).collect()
}

fn shorten(name: &str) -> &str {
    let end = name.char_indices().nth(USER_AGENT_CHARS_MAX).map_or(name.len(), |(end, _)| end);
    name.get(..end).unwrap_or_default()
}

fn unbound(binding: Binding) -> RegisterEvent {
    RegisterEvent::Unbound { aor: binding.aor, contact: binding.contact }
}

fn contact_value(binding: &Binding, wall: SystemTime) -> String {
    let mut value = format!("<{}>;expires={}", binding.contact, binding.remaining_s(wall));
    if binding.q != Q_MAX {
        value.push_str(&format!(";q=0.{:03}", binding.q));
    }
    if let Some(instance) = &binding.instance {
        value.push_str(&format!(";+sip.instance=\"{instance}\""));
    }
    if let Some(reg_id) = binding.reg_id {
        value.push_str(&format!(";reg-id={reg_id}"));
    }
    value
}

/// Chooses where requests to a contact go: over the flow it registered on, unless the contact names
/// another address that can be believed.
///
/// | registered over | contact | goes to |
/// |---|---|---|
/// | TCP, or by way of a Path, or with `;ob` | any | the flow |
/// | UDP | a name, `.invalid` | the flow |
/// | UDP | the source's address, its port | the flow, which is the same |
/// | UDP | the source's address, another port, `rport` in Via (RFC 3581: symmetric) | the flow |
/// | UDP | the source's address, another port | the contact |
/// | UDP | another address, a private one or Via behind a NAT | the flow |
/// | UDP | another public address | the contact |
fn reach(flow: Flow, contact: &Uri<'_>, via: &Via<'_>, path: &[Box<str>]) -> Flow {
    let is_bound_to_flow = match flow.transport {
        Transport::Tcp | Transport::Tls => true,
        Transport::Udp => !path.is_empty() || contact.params.has("ob"),
    };
    let source = flow.remote.ip().to_canonical();
    let Some(ip) = contact.ip().filter(|_| !is_bound_to_flow) else { return flow };
    let is_believed = if ip == source {
        !via.has_rport()
    } else {
        via.ip() == Some(source) && !is_private(ip) && ip.is_ipv4() == source.is_ipv4()
    };
    if !is_believed {
        return flow;
    }
    let port = contact.port.unwrap_or(flow.transport.default_port());
    Flow { remote: (ip, port).into(), ..flow }
}

/// Returns whether an address means something only where it was given.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && (64..128).contains(&b); // RFC 6598
            is_shared
                || ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
        }
        IpAddr::V6(ip) => {
            ip.is_unique_local()
                || ip.is_unicast_link_local()
                || ip.is_loopback()
                || ip.is_unspecified()
        }
    }
}

fn is_sip(scheme: Scheme) -> bool {
    match scheme {
        Scheme::Sip => true,
        Scheme::Sips | Scheme::Tel | Scheme::Urn | Scheme::Other => false,
    }
}

/// Reads `expires`; a number too large to count is a long time, anything else is nonsense.
fn parse_seconds(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u32::MAX))
}

/// Reads a `qvalue` (RFC 3261 25.1) as thousandths: `0.75` is 750.
fn parse_q(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_fraction = fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
    let thousandths: u16 = format!("{fraction:0<3}").parse().ok().filter(|_| is_fraction)?;
    match (whole, thousandths) {
        ("0" | "", q) => Some(q),
        ("1", 0) => Some(Q_MAX),
        (_, _) => None,
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test's sums are its own")]
#[path = "register_tests.rs"]
mod tests;
