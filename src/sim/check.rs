//! What must be true of every conversation, whatever the network did to it.
//!
//! Owns: the checkers; they judge by the messages alone.
//! Never: looks into a node.

use super::world::{Fate, Sent, World};
use crate::sip::{HeaderName, Message, Method};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Timers B and F, in milliseconds.
const GIVE_UP_MS: u64 = 32_000;

/// Returns every violation as a sentence, of every checker. To be called at the end.
pub fn violations(world: &World) -> Vec<String> {
    let sent = world.sent();
    let mut found = requests_end(sent, world.now_ms());
    found.extend(cseq_rises(sent));
    found.extend(finals_are_final(sent));
    found.extend(offers_are_answered_once(sent));
    found.extend(answers_are_acknowledged_first(sent));
    found.extend(dialogs_end(sent));
    found
}

/// What became of a request.
#[derive(Default)]
struct Asked {
    first_ms: u64,
    has_failed: bool,
    heard_provisional: bool,
    heard_final: bool,
    cancelled_ms: Option<u64>,
}

impl Asked {
    /// Returns whether its sender may have forgotten it (timers B and F, RFC 3261 9.1).
    fn has_ended(&self, method: Method, end_ms: u64) -> bool {
        let given_up = if method == Method::Invite && self.heard_provisional {
            self.cancelled_ms
        } else {
            Some(self.first_ms)
        };
        let given_up = given_up.is_some_and(|since| since + GIVE_UP_MS <= end_ms);
        self.heard_final || self.has_failed || given_up
    }
}

/// Every client transaction ends: with a final response, a failure, or by giving up.
pub fn requests_end(sent: &[Sent], end_ms: u64) -> Vec<String> {
    let mut asked: BTreeMap<(&str, &str, Method), Asked> = BTreeMap::new();
    for Sent { at_ms, from, to, message, fate, .. } in sent {
        let (branch, method) = (message.branch(), message.method());
        if message.is_request() && method != Method::Ack {
            let first = || Asked { first_ms: *at_ms, ..Asked::default() };
            let entry = asked.entry((from, branch, method)).or_insert_with(first);
            entry.has_failed |= *fate == Fate::NobodyThere;
            if method == Method::Cancel
                && let Some(invite) = asked.get_mut(&(&**from, branch, Method::Invite))
            {
                invite.cancelled_ms.get_or_insert(*at_ms);
            }
        } else if matches!(fate, Fate::Arrives { .. })
            && let Some(entry) = asked.get_mut(&(&**to, branch, method))
        {
            entry.heard_provisional |= message.status() < 200;
            entry.heard_final |= message.status() >= 200;
        }
    }
    let open = asked.iter().filter(|((.., method), asked)| !asked.has_ended(*method, end_ms));
    open.map(|((who, branch, method), asked)| {
        format!("{who}: {method} {branch} of {} ms has not ended", asked.first_ms)
    })
    .collect()
}

/// The requests of one side of a dialog have rising CSeq numbers (RFC 3261 12.2.1.1). Requests
/// outside the dialog that created it come before all of its own.
pub fn cseq_rises(sent: &[Sent]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut last: BTreeMap<(&str, &str, &str, Option<&str>), u32> = BTreeMap::new();
    let mut found = vec![];
    for Sent { at_ms, from, message, .. } in sent {
        let is_numbered = message.is_request()
            && message.method() != Method::Ack
            && message.method() != Method::Cancel;
        if !is_numbered || !seen.insert((from, message.branch())) {
            continue;
        }
        let number = message.cseq().number;
        let side = (&**from, message.call_id(), message.from_tag().unwrap_or_default());
        let within = (side.0, side.1, side.2, message.to_tag());
        let outside = (side.0, side.1, side.2, None);
        let before = [within, outside].iter().filter_map(|key| last.get(key)).max();
        if before.is_some_and(|before| *before >= number) {
            let method = message.method_token();
            found.push(format!("{at_ms} ms, {from}: {method} with CSeq {number} again or less"));
        }
        last.insert(within, number);
    }
    found
}

