//! OPTIONS to registered phones: keeps the way through their NAT open, and tells who answers.
//!
//! Owns: which contact is asked when, its round-trip time, how often it kept silent.
//! Never: removes a binding. A phone that is silent may still ring; only the end of its registration
//! or of its connection takes it away.

use super::Shard;
use crate::{
    ids::Entropy,
    registrar::Binding,
    sip::{Message, Method},
    timers::Timers,
    transaction::ClientId,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// How long a phone may take. Repeating the OPTIONS any longer would meet the next one.
const PATIENCE: Duration = Duration::from_secs(4);

/// A user and one of its contacts.
type Contact = (Box<str>, Box<str>);

/// What is known of a contact that is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pulse {
    /// Of the last OPTIONS that was answered.
    pub rtt: Option<Duration>,
    /// OPTIONS in a row without an answer.
    pub missed: u32,
}

#[derive(Debug)]
struct Ping {
    contact: Contact,
    pulse: Pulse,
    step: Step,
}

/// What a contact's deadline means.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Ask.
    Rest,
    /// Stop waiting for the answer to this.
    Asked(ClientId, Instant),
}

/// What is due.
#[derive(Debug, Eq, PartialEq)]
enum Due {
    /// Ask this contact, and report the transaction under this number.
    Ask(u64, Contact),
    /// This OPTIONS is not to be repeated.
    GiveUp(ClientId),
}

/// Everybody who is asked.
#[derive(Debug, Default)]
pub(super) struct Pings {
    serial: u64,
    by_contact: BTreeMap<Contact, u64>,
    by_tx: BTreeMap<ClientId, u64>,
    pings: BTreeMap<u64, Ping>,
    timers: Timers<u64>,
}

impl Pings {
    /// Takes the present bindings: those that are not asked yet will be, spread over one round; those
    /// that are gone are forgotten. Returns the OPTIONS on their way to them.
    fn follow(
        &mut self,
        bindings: &[Binding],
        every: Duration,
        now: Instant,
        entropy: &mut Entropy,
    ) -> Vec<ClientId> {
        let present: BTreeSet<Contact> = bindings.iter().map(contact).collect();
        for contact in &present {
            let round_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
            self.ask_first(contact, now + Duration::from_millis(entropy.below(round_ms)));
        }
        let is_gone = |contact: &&Contact| !present.contains(contact);
        let gone: Vec<Contact> = self.by_contact.keys().filter(is_gone).cloned().collect();
        gone.iter().filter_map(|contact| self.forget(contact)).collect()
    }

    /// Begins to ask a contact, unless it is asked already.
    fn ask_first(&mut self, contact: &Contact, at: Instant) {
        if self.by_contact.contains_key(contact) {
            return;
        }
        self.serial = self.serial.wrapping_add(1);
        self.by_contact.insert(contact.clone(), self.serial);
        let ping = Ping { contact: contact.clone(), pulse: Pulse::default(), step: Step::Rest };
        self.pings.insert(self.serial, ping);
        self.timers.arm(self.serial, Some(at));
    }

    fn forget(&mut self, contact: &Contact) -> Option<ClientId> {
        let id = self.by_contact.remove(contact)?;
        self.timers.arm(id, None);
        match self.pings.remove(&id)?.step {
            Step::Rest => None,
            Step::Asked(tx, _) => {
                self.by_tx.remove(&tx);
                Some(tx)
            }
        }
    }

    /// Takes one thing that is due.
    fn pop_due(&mut self, every: Duration, now: Instant) -> Option<Due> {
        let id = self.timers.pop_due(now)?;
        let ping = self.pings.get_mut(&id)?;
        match ping.step {
            Step::Rest => Some(Due::Ask(id, ping.contact.clone())),
            Step::Asked(tx, _) => {
                self.conclude(tx, None, every, now);
                Some(Due::GiveUp(tx))
            }
        }
    }

    fn asked(&mut self, id: u64, tx: ClientId, now: Instant) {
        if let Some(ping) = self.pings.get_mut(&id) {
            ping.step = Step::Asked(tx, now);
            self.by_tx.insert(tx, id);
            self.timers.arm(id, Some(now + PATIENCE));
        }
    }

    /// An OPTIONS was answered, or not; the next one follows in time.
    fn conclude(
        &mut self,
        tx: ClientId,
        answered_at: Option<Instant>,
        every: Duration,
        now: Instant,
    ) {
        let Some(id) = self.by_tx.remove(&tx) else { return };
        let Some(ping) = self.pings.get_mut(&id) else { return };
        let Step::Asked(_, asked_at) = std::mem::replace(&mut ping.step, Step::Rest) else {
            return;
        };
        ping.pulse = match answered_at {
            Some(at) => Pulse { rtt: Some(at.saturating_duration_since(asked_at)), missed: 0 },
            None => Pulse { missed: ping.pulse.missed.saturating_add(1), ..ping.pulse },
        };
        self.timers.arm(id, Some((asked_at + every).max(now)));
    }

    /// Returns whether this OPTIONS is one of ours.
    pub(super) fn has(&self, tx: ClientId) -> bool {
        self.by_tx.contains_key(&tx)
    }

    /// Returns whether none is on its way.
    pub(super) fn is_quiet(&self) -> bool {
        self.by_tx.is_empty()
    }

    /// Returns when something is due.
    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        self.timers.next_deadline()
    }

    /// Returns what is known of every contact.
    pub(super) fn pulses(&self) -> BTreeMap<Contact, Pulse> {
        self.pings.values().map(|ping| (ping.contact.clone(), ping.pulse)).collect()
    }
}

fn contact(binding: &Binding) -> Contact {
    (binding.aor.clone(), binding.contact.clone())
}

