//! New calls: who calls, whether they may, and what the call begins with.
//!
//! Owns: the way from an INVITE to a [`Call`].
//! Never: decides where the call goes; its program asks the dialplan.

use super::{Shard, admission::Refusal, refused::Why};
use crate::{
    call::{Call, Direction, Identity, Leg, Opening, Owner, Profile},
    config::{Trunk, User},
    dialog::Wanted,
    ids::{CallId, Flow, LegId},
    observe::plain,
    sdp::Description,
    sip::{HeaderName, Message, Scheme, Uri},
    transaction::ServerId,
    trunk::identity::Inbound,
};
use std::{sync::Arc, time::Instant};

/// How many calls one shard may hold; more are refused with 503.
const CALLS_MAX: usize = 10_000;

/// Who an INVITE comes from, as far as we believe it.
pub(super) enum Caller {
    /// A user of ours, by digest.
    Phone(Arc<User>),
    /// A carrier, by its address.
    Trunk(Arc<Trunk>),
}

impl Shard {
    pub(super) fn admit_invite(
        &mut self,
        tx: ServerId,
        message: Message,
        flow: Flow,
        now: Instant,
    ) {
        if self.was_turned_away(&message) {
            return self.turn_away(tx, &message, flow, &Refusal::overloaded());
        }
        if self.is_draining || self.is_full() {
            if let Some(caller) = self.likely_caller(&message, flow, now) {
                let why = if self.is_draining { Why::Draining } else { Why::Overloaded };
                self.record_refused(&message, &caller, why, now);
            }
            return self.turn_away(tx, &message, flow, &Refusal::overloaded());
        }
        let caller = match self.trunk_at(flow) {
            Some(trunk) if self.core.trunks.is_full(&trunk.name, trunk.max_calls) => {
                // The carrier tries its next origination URI.
                self.record_refused(&message, &Caller::Trunk(trunk), Why::TrunkFull, now);
                return self.turn_away(tx, &message, flow, &Refusal::overloaded());
            }
            Some(trunk) => Caller::Trunk(trunk),
            None => {
                let Some(name) = self.authenticate(tx, &message, flow, now) else { return };
                match self.core.shared.config.users.get(&name) {
                    Some(user) => Caller::Phone(user.clone()),
                    None => return self.reply(tx, &message, flow, 403, now),
                }
            }
        };
        if let Caller::Phone(user) = &caller
            && self.ringing.of(&user.name) >= self.core.shared.config.sip.max_ringing
            && !self.is_for_help(message.uri())
        {
            self.record_refused(&message, &caller, Why::Ringing, now);
            return self.turn_away(tx, &message, flow, &Refusal::overloaded());
        }
        self.say_trying(tx, &message, flow, now);
        match self.opening(&caller, &message) {
            Ok((opening, identity, profile)) => {
                self.open_call((tx, message, flow), &caller, (opening, identity, profile), now);
            }
            Err(refusal) => {
                // Who is told of a longer interval calls again.
                if refusal.status != 422 {
                    self.record_refused(&message, &caller, refusal.why(), now);
                }
                self.refuse(tx, &message, flow, &refusal, now);
            }
        }
    }

    /// Returns the trunk that may originate calls from this address. It is never challenged.
    pub(super) fn trunk_at(&self, flow: Flow) -> Option<Arc<Trunk>> {
        let ip = flow.remote.ip().to_canonical();
        self.core.shared.config.trunks.values().find_map(|trunk| {
            let state = self.core.trunks.state(&trunk.name);
            let is_its = trunk.sources.iter().any(|network| network.contains(ip))
                || state.is_some_and(|state| state.routes().is_known(flow.remote));
            is_its.then(|| trunk.clone())
        })
    }

    /// Reads everything that the call needs to begin with.
    fn opening(
        &self,
        caller: &Caller,
        message: &Message,
    ) -> Result<(Opening, Identity, Profile), Refusal> {
        let config = &self.core.shared.config;
        let offer = match message.sdp() {
            Some(bytes) => {
                let parsed = Description::parse(bytes);
                Some(parsed.map_err(|_| Refusal::because(488, "Bad Session Description"))?)
            }
            None => None,
        };
        self.check_session_timer(caller, message)?;
        Ok(match caller {
            Caller::Phone(user) => {
                let dialled = dialled(message).ok_or_else(|| Refusal::plain(484))?;
                let from = message.from();
                let display = from.display_str();
                let is_private = wants_privacy(message);
                let identity = Identity::of_user(user, display.as_deref(), is_private);
                let direction = Direction::Internal;
                let opening = Opening { context: user.context.clone(), dialled, offer, direction };
                (opening, identity, Profile::phone(user, config))
            }
            Caller::Trunk(trunk) => {
                let inbound = Inbound::read(message);
                let did = inbound.did.as_ref().map(|did| did.expose()).filter(|did| is_fit(did));
                let dialled = did.map(Into::into).or_else(|| dialled(message));
                let dialled = dialled.ok_or_else(|| Refusal::plain(484))?;
                let identity = Identity::of_trunk(&inbound);
                let direction = Direction::Inbound;
                let opening = Opening { context: trunk.context.clone(), dialled, offer, direction };
                (opening, identity, Profile::trunk(trunk))
            }
        })
    }

