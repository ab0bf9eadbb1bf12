//! Calls that admission refuses: each of somebody we know leaves a record.
//!
//! Owns: the records that wait for their caller to give up, who has one already, how many strangers get.
//! Never: refuses a call; admission has done that.

use super::{
    Shard,
    invite::{Caller, dialled},
};
use crate::{
    call::{Direction, Effect, Record},
    config::User,
    ids::Flow,
    observe::{
        cdr::{CallMedia, Cdr, EndedBy, Ending, Explanation, Party, Route, Times},
        log,
        mask::Number,
    },
    sip::Message,
    trunk::identity::Inbound,
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// A phone that gave a wrong password tries again at once, or has given up.
const GIVES_UP_AFTER: Duration = Duration::from_secs(4);
/// A call that was refused twice within this time is one call.
const REMEMBER: Duration = Duration::from_secs(32);
/// How many refusals are remembered.
const ENTRIES_MAX: usize = 256;
/// How many records calls without a right password leave: so many at once, and one a second.
const STRANGERS_BURST: u32 = 10;
const STRANGERS_EVERY: Duration = Duration::from_secs(1);

/// One refused call, by its Call-ID.
#[derive(Debug)]
struct Entry {
    /// When the record is written, or when the call is forgotten.
    at: Instant,
    /// The record, until it is written.
    cdr: Option<Cdr>,
}

/// The refused calls of one shard.
#[derive(Debug)]
pub(super) struct Refused {
    entries: BTreeMap<Box<str>, Entry>,
    tokens: u32,
    refilled_at: Instant,
}

impl Refused {
    pub(super) fn new(now: Instant) -> Self {
        Self { entries: BTreeMap::new(), tokens: STRANGERS_BURST, refilled_at: now }
    }

    /// Takes the record of a call that is refused for good. Returns it, to be written now, unless the
    /// call has one.
    pub(super) fn note(&mut self, call_id: &str, cdr: Cdr, now: Instant) -> Option<Cdr> {
        if self.entries.get(call_id).is_some_and(|entry| entry.cdr.is_none()) {
            return None;
        }
        if self.entries.len() < ENTRIES_MAX || self.entries.contains_key(call_id) {
            let entry = Entry { at: now + REMEMBER, cdr: None };
            self.entries.insert(call_id.into(), entry);
        }
        Some(cdr)
    }

    /// Takes the record of a call whose caller gave a wrong password. It is written where the caller
    /// leaves it at that, and where there are not too many of these.
    pub(super) fn suspect(&mut self, call_id: &str, mut cdr: Cdr, now: Instant) {
        if let Some(entry) = self.entries.get(call_id) {
            let Some(first) = &entry.cdr else { return };
            cdr.times.start = first.times.start;
        } else if self.entries.len() >= ENTRIES_MAX || !self.may_record(now) {
            return;
        }
        self.entries.insert(call_id.into(), Entry { at: now + GIVES_UP_AFTER, cdr: Some(cdr) });
    }

    /// The call is admitted after all: it leaves its own record.
    pub(super) fn admitted(&mut self, call_id: &str) {
        self.entries.remove(call_id);
    }

    /// Returns the records whose callers have given up.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Cdr> {
        let due = self.entries.iter_mut().filter(|(_, entry)| entry.at <= now);
        let mut records = vec![];
        for (_, entry) in due {
            if let Some(cdr) = entry.cdr.take() {
                entry.at = now + REMEMBER;
                records.push(cdr);
            }
        }
        self.entries.retain(|_, entry| entry.at > now);
        records
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.entries.values().map(|entry| entry.at).min()
    }

    /// Returns whether every record is written.
    pub(super) fn is_quiet(&self) -> bool {
        self.entries.values().all(|entry| entry.cdr.is_none())
    }

    fn may_record(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.refilled_at);
        let refill =
            u32::try_from(passed.as_secs() / STRANGERS_EVERY.as_secs()).unwrap_or(u32::MAX);
        if refill > 0 {
            self.refilled_at = now;
            self.tokens = self.tokens.saturating_add(refill).min(STRANGERS_BURST);
        }
        let may = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        may
    }
}