/// An INVITE has at most one final response, however often it is sent (RFC 3261 17.2.1).
pub fn finals_are_final(sent: &[Sent]) -> Vec<String> {
    let mut finals: BTreeMap<(&str, &str, u32), (u16, Option<&str>)> = BTreeMap::new();
    let mut found = vec![];
    for Sent { at_ms, from, message, .. } in sent {
        if message.status() < 200 || message.method() != Method::Invite {
            continue;
        }
        let answer = (message.status(), message.to_tag());
        let key = (&**from, message.branch(), message.cseq().number);
        let first = *finals.entry(key).or_insert(answer);
        if first != answer {
            let (was, is) = (first.0, answer.0);
            found.push(format!("{at_ms} ms, {from}: INVITE answered {was}, then {is}"));
        }
    }
    found
}

/// One exchange of offer and answer: an INVITE, UPDATE or PRACK, on one of its dialogs.
#[derive(Default)]
struct Exchange {
    /// What 2xx and reliable provisional responses say.
    responses: BTreeSet<Bytes>,
    has_reliable: bool,
    acks: BTreeSet<Option<Bytes>>,
}

/// Every offer has at most one answer, and an offer in a 2xx has one in its ACK (RFC 3264 4,
/// RFC 3261 13.2.1, RFC 3262 5).
pub fn offers_are_answered_once(sent: &[Sent]) -> Vec<String> {
    let mut offers: BTreeMap<(&str, &str, u32), bool> = BTreeMap::new();
    let mut exchanges: BTreeMap<(&str, &str, u32, &str), Exchange> = BTreeMap::new();
    for Sent { message, .. } in sent {
        let (call, tag) = (message.call_id(), message.from_tag().unwrap_or_default());
        let number = message.cseq().number;
        let to_tag = message.to_tag().unwrap_or_default();
        if !message.is_request() || message.method() == Method::Ack {
            exchanges.entry((call, tag, number, to_tag)).or_default().note(message);
        } else if message.method() != Method::Cancel {
            offers.insert((call, tag, number), message.sdp().is_some());
        }
    }
    let mut found = vec![];
    for ((call, tag, number, to_tag), exchange) in &exchanges {
        let offered = offers.get(&(*call, *tag, *number)).copied();
        let faults = exchange.faults(offered).into_iter();
        found.extend(faults.map(|fault| format!("{call} {number} {to_tag}: {fault}")));
    }
    found
}

impl Exchange {
    fn note(&mut self, message: &Message) {
        if message.is_request() {
            self.acks.insert(message.sdp());
            return;
        }
        let is_reliable = message.status() < 200 && message.header(HeaderName::RSeq).is_some();
        if let Some(sdp) = message.sdp()
            && (is_reliable || (200..300).contains(&message.status()))
        {
            self.has_reliable |= is_reliable;
            self.responses.insert(sdp);
        }
    }

    /// `offered`: whether the request carried an offer, if it was seen.
    fn faults(&self, offered: Option<bool>) -> Vec<&'static str> {
        let answers = self.acks.iter().flatten().count();
        let is_delayed = offered == Some(false) && !self.responses.is_empty();
        let mut faults = vec![];
        if self.responses.len() > 1 {
            faults.push("the responses differ in their SDP");
        }
        if answers > 1 {
            faults.push("the ACKs differ in their SDP");
        }
        if offered == Some(true) && answers > 0 {
            faults.push("an answer to an answer, in the ACK");
        }
        if is_delayed && !self.has_reliable && self.acks.contains(&None) {
            faults.push("the offer in the 2xx has no answer in the ACK");
        }
        faults
    }
}

