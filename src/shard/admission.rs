//! Admission: what happens to a request that belongs to no dialog of ours (RFC 3261 8.2).
//!
//! Owns: the order of the checks, and every refusal that needs no call.
//! Never: opens a call (`invite` does) or changes a binding (`register` does).

use super::{Core, Shard, invite::Caller, packets, refused::Why};
use crate::{
    call::ALLOW,
    config::{User, UserSecret},
    guard::Offence,
    ids::{Flow, Transport},
    registrar::{Known, Reason, Verdict},
    sip::{Builder, HeaderName, Message, Method, ParseError, Scheme, Uri, default_reason},
    transaction::{self, ServerId},
};
use bytes::Bytes;
use std::{borrow::Cow, net::IpAddr, sync::Arc, time::Instant};

/// Extensions that an INVITE may require of us.
const INVITE_EXTENSIONS: &[&str] = &["100rel", "timer"];
/// Extensions that a REGISTER may require of us.
const REGISTER_EXTENSIONS: &[&str] = &["path", "outbound"];
/// RFC 3261 21.5.7: a message we will not look into. A datagram cannot be larger.
const REQUEST_MAX: usize = 65_535;
/// How many times as many bytes as somebody unknown has sent may go back.
const AMPLIFIES: usize = 2;
/// How long one stays away after too many wrong passwords, in seconds.
const GUESS_AFTER_S: u32 = 30;
/// How many extensions are named that we do not know.
const UNSUPPORTED_MAX: usize = 16;
/// How long a refused caller should stay away, in seconds.
const RETRY_AFTER_S: u32 = 5;

/// A refusal: status, reason phrase where the default says too little, headers.
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) reason: Option<Cow<'static, str>>,
    pub(super) headers: Vec<(HeaderName, String)>,
}

/// How much an answer says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Length {
    /// All of it.
    Full,
    /// What cannot be left out: a challenge, where there is one.
    Short,
}

impl Refusal {
    pub(super) fn plain(status: u16) -> Self {
        Self { status, reason: None, headers: vec![] }
    }

    pub(super) fn because(status: u16, reason: &'static str) -> Self {
        Self { status, reason: Some(reason.into()), headers: vec![] }
    }

    /// Says it for the record of a call.
    pub(super) fn why(&self) -> Why {
        let reason = match self.reason {
            Some(Cow::Borrowed(reason)) => reason,
            Some(Cow::Owned(_)) | None => default_reason(self.status),
        };
        Why::Status(self.status, reason)
    }

    /// Says that there is no room now, but may be soon.
    pub(super) fn overloaded() -> Self {
        Self::plain(503).with(HeaderName::RetryAfter, RETRY_AFTER_S.to_string())
    }

    fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Shard {
    /// Decides about a request outside every dialog.
    pub(super) fn admit(&mut self, tx: ServerId, message: Message, flow: Flow, now: Instant) {
        if let Err(refusal) = self.check(&message) {
            return self.turn_away(tx, &message, flow, &refusal);
        }
        match message.method() {
            Method::Invite => self.admit_invite(tx, message, flow, now),
            Method::Register => self.admit_register(tx, &message, flow, now),
            Method::Options => self.answer_options(tx, &message, flow),
            Method::Bye | Method::Update | Method::Prack | Method::Info => {
                self.turn_away(tx, &message, flow, &Refusal::plain(481));
            }
            Method::Subscribe => self.turn_away(tx, &message, flow, &Refusal::plain(489)),
            Method::Message | Method::Notify | Method::Publish | Method::Refer => {
                let refusal = Refusal::plain(405).with(HeaderName::Allow, ALLOW);
                self.turn_away(tx, &message, flow, &refusal);
            }
            Method::Other => {
                let refusal = Refusal::plain(501).with(HeaderName::Allow, ALLOW);
                self.turn_away(tx, &message, flow, &refusal);
            }
            // The transaction layer keeps these to itself.
            Method::Ack | Method::Cancel => {}
        }
    }

    /// The checks of RFC 3261 8.2 and 16.3 that do not depend on who asks.
    fn check(&self, message: &Message) -> Result<(), Refusal> {
        if message.bytes().len() > REQUEST_MAX {
            return Err(Refusal::plain(513));
        }
        let scheme = Uri::parse(message.uri()).map(|uri| uri.scheme);
        match (scheme, message.method()) {
            (None, _) => return Err(Refusal::because(400, "Bad Request-URI")),
            (Some(Scheme::Sip), _) | (Some(Scheme::Tel), Method::Invite) => {}
            (Some(Scheme::Sips | Scheme::Tel | Scheme::Urn | Scheme::Other), _) => {
                return Err(Refusal::plain(416));
            }
        }
        if message.number(HeaderName::MaxForwards) == Some(0) {
            return Err(Refusal::plain(483));
        }
        if message.branches().any(|branch| self.core.mint.knows(branch)) {
            return Err(Refusal::plain(482));
        }
        let method = message.method();
        let known = if method == Method::Invite {
            INVITE_EXTENSIONS
        } else if method == Method::Register {
            REGISTER_EXTENSIONS
        } else {
            &[]
        };
        let unsupported = unsupported(message, known);
        if !unsupported.is_empty() {
            return Err(Refusal::plain(420).with(HeaderName::Unsupported, unsupported));
        }
        check_body(message)
    }

    /// Answers OPTIONS as the INVITE's part of us would (RFC 3261 11.2).
    pub(super) fn answer_options(&mut self, tx: ServerId, message: &Message, flow: Flow) {
        let refusal = Refusal::plain(if self.is_draining { 503 } else { 200 })
            .with(HeaderName::Allow, ALLOW)
            .with(HeaderName::Accept, "application/sdp")
            .with(HeaderName::AcceptEncoding, "identity")
            .with(HeaderName::AcceptLanguage, "en")
            .with(HeaderName::Supported, "100rel, timer, path");
        self.turn_away(tx, message, flow, &refusal);
    }

    /// Answers with a status and nothing else.
    pub(super) fn reply(
        &mut self,
        tx: ServerId,
        message: &Message,
        flow: Flow,
        status: u16,
        now: Instant,
    ) {
        self.refuse(tx, message, flow, &Refusal::plain(status), now);
    }

    /// Answers somebody known with a status, a reason and headers.
    pub(super) fn refuse(
        &mut self,
        tx: ServerId,
        message: &Message,
        flow: Flow,
        refusal: &Refusal,
        now: Instant,
    ) {
        let bytes = self.refusal(message, flow, refusal, Length::Full);
        self.core.tx.respond(tx, refusal.status, bytes, now, &mut self.core.sent);
    }

    /// Answers whoever it may be, and forgets the request: one answer for each packet, never repeated,
    /// and nothing kept (RFC 3261 8.2.7, 26.3.2.4). Whose address is forged gets over UDP at most
    /// [`AMPLIFIES`] times what was sent in its name.
    pub(super) fn turn_away(
        &mut self,
        tx: ServerId,
        message: &Message,
        flow: Flow,
        refusal: &Refusal,
    ) {
        self.core.tx.abandon(tx);
        let room = room_for(message.bytes().len(), flow);
        let lengths = [Length::Full, Length::Short].into_iter();
        let mut answers = lengths.map(|length| self.refusal(message, flow, refusal, length));
        match answers.find(|bytes| bytes.len() <= room) {
            Some(bytes) => self.core.sent.push(transaction::Output::Send { flow, bytes }),
            None => self.counters.discards.count("too_short_to_answer"),
        }
    }

    /// Writes an answer. The tag is always the same for the same call.
    fn refusal(&self, message: &Message, flow: Flow, refusal: &Refusal, length: Length) -> Bytes {
        let tag = self.core.mint.tag_of(message.call_id());
        let reason = refusal.reason.as_deref().unwrap_or(default_reason(refusal.status));
        let mut builder = Builder::reply(message, refusal.status, reason, Some(&tag), flow.remote);
        let skipped = match length {
            Length::Full => 0,
            // Of several challenges, the last is the one that every phone knows.
            Length::Short => refusal.headers.len().saturating_sub(1),
        };
        for (name, value) in refusal.headers.iter().skip(skipped) {
            builder.header(*name, value);
        }
        if length == Length::Full {
            builder.header(HeaderName::Server, &self.core.shared.config.sip.user_agent);
        }
        builder.finish()
    }

    /// Says at once that an INVITE has come, to somebody known: from then on it is not repeated.
    pub(super) fn say_trying(&mut self, tx: ServerId, message: &Message, flow: Flow, now: Instant) {
        let trying = Builder::reply(message, 100, default_reason(100), None, flow.remote).finish();
        self.core.tx.respond(tx, 100, trying, now, &mut self.core.sent);
    }

    /// Finds out which user of ours sends this request; answers it where that is not clear.
    pub(super) fn authenticate(
        &mut self,
        tx: ServerId,
        message: &Message,
        flow: Flow,
        now: Instant,
    ) -> Option<Box<str>> {
        if !self.may_guess(message, flow, now) {
            self.counters.authentications.count("unjudged");
            if self.core.auth.has_been_asked(message, flow.remote.ip()) {
                self.strike(Offence::Guess, flow, now);
            }
            let later = Refusal::plain(503).with(HeaderName::RetryAfter, GUESS_AFTER_S.to_string());
            self.turn_away(tx, message, flow, &later);
            return None;
        }
        let (word, refusal) = match self.core.verdict((message, flow.remote.ip()), now) {
            Verdict::Ok(user) => {
                self.counters.authentications.count("ok");
                return Some(user);
            }
            Verdict::Challenge { values, reason } => {
                let mut refusal = Refusal::plain(401);
                for value in values {
                    refusal = refusal.with(HeaderName::WwwAuthenticate, value);
                }
                let word = match reason {
                    Reason::Missing => "challenged",
                    Reason::Stale => "stale",
                    Reason::Wrong => "wrong",
                };
                if reason == Reason::Wrong {
                    self.note_guess(message, flow, now);
                }
                (word, refusal)
            }
            Verdict::Refuse { status, reason } => {
                // The password was right: it is a phone of ours that asks for what it may not have.
                if let Some(user) = self.named_user(message).filter(|_| is_call(message)) {
                    let why = if status == 403 { Why::Claim } else { Why::Status(status, reason) };
                    self.record_refused(message, &Caller::Phone(user), why, now);
                }
                ("refused", Refusal::because(status, reason))
            }
        };
        self.counters.authentications.count(word);
        self.turn_away(tx, message, flow, &refusal);
        None
    }
}

impl Shard {
    /// Answers what was meant to be a request, as far as it can be.
    pub(super) fn refuse_unreadable(
        &mut self,
        error: &ParseError,
        len: usize,
        flow: Flow,
        now: Instant,
    ) {
        packets::unreadable(error, flow);
        self.counters.discards.count("unreadable");
        self.strike(Offence::Junk, flow, now);
        if let Some(salvage) = &error.salvage {
            let status = error.problem.status();
            let bytes = salvage.reply(status, &error.problem.to_string(), flow.remote);
            if bytes.len() <= room_for(len, flow) {
                self.core.sent.push(transaction::Output::Send { flow, bytes });
            }
        }
    }

