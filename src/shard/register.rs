//! REGISTER, and what becomes of bindings that nobody refreshes.
//!
//! Owns: the way from a REGISTER to the location service and the store.
//! Never: knows the rules of RFC 3261 10.3; `registrar` does.

use super::{Shard, admission::Refusal};
use crate::{
    call::{Effect, Record},
    ids::Flow,
    observe::log,
    registrar::{Policy, RegisterEvent, SPREAD_MAX, handle_register},
    sip::Message,
    transaction::ServerId,
};
use std::time::Instant;

impl Shard {
    pub(super) fn admit_register(
        &mut self,
        tx: ServerId,
        message: &Message,
        flow: Flow,
        now: Instant,
    ) {
        let Some(user) = self.authenticate(tx, message, flow, now) else { return };
        let _entered = log::registration_span(&user, flow).entered();
        let config = &self.core.shared.config;
        let Some(known) = config.users.get(&user) else {
            return self.reply(tx, message, flow, 403, now);
        };
        let policy = Policy {
            min_expires: config.sip.expires_min,
            default_expires: config.sip.expires_default,
            max_expires: config.sip.expires_max,
            max_contacts: known.max_contacts,
            shortened_by: self.spread_of(message),
        };
        let location = &self.core.shared.location;
        let reply = handle_register(message, flow, &user, &policy, location, self.core.wall(now));
        self.counters.registrations.count(match (reply.status, reply.events.first()) {
            (200, Some(RegisterEvent::Bound(_))) => "bound",
            (200, Some(RegisterEvent::Unbound { .. })) => "unbound",
            (200, None) => "fetched",
            (_, _) => "refused",
        });
        for event in reply.events {
            match event {
                RegisterEvent::Bound(binding) => {
                    self.ping_first(&binding, now);
                    self.expiries.note(&binding.aor, binding.expires_at);
                    if binding.is_news() {
                        self.core.effects.push_back(Effect::Record(Record::Bind(binding)));
                    }
                }
                RegisterEvent::Unbound { aor, contact } => self.unbound(aor, contact, now),
            }
        }
        let (status, reason) = (reply.status, Some(reply.reason));
        tracing::debug!(status, "registration answered");
        self.refuse(tx, message, flow, &Refusal { status, reason, headers: reply.headers }, now);
    }

    /// Returns by how many thousandths what this phone gets is shortened: always by the same, so that its bindings
    /// follow each other, and each phone by another number.
    fn spread_of(&self, message: &Message) -> u32 {
        let hash = self.core.shared.key.hash(message.call_id());
        u32::try_from(hash % u64::from(SPREAD_MAX + 1)).unwrap_or(0)
    }

    /// Learns when the bindings end that are there already.
    pub(super) fn take_up_bindings(&mut self) {
        for (aor, at) in self.core.shared.location.ends() {
            self.expiries.note(&aor, at);
        }
    }

    /// Forgets the phones of users who are no longer configured.
    pub(super) fn drop_former_users(&mut self, now: Instant) {
        let (location, users) = (&self.core.shared.location, &self.core.shared.config.users);
        let former = location.ends().into_iter().filter(|(aor, _)| !users.contains_key(aor));
        let gone: Vec<_> = former.flat_map(|(aor, _)| location.unbind_all(&aor)).collect();
        for binding in gone {
            self.unbound(binding.aor, binding.contact, now);
        }
    }

    /// Forgets the phones that did not come back in time.
    pub(super) fn sweep_bindings(&mut self, now: Instant) {
        let wall = self.core.wall(now);
        while let Some(aor) = self.expiries.pop_due(wall) {
            let (ended, next) = self.core.shared.location.sweep(&aor, wall);
            if let Some(next) = next {
                self.expiries.note(&aor, next);
            }
            for binding in ended {
                let _entered = log::registration_span(&binding.aor, binding.flow).entered();
                tracing::debug!("registration expired");
                self.unbound(binding.aor, binding.contact, now);
            }
        }
    }

    /// A contact is bound no longer: the store must know, and it is asked nothing more.
    pub(super) fn unbound(&mut self, aor: Box<str>, contact: Box<str>, now: Instant) {
        self.ping_no_more(&aor, &contact, now);
        self.core.effects.push_back(Effect::Record(Record::Unbind { aor, contact }));
    }
}
