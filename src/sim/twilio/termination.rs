//! Calls from the PBX to the PSTN: what is checked, and how they ring and answer.
//!
//! Owns: the order of the checks before a call is put through.
//! Never: touches a call that is up; `inside` does.

use super::{
    super::{
        agent::{Asked, Hears, finish},
        talk::Talk,
    },
    ALLOW, At, Deviation, FarEnd, GATEWAY, MEMORY, Ring, Rule, Stage, Step, Then, Twilio, far_end,
};
use crate::{
    sip::{
        Builder, HeaderName, Message, Method, NameAddr, Uri, default_reason,
        digest::{self, Algorithm, Credentials},
    },
    transaction::ServerId,
};
use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// What Twilio says at once.
const TRYING: &str = "trying -- your call is important to us";
/// Numbers that need no country code.
const SHORT: [&str; 4] = ["911", "933", "112", "999"];
/// How long anything rings.
const PATIENCE: Duration = Duration::from_secs(180);
/// From 183 to the next one, where the far end's media moves.
const MOVES_AFTER: Duration = Duration::from_millis(700);

/// A call that is not put through.
struct Refused {
    status: u16,
    reason: &'static str,
    error: Option<u32>,
    because: Option<Deviation>,
}

impl Refused {
    fn by(rule: Rule, status: u16, evidence: impl Into<String>) -> Self {
        let because = Some(Deviation { rule, evidence: evidence.into() });
        Self { status, reason: "", error: rule.error(), because }
    }
}

impl Twilio {
    /// Returns whether Twilio does not even see a message: it is for another host, is for the number
    /// that nobody answers, or repeats a CSeq number.
    pub(super) fn is_dropped(&mut self, message: &Message) -> bool {
        let is_new = message.is_request() && message.to_tag().is_none();
        if !is_new || !matches!(message.method(), Method::Invite | Method::Options) {
            return false;
        }
        let uri = Uri::parse(message.uri());
        let (host, user) = uri.map_or(("", ""), |uri| (uri.host, uri.user.unwrap_or_default()));
        if !self.setup.is_termination(host) {
            self.deviate(Rule::TerminationUri, format!("{} {}", message.method(), message.uri()));
            return true;
        }
        message.method() == Method::Invite
            && (far_end(user) == FarEnd::Silent || self.is_repeated(message))
    }

    /// Returns whether an INVITE has the CSeq number of another one.
    fn is_repeated(&mut self, invite: &Message) -> bool {
        let (call_id, branch, cseq) = (invite.call_id(), invite.branch(), invite.cseq().number);
        let mut before = self.invites.iter().filter(|(id, ..)| **id == *call_id);
        if before.clone().any(|(_, known, _)| **known == *branch) {
            return false;
        }
        let is_repeated = before.any(|(.., known)| *known >= cseq);
        self.invites.push_back((call_id.into(), branch.into(), cseq));
        if self.invites.len() > MEMORY {
            self.invites.pop_front();
        }
        if is_repeated {
            self.deviate(Rule::CseqAdvances, format!("INVITE with CSeq {cseq} again"));
        }
        is_repeated
    }

    /// Takes a call to the PSTN.
    pub(super) fn take_invite(&mut self, asked: &Asked, now: Instant) {
        let mut trying = self.agent.reply(asked, (100, TRYING), None);
        trying.header(HeaderName::Server, GATEWAY);
        self.agent.respond(asked.tx, 100, trying.finish(), now);
        if let Err(refused) = self.check_first(asked) {
            return self.refuse(asked, None, refused, now);
        }
        if self.setup.account.credentials.is_some() && !self.has_credentials(&asked.message) {
            return self.challenge(asked, now);
        }
        let checked = self.check_digest(&asked.message).and_then(|()| self.check(asked, now));
        if let Err(refused) = checked {
            return self.refuse(asked, None, refused, now);
        }
        let number = called(&asked.message).to_owned();
        let talk = Talk::incoming(&asked.message, &mut self.agent, asked.flow);
        let index = self.open_call(talk, Stage::Trying, &number);
        let call = &mut self.calls[index];
        call.far_end = far_end(&number);
        call.invite = Some(asked.clone());
        // What the proxies recorded is what the PBX must send back to them.
        call.talk.routes = vec![];
        if call.sound.is_some() {
            self.begin(index, now);
        }
    }