/// Every dialog that an answer has made ends: one of the two says BYE (RFC 3261 15), if its caller has
/// heard of it at all, and before everybody has given up: over a connection it may take any time.
pub fn dialogs_end(sent: &[Sent]) -> Vec<String> {
    let mut first_ms: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut made: BTreeMap<(&str, &str), (u64, &str)> = BTreeMap::new();
    let mut ended: BTreeSet<(&str, &str)> = BTreeSet::new();
    for Sent { at_ms, to, message, fate, .. } in sent {
        let (call_id, to_tag) = (message.call_id(), message.to_tag().unwrap_or_default());
        match (message.method(), message.status()) {
            (Method::Invite, 200..300) => {
                let end_ms = *first_ms.entry((call_id, to_tag)).or_insert(*at_ms) + 2 * GIVE_UP_MS;
                if matches!(fate, Fate::Arrives { at_ms } if *at_ms < end_ms) {
                    made.entry((call_id, to_tag)).or_insert((*at_ms, to));
                }
            }
            (Method::Bye, 0) => {
                ended.insert((call_id, to_tag));
                ended.insert((call_id, message.from_tag().unwrap_or_default()));
            }
            (_, _) => {}
        }
    }
    let open = made.iter().filter(|(dialog, _)| !ended.contains(*dialog));
    open.map(|((call_id, tag), (at_ms, who))| {
        format!("{who}: the call {call_id} {tag} of {at_ms} ms has no BYE")
    })
    .collect()
}

