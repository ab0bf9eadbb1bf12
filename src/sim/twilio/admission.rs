//! Whether a call to the PSTN is put through: everything that Twilio checks, in its order.
//!
//! Owns: the checks and the refusals.
//! Never: lets a call ring; `termination` does.

use super::{
    super::{agent::Asked, talk::Talk},
    Deviation, GATEWAY, Rule, State, Twilio,
    memory::called,
    numbers::{At, FarEnd, far_end},
    offer,
};
use crate::{
    ids::Flow,
    network::Network,
    sip::{
        HeaderName, Message, NameAddr, Scheme, Uri, default_reason,
        digest::{self, Algorithm, Credentials},
    },
};
use std::time::Instant;

/// Numbers that need no country code.
const SHORT: [&str; 4] = ["911", "933", "112", "999"];
/// Max-Forwards must not be below.
const HOPS_MIN: u32 = 20;

/// A call that is not put through.
pub(super) struct Refused {
    pub(super) status: u16,
    /// `""`: the usual phrase.
    pub(super) reason: &'static str,
    pub(super) error: Option<u32>,
    pub(super) because: Option<Deviation>,
}

impl Refused {
    pub(super) fn by(rule: Rule, status: u16, evidence: impl Into<String>) -> Self {
        Self::saying(rule, (status, ""), evidence)
    }

    pub(super) fn saying(
        rule: Rule,
        (status, reason): (u16, &'static str),
        evidence: impl Into<String>,
    ) -> Self {
        let because = Some(Deviation { rule, evidence: evidence.into() });
        Self { status, reason, error: rule.error(), because }
    }
}

impl Twilio {
    /// What is checked before anybody is asked for a password.
    pub(super) fn check_first(&self, asked: &Asked) -> Result<(), Refused> {
        let (message, source) = (&asked.message, asked.flow.remote.ip());
        let account = &self.setup.account;
        let hops = message.number(HeaderName::MaxForwards).unwrap_or(70);
        if hops < HOPS_MIN {
            return Err(Refused::by(Rule::MaxForwards, 483, format!("Max-Forwards: {hops}")));
        }
        if let Some(uri) = secure_uri(message) {
            return Err(Refused::by(Rule::NoSips, 416, uri));
        }
        let from = || format!("INVITE from {source}");
        if Network::any(&account.blocked_sources, source) {
            return Err(Refused::saying(Rule::SourceNotBlocked, (403, "Blocked"), from()));
        }
        if !account.allowed.is_empty() && !Network::any(&account.allowed, source) {
            return Err(Refused::by(Rule::SourceAllowed, 403, from()));
        }
        match far_end(called(message)) {
            FarEnd::Refuses { at: At::First, status, reason, error } => {
                Err(Refused { status, reason, error, because: None })
            }
            FarEnd::Refuses { at: At::Once | At::Later, .. }
            | FarEnd::Answers { .. }
            | FarEnd::RingsForever
            | FarEnd::Silent => Ok(()),
        }
    }

    /// Returns whether a message answers a challenge of ours, rightly or not.
    pub(super) fn has_credentials(&self, message: &Message) -> bool {
        let credentials = message.credentials(HeaderName::ProxyAuthorization);
        credentials.iter().any(|c| self.memory.opaque(&c.nonce).is_some())
    }

    pub(super) fn challenge(&mut self, asked: &Asked, now: Instant) {
        let (nonce, opaque) = (self.agent.token(), self.agent.token());
        let mut reply = self.agent.reply(asked, (407, "Proxy Authentication required"), None);
        reply.header(
            HeaderName::ProxyAuthenticate,
            format_args!(
                "Digest realm=\"sip.twilio.com\",qop=\"auth\",nonce=\"{nonce}\",opaque=\"{opaque}\""
            ),
        );
        self.memory.challenge(nonce, opaque);
        self.agent.respond(asked.tx, 407, reply.finish(), now);
    }