    /// What is checked before anybody is asked for a password.
    fn check_first(&self, asked: &Asked) -> Result<(), Refused> {
        let (message, source) = (&asked.message, asked.flow.remote.ip());
        let hops = message.number(HeaderName::MaxForwards).unwrap_or(70);
        if hops < 20 {
            return Err(Refused::by(Rule::MaxForwards, 483, format!("Max-Forwards: {hops}")));
        }
        let is_allowed =
            |ip: IpAddr| self.setup.account.allowed.iter().any(|network| network.contains(ip));
        if !self.setup.account.allowed.is_empty() && !is_allowed(source) {
            return Err(Refused::by(Rule::SourceAllowed, 403, format!("INVITE from {source}")));
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

    fn has_credentials(&self, message: &Message) -> bool {
        let credentials = message.credentials(HeaderName::ProxyAuthorization);
        credentials.iter().any(|c| self.nonces.iter().any(|(nonce, _)| **nonce == *c.nonce))
    }

    fn challenge(&mut self, asked: &Asked, now: Instant) {
        let (nonce, opaque) = (self.agent.token(), self.agent.token());
        let mut reply = self.agent.reply(asked, (407, "Proxy Authentication required"), None);
        reply.header(
            HeaderName::ProxyAuthenticate,
            format_args!(
                "Digest realm=\"sip.twilio.com\",qop=\"auth\",nonce=\"{nonce}\",opaque=\"{opaque}\""
            ),
        );
        self.nonces.push_back((nonce, opaque));
        if self.nonces.len() > MEMORY {
            self.nonces.pop_front();
        }
        self.agent.respond(asked.tx, 407, reply.finish(), now);
    }

    fn check_digest(&self, message: &Message) -> Result<(), Refused> {
        let Some((username, password)) = &self.setup.account.credentials else { return Ok(()) };
        let all = message.credentials(HeaderName::ProxyAuthorization);
        let known = |c: &&Credentials| self.nonces.iter().any(|(nonce, _)| **nonce == *c.nonce);
        let Some(given) = all.iter().find(known) else { return Ok(()) };
        let opaque = self.nonces.iter().find(|(nonce, _)| **nonce == *given.nonce);
        if given.opaque.as_deref() != opaque.map(|(_, opaque)| &**opaque) {
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
    fn check(&mut self, asked: &Asked, now: Instant) -> Result<(), Refused> {
        let message = &asked.message;
        let number = called(message);
        if !is_e164(number) && !SHORT.contains(&number) {
            return Err(Refused {
                reason: "Invalid phone number",
                ..Refused::by(Rule::CalledE164, 400, format!("a call to `{number}`"))
            });
        }
        self.check_caller(message)?;
        if message.has_option(HeaderName::Require, "timer") {
            return Err(Refused::by(Rule::NoSessionTimer, 422, "Require: timer"));
        }
        if let Some(required) = message.header_str(HeaderName::Require) {
            return Err(Refused::by(Rule::KnownExtensions, 420, format!("Require: {required}")));
        }
        check_offer(message)?;
        self.check_limits(now)
    }

    /// The caller ID: From, and whatever else names one.
    fn check_caller(&self, message: &Message) -> Result<(), Refused> {
        let user_of = |address: &NameAddr<'_>| {
            address.parsed_uri().map(|uri| uri.user_unescaped().into_owned()).unwrap_or_default()
        };
        let mut callers = vec![user_of(&message.from())];
        if let Some(remote) = message.other("Remote-Party-ID") {
            callers.extend(NameAddr::parse(&remote).map(|address| user_of(&address)));
        }
        for caller in callers {
            if !is_e164(&caller) {
                let evidence = format!("a call from `{caller}`");
                return Err(Refused::by(Rule::CallerE164, 400, evidence));
            }
            if !self.setup.account.numbers.iter().any(|number| **number == *caller) {
                let evidence = format!("a call from {caller}");
                return Err(Refused::by(Rule::CallerOwned, 403, evidence));
            }
        }
        Ok(())
    }

    fn check_limits(&mut self, now: Instant) -> Result<(), Refused> {
        self.pace.retain(|at| now < *at + Duration::from_secs(1));
        self.pace.push_back(now);
        if let Some(limit) = self.setup.limits.calls_per_s.filter(|limit| self.pace.len() > *limit)
        {
            return Err(Refused {
                reason: "Trunk CPS limit exceeded",
                ..Refused::by(Rule::CallPace, 503, format!("more than {limit} calls in a second"))
            });
        }
        if let Some(limit) = self.setup.limits.calls_max.filter(|limit| self.calls() >= *limit) {
            return Err(Refused {
                reason: "Trunk concurrent call limit exceeded",
                ..Refused::by(Rule::CallCount, 503, format!("more than {limit} calls at a time"))
            });
        }
        Ok(())
    }

    fn refuse(&mut self, asked: &Asked, talk: Option<&Talk>, refused: Refused, now: Instant) {
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

    /// The call has its media address: it takes its course.
    pub(super) fn begin(&mut self, index: usize, now: Instant) {
        let (number, far_end) = (self.calls[index].number, self.calls[index].far_end);
        let ring_at = now + self.setup.timing.post_dial;
        let answer_at = ring_at + self.setup.timing.ring;
        self.plan(now + PATIENCE, number, Step::GiveUp);
        match far_end {
            FarEnd::Answers { ring: Ring::Not, .. } => self.plan(ring_at, number, Step::Answer),
            FarEnd::Answers { ring, .. } => {
                self.plan(ring_at, number, Step::Ring);
                if ring == Ring::MovingMedia {
                    self.plan(ring_at + MOVES_AFTER, number, Step::RingElsewhere);
                }
                self.plan(answer_at, number, Step::Answer);
            }
            FarEnd::RingsForever => self.plan(ring_at, number, Step::Ring),
            FarEnd::Refuses { at: At::Later, .. } => {
                self.plan(ring_at, number, Step::Ring);
                self.plan(answer_at, number, Step::Refuse);
            }
            FarEnd::Refuses { .. } | FarEnd::Silent => self.refuse_as_planned(index, now),
        }
    }

    pub(super) fn refuse_as_planned(&mut self, index: usize, now: Instant) {
        let call = &self.calls[index];
        let (far_end, talk) = (call.far_end, call.talk.clone());
        if let (FarEnd::Refuses { status, reason, error, .. }, Some(invite)) =
            (far_end, call.invite.clone())
        {
            let refused = Refused { status, reason, error, because: None };
            self.refuse(&invite, Some(&talk), refused, now);
            self.end_call(index, status);
        }
    }

    /// Has rung long enough.
    pub(super) fn give_up(&mut self, index: usize, now: Instant) {
        let talk = self.calls[index].talk.clone();
        if let Some(invite) = self.calls[index].invite.clone() {
            self.agent.refuse(&invite, 480, Some(&talk), now);
        }
        self.end_call(index, 480);
    }

    /// Rings: 183 with early media, or 180.
    pub(super) fn ring(&mut self, index: usize, now: Instant) {
        let is_plain =
            matches!(self.calls[index].far_end, FarEnd::Answers { ring: Ring::Plain, .. });
        let status = if is_plain { 180 } else { 183 };
        self.progress(index, status, now);
    }

    /// Rings on, with media from another place.
    pub(super) fn ring_elsewhere(&mut self, index: usize, now: Instant) {
        if let Some(sound) = &mut self.calls[index].sound {
            let port = sound.rtp.port().wrapping_add(1000);
            sound.rtp = SocketAddr::new(sound.rtp.ip(), port);
        }
        self.progress(index, 183, now);
    }

    fn progress(&mut self, index: usize, status: u16, now: Instant) {
        let Some(invite) = self.calls[index].invite.clone() else { return };
        let sdp = match (status, invite.message.sdp(), &mut self.calls[index].sound) {
            (183, Some(offer), Some(sound)) => sound.answer(&offer),
            (_, _, _) => None,
        };
        let builder = self.answer_head(index, &invite, (status, default_reason(status)));
        self.agent.respond(invite.tx, status, finish(builder, sdp.as_deref()), now);
        if sdp.is_some() {
            self.start_media(index);
        }
    }

    /// Answers: 200.
    pub(super) fn answer(&mut self, index: usize, now: Instant) {
        let call = &mut self.calls[index];
        let (Some(invite), Some(sound)) = (call.invite.clone(), &mut call.sound) else { return };
        let sdp = match invite.message.sdp() {
            Some(offer) => sound.answer(&offer),
            None => {
                call.answer_in_ack = true;
                Some(sound.offer())
            }
        };
        call.stage = Stage::Answered;
        let call_id = call.talk.call_id.clone();
        let builder = self.answer_head(index, &invite, (200, "OK"));
        let bytes = finish(builder, sdp.as_deref());
        let hears = Hears::Ack(invite.message.cseq().number);
        self.agent.respond_until((invite.tx, &call_id), hears, (200, bytes), now);
        self.start_media(index);
    }

    /// Starts an answer as it comes out of the proxies: two Record-Routes, a private Contact.
    fn answer_head(&mut self, index: usize, invite: &Asked, status: (u16, &str)) -> Builder {
        let call = &self.calls[index];
        let (talk, party) = (call.talk.clone(), call.party.clone());
        let moves = matches!(call.far_end, FarEnd::Answers { then: Then::Moves, .. });
        let mut builder = self.agent.reply(invite, status, Some(&talk));
        let [near, far] = self.routes(index);
        builder.header(HeaderName::RecordRoute, far).header(HeaderName::RecordRoute, near);
        let mut contact = self.contact(&party);
        if moves && status.0 == 200 {
            contact = format!("<sip:{party}@172.18.0.9:5060;twnat=sip:203.0.113.77:1024>");
        }
        builder
            .header(HeaderName::Contact, contact)
            .header(HeaderName::Allow, ALLOW)
            .header(HeaderName::Server, GATEWAY);
        builder
    }

    /// Takes the CANCEL of a call to the PSTN.
    pub(super) fn take_cancel(&mut self, tx: ServerId, now: Instant) {
        let is_it = |invite: &Option<Asked>| invite.as_ref().is_some_and(|asked| asked.tx == tx);
        let known = self.calls.iter().position(|call| is_it(&call.invite));
        let Some(index) = known.filter(|index| self.calls[*index].stage == Stage::Trying) else {
            return;
        };
        let talk = self.calls[index].talk.clone();
        if let Some(invite) = self.calls[index].invite.clone() {
            self.agent.refuse(&invite, 487, Some(&talk), now);
        }
        self.end_call(index, 487);
    }
}

fn check_offer(message: &Message) -> Result<(), Refused> {
    let Some(offer) = message.sdp() else { return Ok(()) };
    let offer = String::from_utf8_lossy(&offer);
    let audio = offer.lines().find(|line| line.starts_with("m=audio")).unwrap_or_default();
    if audio.contains("RTP/SAVP") {
        return Err(Refused::by(Rule::PlainRtp, 488, audio));
    }
    let mut formats = audio.split(' ').skip(3);
    if formats.any(|format| matches!(format, "0" | "8")) {
        Ok(())
    } else {
        Err(Refused::by(Rule::OffersG711, 415, audio))
    }
}

fn called(message: &Message) -> &str {
    Uri::parse(message.uri()).and_then(|uri| uri.user).unwrap_or_default()
}

fn is_e164(number: &str) -> bool {
    number.strip_prefix('+').is_some_and(|digits| {
        (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}
