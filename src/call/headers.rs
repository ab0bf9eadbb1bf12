//! The B2BUA's header policy, all of it: what passes from one leg to the other, what is rewritten,
//! what is dropped.
//!
//! Passes: display names; the end-to-end headers in [`PASS`] and `X-` headers, between phones and
//! from a trunk to phones; those of the carrier from a trunk only. Rewritten: Request-URI, From, To,
//! Contact, Via, Call-ID, CSeq, Max-Forwards, identity. Dropped: everything else, so that neither side sees
//! the other's topology.
//!
//! Owns: identity towards each kind of peer.
//! Never: sends anything.

use super::outgoing::InviteSpec;
use crate::{
    config::{Config, Trunk, User},
    dialplan::E164,
    ids::Transport,
    sip::{HeaderLine, HeaderName, Message, Uri, quote},
    trunk::routes::{Edge, authority},
};
use std::{borrow::Cow, sync::Arc};

/// Headers that speak to the other person, not to the other hop.
const PASS: &[HeaderName] = &[
    HeaderName::AlertInfo,
    HeaderName::CallInfo,
    HeaderName::Organization,
    HeaderName::Priority,
    HeaderName::Subject,
];
/// How the carrier's own headers begin: `X-Twilio-VerStat` says whether a caller's number was attested.
const CARRIERS: &str = "x-twilio-";
/// How many `X-` headers pass, and how long each may be.
const EXTENSION_HEADERS_MAX: usize = 16;
const EXTENSION_HEADER_BYTES_MAX: usize = 512;
/// RFC 3323 4.1.1.3.
const ANONYMOUS: &str = "\"Anonymous\" <sip:anonymous@anonymous.invalid>";

/// Who calls, as the callee is to see it.
#[derive(Clone, Debug)]
pub struct Identity {
    /// A user's name, or the number of somebody outside.
    pub user: Box<str>,
    /// The display name.
    pub display: Option<Box<str>>,
    /// The number, where the caller is outside or has one of its own.
    pub number: Option<E164>,
    /// Whether the caller asks not to be shown (RFC 3323).
    pub is_private: bool,
    /// Our own user, where it is one.
    pub phone: Option<Arc<User>>,
}

impl Identity {
    /// Returns the From value towards a phone or a stranger.
    fn name_addr(&self, host: &str) -> Vec<u8> {
        if self.is_private {
            return ANONYMOUS.as_bytes().to_vec();
        }
        let uri = format!("<sip:{}@{host}>", escape_user(&self.user));
        match &self.display {
            Some(display) => format!("{} {uri}", quote(display)).into_bytes(),
            None => uri.into_bytes(),
        }
    }
}

/// Writes the INVITE to a phone at one of its bindings.
pub(super) fn to_phone(
    identity: &Identity,
    callee: &User,
    (uri, routes): (String, Vec<Box<str>>),
    invite: &Message,
    config: &Config,
) -> InviteSpec {
    let realm = &config.sip.realm;
    let mut headers = passed(identity, invite);
    if identity.is_private {
        headers.push(privacy());
    } else if identity.phone.is_none() {
        let asserted = format!("<sip:{}@{realm}>", escape_user(&identity.user));
        headers.push((HeaderName::PAssertedIdentity.as_str().into(), asserted.into_bytes()));
    }
    InviteSpec {
        uri: without_headers(&uri).into(),
        from: identity.name_addr(realm).into(),
        to: format!("<sip:{}@{realm}>", escape_user(&callee.name)).into_bytes().into(),
        routes,
        headers,
        max_forwards: hops_left(invite, config),
    }
}