    /// RFC 4028 9: an interval shorter than ours is refused with what would do.
    fn check_session_timer(&self, caller: &Caller, message: &Message) -> Result<(), Refusal> {
        let supported = match caller {
            Caller::Phone(_) => true,
            Caller::Trunk(trunk) => trunk.session_timers,
        };
        let value = message.header_str(HeaderName::SessionExpires);
        let wanted = value.and_then(|value| Wanted::parse(&value)).filter(|_| supported);
        let min_s = self.core.shared.config.sip.min_se.as_secs();
        if wanted.is_some_and(|wanted| u64::from(wanted.interval_s) < min_s)
            && message.has_option(HeaderName::Supported, "timer")
        {
            let mut refusal = Refusal::plain(422);
            refusal.headers.push((HeaderName::MinSe, min_s.to_string()));
            return Err(refusal);
        }
        Ok(())
    }

    /// Names a new call and its first leg.
    pub(super) fn new_owner(&mut self) -> Owner {
        self.core.next_call = self.core.next_call.wrapping_add(1);
        self.core.next_leg = self.core.next_leg.wrapping_add(1);
        let call = CallId::new(self.id, self.core.next_call);
        Owner { call, leg: LegId::new(self.id, self.core.next_leg) }
    }

    pub(super) fn is_full(&self) -> bool {
        self.calls.len() >= CALLS_MAX
    }

    fn open_call(
        &mut self,
        (tx, message, flow): (ServerId, Message, Flow),
        caller: &Caller,
        (opening, identity, profile): (Opening, Identity, Profile),
        now: Instant,
    ) {
        let owner = self.new_owner();
        let name: Arc<str> = match (&profile.peer, &identity.phone) {
            (crate::call::Peer::Trunk(trunk), _) => (&*trunk.name).into(),
            (_, Some(user)) => (&*user.name).into(),
            (_, None) => "caller".into(),
        };
        if !self.core.is_overloaded(now) {
            self.core.ladders.begin(owner.call, &name, &message, now);
        }
        let _entered = crate::observe::log::call_span(owner.call).entered();
        let mut wire = self.core.wire(now);
        let leg = Leg::incoming(owner, name, profile, (tx, message.clone(), flow), &mut wire);
        let Some(leg) = leg else {
            self.core.ladders.forget(owner.call);
            let refusal = Refusal::because(400, "Bad Contact");
            self.record_refused(&message, caller, refusal.why(), now);
            return self.refuse(tx, &message, flow, &refusal, now);
        };
        self.refused.admitted(message.call_id());
        if let Some(trunk) = leg.profile.as_trunk() {
            let counted = wire.trunks.claim(&trunk.name, leg.id(), None);
            debug_assert!(counted, "no limit was given");
        }
        self.counters.calls.count_start(opening.direction);
        let call = Call::new(owner.call, leg, identity, opening, &mut wire);
        if let Caller::Phone(user) = caller {
            self.ringing.begin(owner.call, &user.name);
        }
        self.invites.insert(tx, owner);
        self.calls.insert(owner.call, Box::new(call));
        self.touched.push(owner.call);
    }
}

/// Returns the number dialled: the Request-URI's user part, or a `tel:` number.
pub(super) fn dialled(message: &Message) -> Option<Box<str>> {
    let uri = Uri::parse(message.uri())?;
    let user = match uri.scheme {
        Scheme::Sip | Scheme::Sips | Scheme::Tel => uri.user_unescaped(),
        Scheme::Urn | Scheme::Other => return None,
    };
    is_fit(&user).then(|| user.into())
}

/// Returns whether something could be dialled: it stands in records, and in headers to others.
fn is_fit(number: &str) -> bool {
    !number.is_empty() && number.len() <= 128 && number.chars().all(plain::is_plain)
}

fn wants_privacy(message: &Message) -> bool {
    let named = message
        .header_str(HeaderName::Privacy)
        .is_some_and(|p| p.split([';', ',']).any(|v| matches!(v.trim(), "id" | "user" | "header")));
    named || message.from().parsed_uri().is_some_and(|uri| uri.host.ends_with("anonymous.invalid"))
}