/// A 2xx waits for the PRACK of a reliable response with a session description (RFC 3262 3).
pub fn answers_are_acknowledged_first(sent: &[Sent]) -> Vec<String> {
    let mut open: BTreeMap<(&str, &str, u32), BTreeSet<u32>> = BTreeMap::new();
    let mut heard: BTreeMap<(&str, u32), u64> = BTreeMap::new();
    let mut found = vec![];
    for Sent { at_ms, from, message, fate, .. } in sent {
        let call_id = message.call_id();
        if let (Some(rack), Fate::Arrives { at_ms }) = (message.header_str(HeaderName::RAck), fate)
            && let Some(rseq) = rack.split(' ').next().and_then(|rseq| rseq.parse().ok())
        {
            let first = heard.entry((call_id, rseq)).or_insert(*at_ms);
            *first = (*first).min(*at_ms);
        }
        let key = (call_id, message.to_tag().unwrap_or_default(), message.cseq().number);
        let is_answer = message.method() == Method::Invite && message.sdp().is_some();
        match (message.status(), message.number(HeaderName::RSeq)) {
            (101..200, Some(rseq)) if is_answer => {
                open.entry(key).or_default().insert(rseq);
            }
            (200..300, _) if message.method() == Method::Invite => {
                let waits = |rseq| heard.get(&(call_id, rseq)).is_none_or(|at| at > at_ms);
                let early = open.get(&key).into_iter().flatten().find(|rseq| waits(**rseq));
                found.extend(early.map(|rseq| {
                    format!("{at_ms} ms, {from}: {} before the PRACK of {rseq}", message.status())
                }));
            }
            (_, _) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Flow, Transport};

    const INVITE: (u64, &str, &str) = (0, "a", "INVITE 1 z9hG4bK1");

    #[test]
    fn a_conversation_as_it_should_be() {
        let story = [
            (0, "a", "INVITE 1 z9hG4bK1 sdp"),
            (1, "b", "180 INVITE 1 z9hG4bK1 t"),
            (2, "b", "200 INVITE 1 z9hG4bK1 t sdp"),
            (3, "b", "200 INVITE 1 z9hG4bK1 t sdp"),
            (4, "a", "ACK 1 z9hG4bK2 t"),
            (5, "b", "BYE 5 z9hG4bK3 t"),
            (6, "a", "200 BYE 5 z9hG4bK3 t"),
            (7, "a", "OPTIONS 2 z9hG4bK4"),
        ];
        check(&story, 32_007, &[]);
        check(&story, 32_006, &["a: OPTIONS z9hG4bK4 of 7 ms has not ended"]);
    }

    #[test]
    fn an_invite_that_was_heard_ends_by_cancel_only() {
        let ringing = (1, "b", "180 INVITE 1 z9hG4bK1 t");
        let open = "a: INVITE z9hG4bK1 of 0 ms has not ended";
        check(&[INVITE], 31_999, &[open]);
        check(&[INVITE], 32_000, &[]);
        check(&[INVITE, ringing], 99_000, &[open]);
        let cancel = [(2, "a", "CANCEL 1 z9hG4bK1"), (3, "b", "200 CANCEL 1 z9hG4bK1 t")];
        check(&[INVITE, ringing, cancel[0], cancel[1]], 32_001, &[open]);
        check(&[INVITE, ringing, cancel[0], cancel[1]], 32_002, &[]);
        let lost = (1, "b", "180 INVITE 1 z9hG4bK1 t lost");
        check(&[INVITE, lost], 32_000, &[]);
    }

    #[test]
    fn a_cseq_that_does_not_rise_is_found() {
        let again = (9, "a", "INVITE 1 z9hG4bK2");
        check(&[INVITE, INVITE, again], 99_000, &["9 ms, a: INVITE with CSeq 1 again or less"]);
        let inside = [(9, "a", "BYE 1 z9hG4bK2 t"), (10, "a", "BYE 2 z9hG4bK3 t")];
        let found = ["9 ms, a: BYE with CSeq 1 again or less"];
        check(&[INVITE, inside[0], inside[1]], 99_000, &found);
        let forks = [(9, "a", "PRACK 2 z9hG4bK2 t"), (10, "a", "PRACK 2 z9hG4bK3 u")];
        check(&[INVITE, forks[0], forks[1]], 99_000, &[]);
    }

    #[test]
    fn a_second_final_response_is_found() {
        let (busy, ok) = ((1, "b", "486 INVITE 1 z9hG4bK1 t"), (2, "b", "200 INVITE 1 z9hG4bK1 t"));
        check(&[INVITE, busy, busy], 99_000, &[]);
        check(&[INVITE, busy, ok], 99_000, &["2 ms, b: INVITE answered 486, then 200"]);
        let other = (2, "b", "486 INVITE 1 z9hG4bK1 u");
        check(&[INVITE, busy, other], 99_000, &["2 ms, b: INVITE answered 486, then 486"]);
    }

    #[test]
    fn an_offer_with_two_answers_or_none_is_found() {
        let offer = (0, "a", "INVITE 1 z9hG4bK1 sdp");
        let answer = (1, "b", "200 INVITE 1 z9hG4bK1 t sdp");
        let (ack, ack_sdp) = ((2, "a", "ACK 1 z9hG4bK2 t"), (2, "a", "ACK 1 z9hG4bK2 t sdp"));
        check(&[offer, answer, ack], 99_000, &[]);
        check(&[INVITE, answer, ack_sdp], 99_000, &[]);
        let other = (1, "b", "200 INVITE 1 z9hG4bK1 t SDP");
        check(&[offer, answer, other], 99_000, &["c 1 t: the responses differ in their SDP"]);
        check(&[offer, answer, ack_sdp], 99_000, &["c 1 t: an answer to an answer, in the ACK"]);
        let none = "c 1 t: the offer in the 2xx has no answer in the ACK";
        check(&[INVITE, answer, ack], 99_000, &[none]);
        let ack_other = (2, "a", "ACK 1 z9hG4bK2 t SDP");
        let differ = "c 1 t: the ACKs differ in their SDP";
        check(&[INVITE, answer, ack_sdp, ack_other], 99_000, &[differ]);
    }

    #[test]
    fn a_call_that_nobody_hangs_up_is_found() {
        let ok = (2, "b", "200 INVITE 1 z9hG4bK1 t");
        let check = |story: &[(u64, &str, &str)]| {
            let sent = story.iter().map(|(ms, from, text)| sent(*ms, from, text));
            dialogs_end(&sent.collect::<Vec<_>>())
        };
        let open = "a: the call c t of 2 ms has no BYE";
        assert_eq!(check(&[INVITE, ok]), [open]);
        assert_eq!(check(&[INVITE, ok, (9, "a", "BYE 2 z9hG4bK2 t")]), [""; 0]);
        assert_eq!(check(&[INVITE, ok, (9, "a", "BYE 2 z9hG4bK2 u")]), [open]);
        assert_eq!(check(&[INVITE, (2, "b", "200 INVITE 1 z9hG4bK1 t lost")]), [""; 0]);
    }

    #[test]
    fn a_200_before_the_prack_is_found() {
        let reliable = (1, "b", "183 INVITE 1 z9hG4bK1 t sdp RSeq:7");
        let prack = (2, "a", "PRACK 2 z9hG4bK2 t RAck:7_1_INVITE");
        let ok = (3, "b", "200 INVITE 1 z9hG4bK1 t sdp");
        let check = |story: &[(u64, &str, &str)]| {
            let sent = story.iter().map(|(ms, from, text)| sent(*ms, from, text));
            answers_are_acknowledged_first(&sent.collect::<Vec<_>>())
        };
        assert_eq!(check(&[INVITE, reliable, prack, ok]), [""; 0]);
        assert_eq!(check(&[INVITE, reliable, ok]), ["3 ms, b: 200 before the PRACK of 7"]);
        let plain = (1, "b", "183 INVITE 1 z9hG4bK1 t RSeq:7");
        assert_eq!(check(&[INVITE, plain, ok]), [""; 0]);
    }

    /// A message is: status if any, method, CSeq, branch, To tag, `sdp` or `SDP`, `lost`, `RSeq:1`,
    /// `RAck:1_1_INVITE`.
    #[track_caller]
    fn check(story: &[(u64, &str, &str)], end_ms: u64, want: &[&str]) {
        let sent = story.iter().map(|(ms, from, text)| sent(*ms, from, text)).collect::<Vec<_>>();
        let mut found = requests_end(&sent, end_ms);
        found.extend(cseq_rises(&sent));
        found.extend(finals_are_final(&sent));
        found.extend(offers_are_answered_once(&sent));
        assert_eq!(found, want);
    }

    fn sent(at_ms: u64, from: &str, text: &str) -> Sent {
        let to = if from == "a" { "b" } else { "a" };
        let is_lost = text.contains("lost");
        let fate = if is_lost { Fate::Lost } else { Fate::Arrives { at_ms } };
        let local = "127.0.0.1:1".parse().unwrap();
        let flow = Flow { transport: Transport::Udp, local, remote: local };
        let message = message(text);
        Sent { at_ms, from: from.into(), to: to.into(), flow, message, fate }
    }

    fn message(text: &str) -> Message {
        let is_header = |word: &&str| word.contains(':');
        let header = text.split(' ').find(is_header).map_or(String::new(), |header| {
            format!("{}\r\n", header.replace(':', ": ").replace('_', " "))
        });
        let mut words =
            text.split(' ').filter(|word| *word != "lost" && !is_header(word)).peekable();
        let status = words.next_if(|word| word.parse::<u16>().is_ok());
        let mut next = || words.next().unwrap_or_default();
        let (method, cseq, branch) = (next(), next(), next());
        let is_sdp = |word: &&str| word.eq_ignore_ascii_case("sdp");
        let tag = Some(next()).filter(|word| !word.is_empty() && !is_sdp(word));
        let body = text.split(' ').find(is_sdp).unwrap_or_default();
        let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let start = match status {
            Some(status) => format!("SIP/2.0 {status} Words"),
            None => format!("{method} sip:b SIP/2.0"),
        };
        let to_tag = tag.map(|tag| format!(";tag={tag}")).unwrap_or_default();
        let text = format!(
            "{start}\r\nVia: SIP/2.0/UDP a;branch={branch}\r\nFrom: <sip:a@a>;tag=f\r\n\
             To: <sip:b@b>{to_tag}\r\nCall-ID: c\r\nCSeq: {cseq} {method}\r\n\
             Max-Forwards: 70\r\n{header}{content}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Message::parse(Bytes::from(text)).unwrap()
    }
}
