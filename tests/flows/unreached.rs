//! What a carrier says of a PBX that it could not reach, told from what it says of one that was silent.

use crate::house::{TANDEM, TWILIO};
use std::collections::BTreeMap;
use tandem::{
    ids::Transport,
    sim::{
        Fate, Sent,
        twilio::{Deviation, Rule},
    },
    sip::{HeaderName, Method},
};

/// After so long the carrier waits for an answer, or for an ACK, no more.
const PATIENCE_MS: u64 = 30_000;
/// After its last copy an INVITE waits for so long (RFC 3261 17.1.1.2: 64 less 63 times T1).
const LAST_COPY_MS: u64 = 500;

/// Returns whether the network is to blame for what the carrier misses: the PBX was not asked, or what it said
/// got lost, all of it.
pub(crate) fn is_unreached(sent: &[Sent], deviation: &Deviation) -> bool {
    // The last word is the Call-ID.
    let call_id = deviation.evidence.rsplit(' ').next().unwrap_or_default();
    let of_call: Vec<&Sent> =
        sent.iter().filter(|sent| sent.message.call_id() == call_id).collect();
    let is_silence = deviation.evidence.contains("said nothing to a call of ours: ");
    (deviation.rule == Rule::Acknowledges && lacks_acks(&of_call))
        || (deviation.rule == Rule::AnswersCalls && is_silence && lacks_answers(&of_call))
}

fn by<'a>(sent: &[&'a Sent], name: &str) -> Vec<&'a Sent> {
    sent.iter().filter(|sent| &*sent.from == name).copied().collect()
}

fn arrives_before(sent: &Sent, end_ms: u64) -> bool {
    matches!(sent.fate, Fate::Arrives { at_ms } if at_ms < end_ms)
}

/// Each answer of the carrier's did not leave it, or did not arrive, or each of its ACKs was lost.
fn lacks_acks(of_call: &[&Sent]) -> bool {
    let mut answers: BTreeMap<u32, Vec<&Sent>> = BTreeMap::new();
    for sent in by(of_call, TWILIO) {
        if sent.message.method() == Method::Invite && (200..300).contains(&sent.message.status()) {
            answers.entry(sent.message.cseq().number).or_default().push(sent);
        }
    }
    let ours = by(of_call, TANDEM);
    let mut is_any_lost = answers.is_empty();
    for (number, copies) in answers {
        let end_ms = copies[0].at_ms + PATIENCE_MS;
        let is_ack = |sent: &&&Sent| {
            sent.message.method() == Method::Ack
                && sent.message.is_request()
                && sent.message.cseq().number == number
        };
        let mut acks = ours.iter().filter(is_ack).peekable();
        let is_heard = copies.iter().any(|copy| arrives_before(copy, end_ms));
        if is_heard && acks.peek().is_none() {
            return false;
        }
        is_any_lost |= !acks.any(|ack| arrives_before(ack, end_ms));
    }
    is_any_lost
}

/// No copy of the carrier's INVITE arrived, or left it at all, or nothing that was answered arrived.
fn lacks_answers(of_call: &[&Sent]) -> bool {
    let invites: Vec<_> = by(of_call, TWILIO)
        .into_iter()
        .filter(|sent| sent.message.method() == Method::Invite && sent.message.is_request())
        .collect();
    // Over UDP it goes on asking while it hears nothing; its last copy is sent when half a second is left. Those
    // that did not leave it are not seen.
    let end_ms = invites.last().map_or(0, |last| match last.flow.transport {
        Transport::Udp => last.at_ms + LAST_COPY_MS,
        Transport::Tcp | Transport::Tls => last.at_ms + PATIENCE_MS,
    });
    let is_asked = invites.iter().any(|invite| arrives_before(invite, end_ms));
    let ours = by(of_call, TANDEM);
    let mut answers = ours
        .iter()
        .filter(|sent| sent.message.method() == Method::Invite && sent.message.status() > 0)
        .peekable();
    match answers.peek() {
        None if is_asked => return false,
        // A connection loses nothing but with its end, and the carrier's patience ends with it.
        Some(first) if first.flow.transport.is_reliable() && first.fate == Fate::Lost => {
            return true;
        }
        Some(_) | None => {}
    }
    !answers.any(|answer| arrives_before(answer, end_ms))
}

/// Returns whether an INVITE of the carrier's, as [`tandem::sim::check`] names it, could not end: it did not arrive,
/// or it was answered and no final response came back.
pub(crate) fn is_given_up(sent: &[Sent], fault: &str) -> bool {
    let Some(rest) = fault.strip_prefix("twilio: INVITE ") else { return false };
    let (Some(branch), true) = (rest.split(' ').next(), rest.ends_with("has not ended")) else {
        return false;
    };
    let of_branch = |sent: &&Sent| sent.message.branch() == branch;
    let all: Vec<&Sent> = sent.iter().filter(of_branch).collect();
    let is_asked = by(&all, TWILIO).iter().any(|sent| {
        let is_invite = sent.message.method() == Method::Invite && sent.message.is_request();
        is_invite && matches!(sent.fate, Fate::Arrives { .. })
    });
    let is_final =
        |sent: &&&Sent| sent.message.method() == Method::Invite && sent.message.status() >= 200;
    !is_asked || by(&all, TANDEM).iter().any(|sent| is_final(&sent))
}

