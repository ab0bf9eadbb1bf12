//! What became of a call, told in a paragraph.
//!
//! Owns: the wording, and which message is the evidence.
//! Never: finds a cause of its own: the record's explanation is the one that the log has.

use super::{
    cdr::{Cdr, Direction, EndedBy, Outcome},
    ladder::{Entry, Rungs, What},
    status::CallDetail,
};
use crate::ids::CallId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What tandem calls itself in a ladder.
const SELF: &str = "tandem";

/// A call's story. `Display` prints the paragraph; numbers in it are masked.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Story {
    /// Ours.
    #[serde(with = "super::cdr::as_text")]
    pub call: CallId,
    /// Who called whom, by which way, and how it ended.
    pub happened: String,
    /// On which stretch of the way it failed: `between tandem and twilio`; none where it did not.
    pub place: Option<String>,
    /// The message that shows it, as `tandem call ladder --lines` prints it.
    pub evidence: Option<String>,
    /// The stable code of the cause.
    pub code: Option<String>,
    /// The cause: the sentence of the log and the record.
    pub cause: Option<String>,
    /// The numbers under which the carrier's console and manual speak of it.
    pub carrier_errors: Vec<u32>,
    /// What to type where.
    pub help: Option<String>,
    /// How it sounded, and on which stretch it did not; none where there is nothing to say.
    pub sound: Option<String>,
}

impl Story {
    /// Tells a call that is over, from its record and its messages.
    pub fn of(cdr: &Cdr, rungs: &Rungs) -> Self {
        let why = cdr.ending.why.as_ref();
        let place = why.map(|why| place(cdr, &why.code));
        let entries: Vec<&Entry> = rungs.head.iter().chain(&rungs.tail).collect();
        let evidence = why.and_then(|why| evidence(cdr, &why.code, &entries));
        Self {
            call: cdr.call,
            happened: format!("{} {}", way(cdr), ending(cdr)),
            place,
            evidence: evidence.map(|entry| entry.to_string().trim().to_owned()),
            code: why.map(|why| why.code.clone()),
            cause: why.map(|why| why.sentence.clone()),
            carrier_errors: why.map_or_else(Vec::new, |why| why.carrier_errors.clone()),
            help: why.and_then(|why| why.help.clone()),
            sound: cdr.quality.clone(),
        }
    }

    /// Tells a call that goes on.
    pub fn of_running(detail: &CallDetail) -> Self {
        let summary = &detail.summary;
        let happened = format!(
            "{} calls {}{}{}; it is {} since {} s.",
            summary.from,
            summary.to,
            by_trunk(summary.direction, summary.trunk.as_deref()),
            by_rule(summary.rule.as_deref()),
            summary.phase.word(),
            summary.duration_s,
        );
        Self {
            call: summary.call,
            happened,
            place: None,
            evidence: None,
            code: None,
            cause: None,
            carrier_errors: vec![],
            help: None,
            sound: None,
        }
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.happened)?;
        if let Some(place) = &self.place {
            write!(f, " It failed {place}")?;
            match &self.evidence {
                Some(evidence) => write!(f, ", as this message shows: `{evidence}`.")?,
                None => f.write_str(".")?,
            }
        }
        if let (Some(code), Some(cause)) = (&self.code, &self.cause) {
            write!(f, " {code}: {cause}")?;
            if !self.carrier_errors.is_empty() {
                let errors: Vec<_> = self.carrier_errors.iter().map(u32::to_string).collect();
                write!(f, "; the carrier's console has it as {}", errors.join(" or "))?;
            }
            f.write_str(".")?;
        }
        if let Some(help) = &self.help {
            write!(f, " What to do: {help}.")?;
        }
        match &self.sound {
            Some(sound) => write!(f, " Sound: {sound}."),
            None => Ok(()),
        }
    }
}

/// `1001 called +1415****199 by trunk twilio as +1775****988, by rule internal[2];`
fn way(cdr: &Cdr) -> String {
    let route = &cdr.route;
    let callee =
        if cdr.callee.number.expose().is_empty() { &route.dialled } else { &cdr.callee.number };
    let caller_id = route.caller_id.as_ref().filter(|_| cdr.direction == Direction::Outbound);
    let caller_id = caller_id.map_or_else(String::new, |id| format!(" as {id}"));
    format!(
        "{} called {callee}{}{caller_id}{};",
        cdr.caller.number,
        by_trunk(cdr.direction, route.trunk.as_deref()),
        by_rule(route.rule.as_deref()),
    )
}

