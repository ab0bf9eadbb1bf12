//! A phone's registration and its digest answers (RFC 3261 10, 22).
//!
//! Owns: the REGISTER on its way, when to refresh.
//! Never: has more than one contact.

use super::{
    super::{agent::finish, talk::Talk},
    Habit, Heard, Phone,
};
use crate::{
    sip::{Builder, Contacts, HeaderName, Message, Method, Uri, digest},
    transaction::ClientId,
};
use std::time::{Duration, Instant};

/// A phone's binding.
#[derive(Debug, Default)]
pub(super) struct Registration {
    talk: Option<Talk>,
    pending: Option<Pending>,
    pub(super) refresh_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Pending {
    tx: ClientId,
    contact: String,
    expires_s: u32,
    was_challenged: bool,
}

impl Phone {
    pub(super) fn register(&mut self, expires_s: u32, now: Instant) {
        let contact = self.contact();
        self.send_register(contact, expires_s, false, now);
    }

    pub(super) fn unregister_all(&mut self, now: Instant) {
        self.send_register("*".to_owned(), 0, false, now);
    }

    fn send_register(
        &mut self,
        contact: String,
        expires_s: u32,
        was_challenged: bool,
        now: Instant,
    ) {
        let uri = format!("sip:{}", self.setup.domain);
        let talk = match self.registration.talk.take() {
            Some(talk) => talk,
            None => {
                let aor = self.address_of(&self.setup.user);
                let flow = self.agent.flow_to(self.setup.transport, self.setup.registrar);
                Talk::outgoing(&aor, &aor, &uri, &mut self.agent, flow)
            }
        };
        let talk = self.registration.talk.insert(talk);
        let flow = talk.flow;
        let (mut builder, branch) = talk.request(Method::Register, &mut self.agent);
        builder.header(HeaderName::Contact, &contact).header(HeaderName::Expires, expires_s);
        self.authorize(&mut builder, Method::Register, &uri);
        let bytes = finish(builder, None);
        let tx = self.agent.request(Method::Register, &branch, bytes, flow, now);
        self.registration.refresh_at = None;
        self.registration.pending = Some(Pending { tx, contact, expires_s, was_challenged });
    }

    /// Takes the answer to a REGISTER; returns whether it was one.
    pub(super) fn take_registration(
        &mut self,
        tx: ClientId,
        response: Option<&Message>,
        now: Instant,
    ) -> bool {
        let Some(pending) = self.registration.pending.take_if(|pending| pending.tx == tx) else {
            return false;
        };
        let Some(response) = response else {
            self.hear(None, Heard::RegistrationRefused(408), now);
            return true;
        };
        match response.status() {
            ..200 => self.registration.pending = Some(pending),
            200..300 => self.registered(response, now),
            401 | 407 if !pending.was_challenged && self.note_challenge(response) => {
                self.send_register(pending.contact, pending.expires_s, true, now);
            }
            status => self.hear(None, Heard::RegistrationRefused(status), now),
        }
        true
    }

    fn registered(&mut self, response: &Message, now: Instant) {
        let local = self.setup.local;
        let is_ours = |uri: &str| {
            Uri::parse(uri)
                .is_some_and(|uri| uri.ip() == Some(local.ip()) && uri.port == Some(local.port()))
        };
        let granted = match response.contacts() {
            Contacts::List(contacts) => contacts
                .iter()
                .find(|contact| is_ours(contact.uri))
                .and_then(|contact| contact.params.get("expires")?.parse::<u32>().ok()),
            Contacts::Star | Contacts::Bad => None,
        };
        match granted {
            Some(seconds) => {
                if !self.has(Habit::Forgets) {
                    let half = Duration::from_secs(u64::from(seconds) / 2);
                    self.registration.refresh_at = Some(now + half);
                }
                self.hear(None, Heard::Registered(seconds), now);
            }
            None => self.hear(None, Heard::Unregistered, now),
        }
    }

    /// Returns the name-addr of a user of the phone's domain.
    pub(super) fn address_of(&self, user: &str) -> String {
        format!("<sip:{user}@{}>", self.setup.domain)
    }

    /// Keeps the challenge that this phone can answer best; returns whether there is one.
    pub(super) fn note_challenge(&mut self, response: &Message) -> bool {
        let challenges = response.challenges();
        let wanted = challenges.iter().find(|c| c.algorithm == self.setup.algorithm);
        self.challenge = wanted.or(challenges.first()).cloned().map(|challenge| (challenge, 0));
        self.challenge.is_some()
    }

    /// Adds the answer to the last challenge, if there was one.
    pub(super) fn authorize(&mut self, builder: &mut Builder, method: Method, uri: &str) {
        let Some((challenge, used)) = &mut self.challenge else { return };
        *used += 1;
        let cnonce = format!("{:016x}", self.agent.entropy.next_u64());
        let (user, password) = (&self.setup.user, &self.setup.password);
        let value =
            digest::respond(challenge, user, password, method.as_str(), uri, *used, &cnonce);
        builder.header(challenge.answer_header(), value);
        if self.has(Habit::ForgetsNonces) {
            self.challenge = None;
        }
    }
}