/// Writes the INVITE to a carrier's edge: the forced caller ID, and nothing of the phone behind it. A
/// caller who is not to be shown is asserted all the same, for the carrier (RFC 3325 9.1).
pub(super) fn to_trunk(
    trunk: &Trunk,
    edge: &Edge,
    number: &str,
    (caller_id, is_private): (&E164, bool),
    max_forwards: u32,
) -> InviteSpec {
    let transport = match trunk.transport {
        Transport::Udp => "",
        Transport::Tcp => ";transport=tcp",
        Transport::Tls => ";transport=tls",
    };
    let domain = trunk.from_domain.as_deref().unwrap_or(&edge.host);
    let own = ["<sip:", caller_id.expose(), "@", domain, ">"].concat();
    let from: Arc<[u8]> = match (&trunk.caller_name, is_private) {
        (_, true) if trunk.guard.callers.anonymous_from => ANONYMOUS.as_bytes().into(),
        (_, true) => ["\"Anonymous\" ", &own].concat().into_bytes().into(),
        (Some(name), false) => [&*quote(name), " ", &own].concat().into_bytes().into(),
        (None, false) => own.as_bytes().into(),
    };
    let mut headers = vec![(HeaderName::PAssertedIdentity.as_str().into(), own.into_bytes())];
    if is_private {
        headers.push(privacy());
    }
    // RFC 3261 8.1.2: a proxy of ours is a route; the Request-URI stays the trunk's.
    let proxy = trunk.routing.proxy.iter().map(|proxy| {
        ["<sip:", &authority(&proxy.host, proxy.port), transport, ";lr>"].concat().into()
    });
    InviteSpec {
        uri: ["sip:", number, "@", &authority(&edge.host, edge.port), transport].concat().into(),
        from,
        to: ["<sip:", number, "@", &edge.host, ">"].concat().into_bytes().into(),
        routes: proxy.collect(),
        headers,
        max_forwards,
    }
}

/// Writes the INVITE to a URI that the dialplan or a redirection names.
pub(super) fn to_uri(
    identity: &Identity,
    uri: &str,
    invite: &Message,
    config: &Config,
) -> InviteSpec {
    let uri = without_headers(uri);
    InviteSpec {
        uri: uri.into(),
        from: identity.name_addr(&config.sip.realm).into(),
        to: format!("<{uri}>").into_bytes().into(),
        routes: vec![],
        headers: passed(identity, invite),
        max_forwards: hops_left(invite, config),
    }
}

/// Leaves out the headers that a URI asks for: they are not for a Request-URI (RFC 3261 19.1.1), and would be
/// what a phone says in the name of another.
fn without_headers(uri: &str) -> &str {
    let headers = Some(uri).filter(|uri| uri.contains('?')).and_then(Uri::parse);
    let headers = headers.map(|uri| uri.headers).filter(|headers| !headers.is_empty());
    let bare = headers.and_then(|headers| uri.strip_suffix(headers)?.strip_suffix('?'));
    bare.unwrap_or(uri)
}

fn passed(identity: &Identity, invite: &Message) -> Vec<(Cow<'static, str>, Vec<u8>)> {
    let known = invite.lines().filter(|line| PASS.contains(&line.id()));
    let begins = |line: &HeaderLine<'_>, with: &str| {
        line.name().get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
    };
    // What a carrier says of a caller, a phone may not say of itself.
    let is_forged = |line: &HeaderLine<'_>| identity.phone.is_some() && begins(line, CARRIERS);
    let extensions = invite
        .lines()
        .filter(|line| begins(line, "x-") && !is_forged(line))
        .filter(|line| line.line().len() <= EXTENSION_HEADER_BYTES_MAX)
        .take(EXTENSION_HEADERS_MAX);
    let owned = |line: HeaderLine<'_>| (line.name().to_owned().into(), line.value().into_owned());
    known.chain(extensions).map(owned).collect()
}

/// RFC 3261 16.6: one hop less than the caller allowed. A B2BUA that forgot it would make loops.
fn hops_left(invite: &Message, config: &Config) -> u32 {
    let most = config.sip.max_forwards.into();
    invite.number(HeaderName::MaxForwards).map_or(most, |n| n.saturating_sub(1)).min(most)
}

fn privacy() -> (Cow<'static, str>, Vec<u8>) {
    (HeaderName::Privacy.as_str().into(), b"id".to_vec())
}

/// Escapes what may not stand in a URI's user part (RFC 3261 25.1).
pub(super) fn escape_user(user: &str) -> String {
    let mut out = String::with_capacity(user.len());
    for byte in user.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_in_a_uri_are_left_out() {
        for (uri, bare) in [
            ("sip:1002@192.0.2.1:5060", "sip:1002@192.0.2.1:5060"),
            ("sip:1002@192.0.2.1;transport=tcp?From=x&To=y", "sip:1002@192.0.2.1;transport=tcp"),
            ("sip:a?b@192.0.2.1", "sip:a?b@192.0.2.1"),
            ("sip:a?b@192.0.2.1?P-Asserted-Identity=c%3F", "sip:a?b@192.0.2.1"),
        ] {
            assert_eq!(without_headers(uri), bare);
        }
    }
}