fn by_trunk(direction: Direction, trunk: Option<&str>) -> String {
    match (direction, trunk) {
        (_, None) | (Direction::Internal, Some(_)) => String::new(),
        (Direction::Outbound, Some(trunk)) => format!(" by trunk {trunk}"),
        (Direction::Inbound, Some(trunk)) => format!(" through trunk {trunk}"),
    }
}

fn by_rule(rule: Option<&str>) -> String {
    rule.map_or_else(String::new, |rule| format!(", by rule {rule}"))
}

/// `they talked for 1983 ms, and the caller hung up.`
fn ending(cdr: &Cdr) -> String {
    let times = &cdr.times;
    let rang = match times.ring_delay_ms() {
        Some(ms) => format!("it rang after {ms} ms"),
        None => "it never rang".to_owned(),
    };
    let status = cdr.ending.status;
    match cdr.outcome() {
        Outcome::Answered => {
            let (waited_ms, talk_ms) = (times.answer_delay_ms().unwrap_or(0), times.talk_ms());
            let end = match cdr.ending.by {
                EndedBy::Caller => "the caller hung up",
                EndedBy::Callee => "the called side hung up",
                EndedBy::Tandem => "tandem ended it",
            };
            format!("it was answered after {waited_ms} ms and lasted {talk_ms} ms; {end}.")
        }
        Outcome::Cancelled => {
            format!("{rang}; the caller gave up after {} ms.", times.total_ms())
        }
        Outcome::Busy | Outcome::NoAnswer | Outcome::Refused => {
            let by = match cdr.ending.by {
                EndedBy::Caller => "the caller's side",
                EndedBy::Callee => "the called side",
                EndedBy::Tandem => "tandem",
            };
            format!("{rang}; {by} ended it with {status} after {} ms.", times.total_ms())
        }
    }
}

/// Which stretch of the way a code's family speaks of.
fn place(cdr: &Cdr, code: &str) -> String {
    let trunk = cdr.route.trunk.as_deref().unwrap_or("the trunk");
    match code.as_bytes().first() {
        Some(b'T') => format!("between tandem and {trunk}"),
        Some(b'P') => format!("between tandem and the phone of {}", cdr.callee.number),
        Some(b'R') => "in tandem, by its dialplan and configuration".to_owned(),
        Some(b'G') => "in tandem, at a guard of its configuration".to_owned(),
        Some(b'M') => "in the media between the two sides".to_owned(),
        Some(b'S') => "in the dialog with one side".to_owned(),
        Some(_) | None => "in tandem itself".to_owned(),
    }
}

/// Chooses the message that shows the cause: the refusal from outside; for silence, the last request
/// that nobody answered; where an answered call was dropped, the BYE.
fn evidence<'a>(cdr: &Cdr, code: &str, entries: &[&'a Entry]) -> Option<&'a Entry> {
    let is_outside = matches!(code.as_bytes().first(), Some(b'T' | b'P' | b'S'));
    if !is_outside {
        return None;
    }
    if cdr.times.answer.is_some() {
        return last(entries, |entry| is_request(entry, "BYE"));
    }
    let caller = entries.first().map(|entry| &*entry.from);
    let refusal = last(entries, |entry| {
        let refuses = matches!(entry.what, What::Response { status, .. } if status >= 300);
        refuses && &*entry.from != SELF && Some(&*entry.from) != caller
    });
    let inbound = || {
        last(entries, |entry| matches!(entry.what, What::Response { status, .. } if status >= 300))
    };
    let unanswered = || {
        last(entries, |entry| {
            is_request(entry, "INVITE") && &*entry.from == SELF && Some(&*entry.to) != caller
        })
    };
    refusal.or_else(unanswered).or_else(inbound)
}

fn last<'a>(entries: &[&'a Entry], is_it: impl Fn(&Entry) -> bool) -> Option<&'a Entry> {
    entries.iter().rev().find(|entry| is_it(entry)).copied()
}