/// Why a call of somebody we know is refused before it begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Why {
    /// The node takes no new calls.
    Draining,
    /// It carries all that it can.
    Overloaded,
    /// The trunk carries all that it may.
    TrunkFull,
    /// The user has as many unanswered calls as one may.
    Ringing,
    /// The phone claims to be another.
    Claim,
    /// The phone does not know its user's password.
    Password,
    /// The INVITE itself.
    Status(u16, &'static str),
}

impl Why {
    /// Returns whether the answer is sent without a transaction.
    fn is_turned_away(self) -> bool {
        match self {
            Self::Draining | Self::Overloaded | Self::TrunkFull | Self::Ringing => true,
            Self::Claim | Self::Password | Self::Status(..) => false,
        }
    }

    fn status(self) -> u16 {
        match self {
            Self::Draining | Self::Overloaded | Self::TrunkFull | Self::Ringing => 503,
            Self::Claim => 403,
            Self::Password => 401,
            Self::Status(status, _) => status,
        }
    }

    /// `name` is the user's or the trunk's.
    fn explain(self, name: &str) -> Explanation {
        let shown = Number(name);
        let (code, sentence, help) = match self {
            Self::Draining => (
                "A001",
                "this node takes no new calls: it finishes those that it has".to_owned(),
                Some("`tandem status` shows it; start the node again, or another one".to_owned()),
            ),
            Self::Overloaded => (
                "A002",
                "this node carries as many calls as it can".to_owned(),
                Some("`tandem calls` lists them; spread the load over more nodes".to_owned()),
            ),
            Self::TrunkFull => (
                "A003",
                format!("trunk {shown} carries as many calls as it may"),
                Some("raise `max_calls` of the trunk, if the carrier allows more".to_owned()),
            ),
            Self::Claim => (
                "A004",
                format!("the phone of {shown} claims to be somebody else"),
                Some(
                    "give the phone the same name as its user and as its authentication".to_owned(),
                ),
            ),
            Self::Password => (
                "A005",
                format!("a phone that says it is {shown} does not know the password"),
                Some(format!("correct it on the phone, or `password` in `[user.{shown}]`")),
            ),
            Self::Ringing => (
                "A007",
                format!("{shown} has as many calls that nobody has answered as a user may"),
                Some("raise `[sip] max_ringing`, if it dials that many".to_owned()),
            ),
            Self::Status(status, reason) => {
                ("A006", format!("the call could not be taken: {status} {reason}"), None)
            }
        };
        Explanation { code: code.to_owned(), sentence, help, carrier_errors: vec![] }
    }
}

impl Shard {
    /// Writes the record of a call that is refused before it began, once.
    pub(super) fn record_refused(
        &mut self,
        message: &Message,
        caller: &Caller,
        why: Why,
        now: Instant,
    ) {
        if why.is_turned_away() {
            self.turned.note(self.core.tx.digest_of(message), now);
        }
        let cdr = self.refused_cdr(message, caller, why, now);
        if let Some(cdr) = self.refused.note(message.call_id(), cdr, now) {
            self.write_refused(cdr);
        }
    }

    /// Keeps the record of a call with a wrong password, until its caller has given up.
    pub(super) fn suspect(&mut self, message: &Message, user: Arc<User>, now: Instant) {
        let cdr = self.refused_cdr(message, &Caller::Phone(user), Why::Password, now);
        self.refused.suspect(message.call_id(), cdr, now);
    }

    /// Writes the records of those who have given up.
    pub(super) fn fire_refused(&mut self, now: Instant) {
        for cdr in self.refused.due(now) {
            self.write_refused(cdr);
        }
    }