    /// Tells of a wrong password: in the log, and where it was a call, in a record. It counts against
    /// its source.
    fn note_guess(&mut self, message: &Message, flow: Flow, now: Instant) {
        let credentials = message.credentials(HeaderName::Authorization).into_iter().next();
        let name = credentials.as_ref().map_or("", |credentials| &*credentials.username);
        self.guesses.note(name, flow.remote.ip(), now);
        let at_home = self.at_home(name, flow, now).then_some(name);
        self.guesses.spend(flow.remote.ip(), at_home, now);
        self.strike(Offence::Guess, flow, now);
        if let Some(user) = self.named_user(message).filter(|_| is_call(message)) {
            self.suspect(message, user, now);
        }
    }

    /// Returns whether a request's password may be looked at: not where too many wrong ones have come
    /// from there. A phone that is registered from there goes on: what its neighbours do is not its fault.
    fn may_guess(&self, message: &Message, flow: Flow, now: Instant) -> bool {
        let source = flow.remote.ip();
        if !self.guesses.suspects(source) {
            return true;
        }
        let credentials = message.credentials(HeaderName::Authorization);
        credentials.first().is_none_or(|credentials| {
            let at_home = self.at_home(&credentials.username, flow, now);
            self.guesses.may_judge(source, at_home.then_some(&*credentials.username), now)
        })
    }