    pub(super) fn check_digest(&self, message: &Message) -> Result<(), Refused> {
        let Some((username, password)) = &self.setup.account.credentials else { return Ok(()) };
        let all = message.credentials(HeaderName::ProxyAuthorization);
        let known = |c: &&Credentials| self.memory.opaque(&c.nonce).is_some();
        let Some(given) = all.iter().find(known) else { return Ok(()) };
        if given.opaque.as_deref() != self.memory.opaque(&given.nonce) {
            return Err(Refused::by(Rule::OpaqueEchoed, 403, "another `opaque`, or none"));
        }
        let ha1 = digest::ha1(Algorithm::Md5, username, "sip.twilio.com", password);
        let is_right = *given.username == **username
            && *given.uri == *message.uri()
            && digest::verify(given, &ha1, message.method().as_str());
        if is_right {
            Ok(())
        } else {
            Err(Refused::by(Rule::Credentials, 403, "the digest does not fit"))
        }
    }

    /// What is checked of a call whose sender is known.
    pub(super) fn check(&mut self, asked: &Asked, now: Instant) -> Result<(), Refused> {
        let message = &asked.message;
        if self.setup.account.state == State::Suspended {
            return Err(Refused::by(Rule::AccountActive, 603, "a call of a suspended account"));
        }
        let number = called(message);
        if !is_e164(number) && !SHORT.contains(&number) {
            let said = (400, "Invalid phone number");
            return Err(Refused::saying(Rule::CalledE164, said, format!("a call to `{number}`")));
        }
        self.check_caller(message)?;
        self.check_called(number)?;
        if message.has_option(HeaderName::Require, "timer") {
            return Err(Refused::by(Rule::NoSessionTimer, 422, "Require: timer"));
        }
        if let Some(required) = message.header_str(HeaderName::Require) {
            return Err(Refused::by(Rule::KnownExtensions, 420, format!("Require: {required}")));
        }
        offer::check(message, self.setup.policy.secure, asked.flow.transport)?;
        self.check_limits(asked.flow, now)?;
        self.note_oddities(message, asked.flow);
        Ok(())
    }

    /// The caller ID: From, or what stands for it, and Remote-Party-ID, which must be right as well.
    fn check_caller(&self, message: &Message) -> Result<(), Refused> {
        let (account, number) = (&self.setup.account, called(message));
        let remote_party = named(message, "Remote-Party-ID");
        let caller = user_of(&message.from());
        let caller = match &*caller {
            "" | "anonymous" => {
                let asserted = || named(message, "P-Asserted-Identity");
                remote_party.clone().or_else(asserted).unwrap_or(caller)
            }
            _ => caller,
        };
        let evidence = || format!("a call from `{caller}`");
        if !is_e164(&caller) {
            return Err(Refused::by(Rule::CallerE164, 400, evidence()));
        }
        let not_owned = (403, "Caller ID not owned or verified");
        if SHORT.contains(&number) && !account.numbers.iter().any(|known| **known == *caller) {
            let evidence = format!("a call to {number} from {caller}");
            return Err(Refused::saying(Rule::EmergencyCaller, not_owned, evidence));
        }
        if !account.has(&caller) {
            let evidence = format!("a call from {caller}");
            return Err(Refused::saying(Rule::CallerOwned, not_owned, evidence));
        }
        match remote_party.filter(|number| !account.has(number)) {
            Some(other) => {
                let evidence = format!("Remote-Party-ID names `{other}`");
                Err(Refused::saying(Rule::RemotePartyValid, not_owned, evidence))
            }
            None => Ok(()),
        }
    }

    fn check_called(&self, number: &str) -> Result<(), Refused> {
        let account = &self.setup.account;
        if SHORT.contains(&number) {
            return Ok(());
        }
        let evidence = || format!("a call to {number}");
        if account.state == State::Trial && !account.has(number) {
            let said = (400, "Unverified number");
            return Err(Refused::saying(Rule::CalledVerified, said, evidence()));
        }
        let mut enabled = account.countries.iter();
        let is_enabled = enabled.any(|prefix| number.starts_with(&**prefix));
        if !account.countries.is_empty() && !is_enabled {
            let said = (403, "International calling not enabled");
            return Err(Refused::saying(Rule::CountryEnabled, said, evidence()));
        }
        if account.blocked.iter().any(|blocked| **blocked == *number) {
            return Err(Refused::saying(Rule::CalledNotBlocked, (403, "Blocked"), evidence()));
        }
        Ok(())
    }