    /// Returns the caller of an INVITE that has proved nothing yet: a carrier by its address, or a
    /// phone that is registered from where it calls.
    pub(super) fn likely_caller(
        &self,
        message: &Message,
        flow: Flow,
        now: Instant,
    ) -> Option<Caller> {
        if let Some(trunk) = self.trunk_at(flow) {
            return Some(Caller::Trunk(trunk));
        }
        let name = message.from().parsed_uri()?.user_unescaped().into_owned();
        let user = self.core.shared.config.users.get(&*name)?;
        self.at_home(&name, flow, now).then(|| Caller::Phone(user.clone()))
    }

    fn write_refused(&mut self, cdr: Cdr) {
        let _entered = log::call_span(cdr.call).entered();
        log::call_ended(&cdr, None);
        self.counters.calls.count_start(cdr.direction);
        self.counters.calls.count_end(&cdr);
        self.core.effects.push_back(Effect::Record(Record::Cdr(Box::new(cdr))));
    }

    fn refused_cdr(&mut self, message: &Message, caller: &Caller, why: Why, now: Instant) -> Cdr {
        let at = self.core.wall(now).into();
        let dialled = dialled(message).unwrap_or_default();
        let (direction, number, user, trunk) = match caller {
            Caller::Phone(user) => (Direction::Internal, user.name.clone(), Some(&user.name), None),
            Caller::Trunk(trunk) => {
                let number = Inbound::read(message).caller.map(|number| number.expose().into());
                let name = Some(trunk.name.to_string());
                (Direction::Inbound, number.unwrap_or_else(|| "anonymous".into()), None, name)
            }
        };
        let name = trunk.as_deref().unwrap_or(&number);
        let why_said = why.explain(name);
        Cdr {
            call: self.new_owner().call,
            direction,
            caller: Party {
                number: number.into(),
                user: user.map(|name| name.clone().into()),
                sip_call_id: Some(message.call_id().to_owned()),
            },
            callee: Party { number: dialled.clone().into(), ..Party::default() },
            route: Route { dialled: dialled.into(), trunk, ..Route::default() },
            times: Times { start: at, end: at, ..Times::default() },
            ending: Ending {
                by: EndedBy::Tandem,
                status: why.status(),
                q850: None,
                why: Some(why_said),
            },
            media: CallMedia::default(),
            quality: None,
            ladder: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::cdr::tests::refused;

    #[test]
    fn a_call_is_recorded_once() {
        let now = crate::sim::epoch();
        let at = |s| now + Duration::from_secs(s);
        let mut calls = Refused::new(now);
        assert!(calls.note("a", refused(1), now).is_some());
        assert!(calls.note("a", refused(2), at(1)).is_none(), "the same call");
        calls.suspect("a", refused(3), at(1));
        // Wrong twice, then given up.
        calls.suspect("b", refused(4), at(1));
        calls.suspect("b", refused(5), at(3));
        assert!(!calls.is_quiet());
        assert!(calls.due(at(6)).is_empty());
        assert_eq!(calls.due(at(7)).len(), 1);
        assert!(calls.is_quiet());
        // Wrong once, then right.
        calls.suspect("c", refused(6), at(8));
        calls.admitted("c");
        // Wrong once, then refused for another reason.
        calls.suspect("d", refused(7), at(8));
        assert!(calls.note("d", refused(8), at(9)).is_some());
        assert!(calls.due(at(60)).is_empty());
        assert_eq!(calls.poll_timeout(), None);
    }

    #[test]
    fn a_flood_of_guesses_leaves_few_records() {
        let now = crate::sim::epoch();
        let mut calls = Refused::new(now);
        let mut written = 0;
        for ms in 0..20_000u64 {
            let now = now + Duration::from_millis(ms);
            calls.suspect(&format!("guess {ms}"), refused(1), now);
            written += calls.due(now).len();
            assert!(calls.entries.len() <= ENTRIES_MAX);
        }
        assert!((20..=30).contains(&written), "{written}");
    }
}