    /// Returns whether a phone of this user is registered from where a request comes from.
    pub(super) fn at_home(&self, name: &str, flow: Flow, now: Instant) -> bool {
        let bindings = self.core.shared.location.find(name, self.core.wall(now));
        bindings.iter().any(|bound| bound.flow.remote.ip() == flow.remote.ip())
    }

    /// Returns the user whose name stands in a request's credentials.
    fn named_user(&self, message: &Message) -> Option<Arc<User>> {
        let credentials = message.credentials(HeaderName::Authorization).into_iter().next()?;
        self.core.shared.config.users.get(&credentials.username).cloned()
    }
}

/// Returns how many bytes may go back to somebody unknown who has sent `len`: over UDP, the address may be
/// forged.
pub(super) fn room_for(len: usize, flow: Flow) -> usize {
    match flow.transport {
        Transport::Udp => len.saturating_mul(AMPLIFIES),
        Transport::Tcp | Transport::Tls => usize::MAX,
    }
}

fn is_call(message: &Message) -> bool {
    message.method() == Method::Invite
}

impl Core {
    fn verdict(&mut self, request: (&Message, IpAddr), now: Instant) -> Verdict {
        // A nonce is of this process: whoever sets the clock makes none of them too old, or too young.
        let steady = self.clock.steady(now);
        let users = &self.shared.config.users;
        self.auth.check(request, |name| users.get(name).map(|user| known(user)), steady)
    }

    /// Offers phones only what every user's stored secret can check.
    pub(super) fn offer_to_users(&mut self) {
        let config = &self.shared.config;
        self.auth.offer_to(&config.sip.digest, config.users.values().map(|user| known(user)));
    }
}

fn known(user: &User) -> Known<'_> {
    match &user.secret {
        UserSecret::Password(secret) => Known::Password(secret.expose()),
        UserSecret::Ha1 { md5, sha256 } => Known::Ha1 {
            md5: md5.as_ref().map(|secret| secret.expose()),
            sha256: sha256.as_ref().map(|secret| secret.expose()),
        },
    }
}

/// Lists what a request requires and we do not know (RFC 3261 8.2.2.3).
fn unsupported(message: &Message, known: &[&str]) -> String {
    let required =
        message.values(HeaderName::Require).chain(message.values(HeaderName::ProxyRequire));
    let mut unknown: Vec<String> = vec![];
    for option in required {
        let option = String::from_utf8_lossy(&option);
        if !known.iter().any(|k| k.eq_ignore_ascii_case(&option)) {
            unknown.push(option.into_owned());
        }
        if unknown.len() >= UNSUPPORTED_MAX {
            break;
        }
    }
    unknown.join(", ")
}

/// RFC 3261 8.2.3: a body that must be understood and cannot be.
fn check_body(message: &Message) -> Result<(), Refusal> {
    if message.body().is_empty() {
        return Ok(());
    }
    let encoding = message.header_str(HeaderName::ContentEncoding);
    if encoding.is_some_and(|e| !e.eq_ignore_ascii_case("identity")) {
        return Err(Refusal::plain(415).with(HeaderName::AcceptEncoding, "identity"));
    }
    let optional = message
        .header_str(HeaderName::ContentDisposition)
        .is_some_and(|d| d.to_ascii_lowercase().contains("handling=optional"));
    if message.method() == Method::Invite && !message.has_sdp() && !optional {
        return Err(Refusal::plain(415).with(HeaderName::Accept, "application/sdp"));
    }
    Ok(())
}