impl Shard {
    /// A phone has registered, perhaps a new one: it is asked at once.
    pub(super) fn ping_first(&mut self, binding: &Binding, now: Instant) {
        if self.core.shared.config.sip.ping_phones.is_some() {
            self.pings.ask_first(&contact(binding), now);
        }
    }

    /// A contact is gone; another flow of the same device may be the one that rings now.
    pub(super) fn ping_no_more(&mut self, aor: &str, contact: &str, now: Instant) {
        if self.core.shared.config.sip.ping_phones.is_none() {
            return;
        }
        if let Some(tx) = self.pings.forget(&(aor.into(), contact.into())) {
            self.core.tx.give_up(tx);
        }
        for binding in self.core.shared.location.find(aor, self.core.wall(now)) {
            self.ping_first(&binding, now);
        }
    }

    /// Takes the bindings and the configuration as they are now.
    pub(super) fn follow_bindings(&mut self, now: Instant) {
        let is_leaving = self.family.is_leaving();
        let every = self.core.shared.config.sip.ping_phones.filter(|_| !is_leaving);
        let bindings = match every {
            Some(_) => self.core.shared.location.all(self.core.wall(now)),
            None => vec![],
        };
        let every = every.unwrap_or_default();
        for tx in self.pings.follow(&bindings, every, now, &mut self.core.entropy) {
            self.core.tx.give_up(tx);
        }
    }

    /// Asks whoever is due.
    pub(super) fn fire_pings(&mut self, now: Instant) {
        let every = self.core.shared.config.sip.ping_phones.unwrap_or_default();
        while let Some(due) = self.pings.pop_due(every, now) {
            match due {
                Due::Ask(id, contact) => self.ping(id, &contact, now),
                Due::GiveUp(tx) => self.core.tx.give_up(tx),
            }
        }
    }

    fn ping(&mut self, id: u64, (aor, contact): &Contact, now: Instant) {
        let found = self.core.shared.location.find(aor, self.core.wall(now));
        // What is not found is gone, or another flow of the same device is the one that rings.
        let Some(binding) = found.iter().find(|binding| *binding.contact == **contact) else {
            self.pings.forget(&(aor.clone(), contact.clone()));
            return;
        };
        let (uri, flow, routes) = binding.target();
        let (bytes, branch) = self.core.options(&uri, &uri, &routes, flow);
        let tx =
            self.core.tx.request(bytes, &branch, Method::Options, flow, now, &mut self.core.sent);
        self.pings.asked(id, tx, now);
    }

    /// Any final answer shows a living phone (RFC 3261 11.1).
    pub(super) fn ping_answered(&mut self, tx: ClientId, response: &Message, now: Instant) {
        if response.status() >= 200 {
            let every = self.core.shared.config.sip.ping_phones.unwrap_or_default();
            self.pings.conclude(tx, Some(now), every, now);
        }
    }

    pub(super) fn ping_failed(&mut self, tx: ClientId, now: Instant) {
        let every = self.core.shared.config.sip.ping_phones.unwrap_or_default();
        self.pings.conclude(tx, None, every, now);
    }

    /// Returns what is known of the phones that are asked, by user and contact.
    pub fn pulses(&self) -> BTreeMap<(Box<str>, Box<str>), Pulse> {
        self.pings.pulses()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::epoch;

    const EVERY: Duration = Duration::from_secs(30);

    #[test]
    fn a_phone_is_asked_once_a_round_and_its_silence_is_counted() {
        let mut pings = Pings::default();
        let phone: Contact = ("1001".into(), "sip:1001@192.0.2.7".into());
        let mut now = epoch();
        pings.ask_first(&phone, now);
        let answers_ms = [Some(12), None, None, Some(40)];
        let mut seen = vec![];
        for (n, answer_ms) in (1..).zip(answers_ms) {
            let Some(Due::Ask(id, asked)) = pings.pop_due(EVERY, now) else { panic!("round {n}") };
            assert_eq!(asked, phone);
            let tx = ClientId::for_tests(n);
            pings.asked(id, tx, now);
            let asked_at = now;
            match answer_ms {
                Some(ms) => {
                    now += Duration::from_millis(ms);
                    pings.conclude(tx, Some(now), EVERY, now);
                }
                None => {
                    now = pings.poll_timeout().unwrap();
                    assert_eq!(now - asked_at, PATIENCE);
                    assert_eq!(pings.pop_due(EVERY, now), Some(Due::GiveUp(tx)));
                }
            }
            assert!(pings.is_quiet());
            seen.push((
                pings.pulses()[&phone].rtt.unwrap().as_millis(),
                pings.pulses()[&phone].missed,
            ));
            now = pings.poll_timeout().unwrap();
            assert_eq!(now - asked_at, EVERY);
        }
        assert_eq!(seen, [(12, 0), (12, 1), (12, 2), (40, 0)]);
    }

    #[test]
    fn whoever_leaves_is_asked_no_more() {
        let mut pings = Pings::default();
        let phone: Contact = ("1001".into(), "sip:1001@192.0.2.7".into());
        let now = epoch();
        pings.ask_first(&phone, now);
        pings.ask_first(&phone, now);
        let Some(Due::Ask(id, _)) = pings.pop_due(EVERY, now) else { panic!() };
        let tx = ClientId::for_tests(1);
        pings.asked(id, tx, now);
        assert_eq!(pings.pop_due(EVERY, now), None, "asked twice");
        assert_eq!(pings.follow(&[], EVERY, now, &mut Entropy::from_u64(1)), [tx]);
        assert!(pings.is_quiet() && pings.poll_timeout().is_none() && pings.pulses().is_empty());
    }
}