fn is_request(entry: &Entry, wanted: &str) -> bool {
    matches!(&entry.what, What::Request { method } if &**method == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{
        cdr::{
            Explanation,
            tests::{answered, refused},
        },
        ladder::{Ladder, Line},
    };
    use std::time::{Duration, Instant};

    #[expect(clippy::disallowed_methods, reason = "any time will do as the ladder's zero")]
    fn epoch() -> Instant {
        Instant::now()
    }

    /// A refused call's messages, as far as they matter.
    fn refusal() -> Rungs {
        let start = epoch();
        let at = |ms| start + Duration::from_millis(ms);
        let mut ladder = Ladder::new(start);
        let mut add = |from: &str, to: &str, line, ms| ladder.record(from, to, line, at(ms));
        add("1001", "tandem", Line::request("INVITE", 1), 0);
        add("tandem", "twilio", Line::request("INVITE", 1), 2);
        add("twilio", "tandem", Line::response(407, "Authenticate", "INVITE", 1), 30);
        add("tandem", "twilio", Line::request("INVITE", 2), 31);
        add("twilio", "tandem", Line::response(403, "Caller ID not owned", "INVITE", 2), 340);
        add("tandem", "1001", Line::response(403, "Forbidden", "INVITE", 1), 341);
        add("1001", "tandem", Line::request("ACK", 1), 350);
        ladder.rungs()
    }

    #[test]
    fn a_refused_call_is_told_with_its_evidence() {
        assert_eq!(
            Story::of(&refused(42), &refusal()).to_string(),
            "c00-2a: 1001 called +1415****199 by trunk twilio as +1775****988, by rule \
             internal[2]; it rang after 100 ms; the called side ended it with 403 after 5900 ms. \
             It failed between tandem and twilio, as this message shows: `340 ms  twilio -> \
             tandem  403 Caller ID not owned (INVITE)`. T001: the carrier does not let us call \
             from +1775****988; the carrier's console has it as 32204 or 32206. What to do: set \
             `caller_id` to a number of this account."
        );
    }

    #[test]
    fn a_call_that_went_well_has_nothing_to_mend() {
        let told = Story::of(&answered(42), &Rungs::default()).to_string();
        assert!(told.contains("and lasted 5000 ms; the caller hung up."), "{told}");
        let quality = Some("loss 4 % between carrier and PBX; none towards the phone".to_owned());
        let told = Story::of(&Cdr { quality, ..answered(42) }, &Rungs::default()).to_string();
        let want = " Sound: loss 4 % between carrier and PBX; none towards the phone.";
        assert!(told.ends_with(want), "{told}");
    }

    #[test]
    fn each_family_of_codes_has_its_place_and_evidence() {
        let cases: [(&str, bool, &str, Option<&str>); 5] = [
            ("T006", false, "between tandem and twilio", Some("403 Caller ID not owned (INVITE)")),
            ("R001", false, "in tandem, by its dialplan and configuration", None),
            ("M002", true, "in the media between the two sides", None),
            ("P001", false, "between tandem and the phone of +1415****199", Some("403")),
            ("X001", true, "in tandem itself", None),
        ];
        for (code, is_answered, place, evidence) in cases {
            let mut cdr = if is_answered { answered(1) } else { refused(1) };
            let (sentence, help) = ("it broke".to_owned(), None);
            let code = code.to_owned();
            cdr.ending.why = Some(Explanation { code, sentence, help, carrier_errors: vec![] });
            let story = Story::of(&cdr, &refusal());
            assert_eq!(story.place.as_deref(), Some(place));
            let found = story.evidence.as_deref();
            assert_eq!(found.is_some(), evidence.is_some(), "{story}");
            assert!(found.unwrap_or("").contains(evidence.unwrap_or("")), "{story}");
        }
    }

    #[test]
    fn silence_is_shown_by_the_request_that_nobody_answered() {
        let start = epoch();
        let mut ladder = Ladder::new(start);
        ladder.record("1001", "tandem", Line::request("INVITE", 1), start);
        ladder.record("tandem", "twilio", Line::request("INVITE", 1), start);
        ladder.record("tandem", "1001", Line::response(480, "Gone", "INVITE", 1), start);
        let story = Story::of(&refused(1), &ladder.rungs());
        assert_eq!(story.evidence.as_deref(), Some("0 ms  tandem -> twilio  INVITE"));
    }
}