/// Returns whether an INVITE has two answers, as [`tandem::sim::check`] tells it, because one of them was given without
/// reading more than its first lines: nothing is remembered of what there is no time for (RFC 3261 8.2.7, RFC 5390).
pub(crate) fn is_shed(sent: &[Sent], fault: &str) -> bool {
    let Some((at_ms, said)) = fault.split_once(" ms, tandem: INVITE answered ") else {
        return false;
    };
    let is_told = |answer: &&Sent| {
        let (status, is_ours) = (answer.message.status(), &*answer.from == TANDEM);
        is_ours && answer.at_ms.to_string() == at_ms && said.ends_with(&format!(" {status}"))
    };
    sent.iter().filter(is_told).any(|second| {
        let of_invite = |sent: &&Sent| {
            &*sent.from == TANDEM
                && sent.message.branch() == second.message.branch()
                && sent.message.method() == Method::Invite
                && !sent.message.is_request()
        };
        let answers = sent.iter().filter(of_invite).take_while(|sent| sent.at_ms <= second.at_ms);
        // What was read began with a 100.
        let mut unread = answers.take_while(|sent| sent.message.status() != 100);
        unread.any(|answer| {
            answer.message.status() == 503
                && answer.message.header(HeaderName::RetryAfter).is_some()
                && answer.message.header(HeaderName::Server).is_none()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem::{ids::Flow, sip::Message};

    /// A story is a line for each message: `t INVITE 1` from the carrier, `p 200 1` of the PBX, `lost` where it is.
    fn story(lines: &[&str]) -> Vec<Sent> {
        let address = "127.0.0.1:5060".parse().unwrap();
        let flow = Flow { transport: Transport::Udp, local: address, remote: address };
        let sent = |line: &&str| {
            let words: Vec<&str> = line.split(' ').collect();
            let (from, to) = if words[0] == "t" { (TWILIO, TANDEM) } else { (TANDEM, TWILIO) };
            let start = match words[1].parse::<u16>() {
                Ok(status) => format!("SIP/2.0 {status} x"),
                Err(_) => format!("{} sip:a@b SIP/2.0", words[1]),
            };
            let method = if words[1] == "ACK" { "ACK" } else { "INVITE" };
            let shed = if words.contains(&"shed") { "Retry-After: 3\r\n" } else { "" };
            let text = format!(
                "{start}\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\n\
                 To: <sip:a@b>\r\nCall-ID: c\r\nCSeq: {} {method}\r\n{shed}\r\n",
                words[2]
            );
            let message = Message::parse(text.into()).unwrap();
            let fate =
                if words.contains(&"lost") { Fate::Lost } else { Fate::Arrives { at_ms: 1 } };
            Sent { at_ms: 0, from: from.into(), to: to.into(), flow, message, fate }
        };
        lines.iter().map(sent).collect()
    }

    #[test]
    fn only_the_network_is_an_excuse() {
        for (rule, lines, want) in [
            (Rule::Acknowledges, &["t 200 1 lost", "t 200 1 lost"][..], true),
            (Rule::Acknowledges, &["t 200 1", "p ACK 1 lost"], true),
            (Rule::Acknowledges, &["t 200 1 lost", "t 200 1"], false),
            (Rule::Acknowledges, &["t 200 1", "p ACK 1"], false),
            (Rule::Acknowledges, &["t 200 1", "p ACK 1", "t 200 2", "p ACK 2 lost"], true),
            (Rule::Acknowledges, &["t 200 1", "p ACK 1 lost", "t 200 2"], false),
            (Rule::AnswersCalls, &["t INVITE 1 lost"], true),
            (Rule::AnswersCalls, &[], true),
            (Rule::Acknowledges, &[], true),
            (Rule::AnswersCalls, &["t INVITE 1", "p 100 1 lost"], true),
            (Rule::AnswersCalls, &["t INVITE 1"], false),
            (Rule::AnswersCalls, &["t INVITE 1", "p 100 1"], false),
            (Rule::CallPace, &["t INVITE 1 lost"], false),
        ] {
            let evidence = "x said nothing to a call of ours: c".to_owned();
            let deviation = Deviation { rule, evidence };
            assert_eq!(is_unreached(&story(lines), &deviation), want, "{lines:?}");
        }
        let evidence = "420 to a call of ours".to_owned();
        assert!(!is_unreached(&[], &Deviation { rule: Rule::AnswersCalls, evidence }));
        let fault = "twilio: INVITE z9hG4bKx of 0 ms has not ended";
        for (lines, want) in [
            (&["t INVITE 1 lost"][..], true),
            (&["t INVITE 1", "p 486 1 lost"], true),
            (&["t INVITE 1", "p 180 1"], false),
        ] {
            assert_eq!(is_given_up(&story(lines), fault), want, "{lines:?}");
        }
        assert!(!is_given_up(&[], "1001: INVITE z9hG4bKx of 0 ms has not ended"));
    }
    #[test]
    fn only_what_was_shed_has_two_answers() {
        for (lines, then, want) in [
            (&["p 503 1 shed", "p 100 1", "p 200 1"][..], "503, then 200", true),
            (&["p 401 1", "p 503 1 shed"], "401, then 503", true),
            (&["p 503 1", "p 200 1"], "503, then 200", false),
            (&["p 100 1", "p 503 1 shed", "p 200 1"], "503, then 200", false),
            (&["p 486 1", "p 200 1"], "486, then 200", false),
        ] {
            let fault = format!("0 ms, tandem: INVITE answered {then}");
            assert_eq!(is_shed(&story(lines), &fault), want, "{lines:?}");
        }
    }
}