    fn check_limits(&mut self, flow: Flow, now: Instant) -> Result<(), Refused> {
        let limits = self.setup.limits;
        let mut edges = self.setup.edges.iter();
        let edge = edges.find(|edge| edge.proxies.iter().any(|proxy| proxy.is_at(flow.local)));
        let [at_edge, from_source] = self.memory.call_comes(edge, flow, now);
        let too_fast = (503, "Trunk CPS limit exceeded");
        if let Some(limit) = limits.calls_per_s.filter(|limit| at_edge > *limit) {
            let evidence = format!("more than {limit} calls in a second");
            return Err(Refused::saying(Rule::CallPace, too_fast, evidence));
        }
        if from_source > limits.calls_per_address_s {
            let evidence = format!("{from_source} calls in a second to {}", flow.local);
            return Err(Refused::saying(Rule::SpreadsCalls, too_fast, evidence));
        }
        if let Some(limit) = limits.calls_max.filter(|limit| self.calls() >= *limit) {
            let said = (503, "Trunk concurrent call limit exceeded");
            let evidence = format!("more than {limit} calls at a time");
            return Err(Refused::saying(Rule::CallCount, said, evidence));
        }
        Ok(())
    }

    /// What a call is not refused for, but suffers from.
    fn note_oddities(&mut self, message: &Message, flow: Flow) {
        let account = &self.setup.account;
        let domain = account.termination.split_once(".pstn.").map_or("", |(_, domain)| domain);
        let foreign = message.values(HeaderName::Diversion).find(|value| {
            let address = NameAddr::parse(value);
            let uri = address.as_ref().and_then(NameAddr::parsed_uri);
            uri.is_some_and(|uri| {
                uri.host.ends_with(domain) && !account.has(uri.user.unwrap_or_default())
            })
        });
        if let Some(value) = foreign {
            let evidence = format!("Diversion {} is stripped", String::from_utf8_lossy(&value));
            self.deviate(Rule::DiversionOwned, evidence);
        }
        self.note_addresses(message, flow);
    }

    /// Addresses of the PBX's that nobody on the Internet reaches.
    pub(super) fn note_addresses(&mut self, message: &Message, flow: Flow) {
        if let Some(line) = offer::unreachable(message, flow) {
            self.deviate(Rule::PublicMedia, format!("`{line}` from {}", flow.remote.ip()));
        }
        let contact = message.values(HeaderName::Contact).next();
        let address = contact.as_ref().and_then(|value| NameAddr::parse(value));
        let ip = address.and_then(|address| address.parsed_uri()?.ip());
        if let Some(ip) = ip.filter(|ip| offer::is_out_of_reach(*ip, flow)) {
            self.deviate(
                Rule::PublicContact,
                format!("{ip} in Contact, from {}", flow.remote.ip()),
            );
        }
    }

    pub(super) fn refuse(
        &mut self,
        asked: &Asked,
        talk: Option<&Talk>,
        refused: Refused,
        now: Instant,
    ) {
        let Refused { status, reason, error, because } = refused;
        let reason = if reason.is_empty() { default_reason(status) } else { reason };
        let mut reply = self.agent.reply(asked, (status, reason), talk);
        if let Some(error) = error.filter(|_| self.setup.names_errors) {
            reply.raw_header("X-Twilio-Error", format!("{error} {reason}").as_bytes());
        }
        if status == 422 {
            reply.header(HeaderName::MinSe, 7200);
        }
        reply.header(HeaderName::Server, GATEWAY);
        self.agent.respond(asked.tx, status, reply.finish(), now);
        self.deviations.extend(because);
    }
}

/// Returns the `sips:` URI that a request names, if it does.
fn secure_uri(message: &Message) -> Option<String> {
    let contact = message.values(HeaderName::Contact).next();
    let contact = contact.as_ref().and_then(|value| NameAddr::parse(value));
    let uris = [Some(message.uri()), Some(message.from().uri), contact.map(|contact| contact.uri)];
    let is_secure =
        |uri: &&str| Uri::parse(uri).is_some_and(|uri| matches!(uri.scheme, Scheme::Sips));
    uris.into_iter().flatten().find(is_secure).map(str::to_owned)
}

fn user_of(address: &NameAddr<'_>) -> String {
    address.parsed_uri().map(|uri| uri.user_unescaped().into_owned()).unwrap_or_default()
}

/// Returns the number in such a header.
fn named(message: &Message, header: &str) -> Option<String> {
    NameAddr::parse(&message.other(header)?).map(|address| user_of(&address))
}

/// Returns whether a number is what Twilio calls E.164.
pub(super) fn is_e164(number: &str) -> bool {
    number.strip_prefix('+').is_some_and(|digits| {
        (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}
