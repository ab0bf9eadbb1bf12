//! Where a call's sound went bad: one sentence from what both legs measured and reported.
//!
//! Owns: from which loss and jitter on a listener is disturbed, and the wording.
//! Never: measures, or takes for lost on one stretch what was lost on the one before.

use super::cdr::{Cdr, Direction, LegMedia, Stream};
use std::fmt;

/// Loss from here on is heard in spite of concealment, in percent.
const LOSS_MIN: f64 = 1.0;
/// Jitter from here on empties the buffers of phones, in ms.
const JITTER_MIN_MS: f64 = 30.0;
/// Calls that talked for less have too little sound to be judged.
const TALK_MIN_MS: u64 = 2_000;

/// How a call sounded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// For people: `loss 4 % between carrier and PBX; none towards the phone`.
    pub sentence: String,
    /// Whether somebody will have heard it.
    pub is_bad: bool,
}

/// Judges a call that is over. None where nobody talked for long enough, or no media was opened.
pub fn judge(cdr: &Cdr) -> Option<Verdict> {
    let (caller, callee) = sides(cdr);
    let has_media = |side: &Side<'_>| side.media.received.is_some();
    if cdr.times.talk_ms() < TALK_MIN_MS || !(has_media(&caller) || has_media(&callee)) {
        return None;
    }
    let ways = [Way::new(&callee, &caller), Way::new(&caller, &callee)];
    let found: Vec<String> = ways.iter().flat_map(Way::faults).collect();
    if !found.is_empty() {
        return Some(Verdict { sentence: found.join("; "), is_bad: true });
    }
    let most = |of: fn(&Way<'_>) -> [Option<f64>; 2]| {
        ways.iter().flat_map(of).flatten().fold(0.0, f64::max)
    };
    let loss = Percent(most(|way| [way.first.loss, way.second.loss]));
    let jitter = most(|way| [way.first.jitter_ms, way.second.jitter_ms]);
    let sentence = format!("good: loss at most {loss}, jitter at most {jitter:.0} ms");
    Some(Verdict { sentence, is_bad: false })
}

/// One end of a call.
struct Side<'a> {
    name: &'static str,
    is_carrier: bool,
    media: &'a LegMedia,
}

/// Who the two are: a phone and the carrier where that tells them apart.
fn sides(cdr: &Cdr) -> (Side<'_>, Side<'_>) {
    let (is_caller_ours, is_callee_ours) = (cdr.caller.user.is_some(), cdr.callee.user.is_some());
    let is_caller_carrier = cdr.direction == Direction::Inbound && !is_caller_ours;
    let is_callee_carrier = cdr.direction == Direction::Outbound && !is_callee_ours;
    let (caller, callee) = match (is_caller_carrier, is_callee_carrier) {
        (true, false) if is_callee_ours => ("carrier", "phone"),
        (false, true) => ("phone", "carrier"),
        (true | false, true | false) => ("caller", "callee"),
    };
    let side = |name, is_carrier, media| Side { name, is_carrier, media };
    (
        side(caller, is_caller_carrier, &cdr.media.caller),
        side(callee, is_callee_carrier, &cdr.media.callee),
    )
}

/// What one stretch of the way did to the sound. None where nobody could tell.
#[derive(Clone, Copy, Default)]
struct Stretch {
    /// In percent.
    loss: Option<f64>,
    jitter_ms: Option<f64>,
}

/// The way of the sound from one end to the other, through us.
struct Way<'a> {
    from: &'a Side<'a>,
    to: &'a Side<'a>,
    /// To us, as we measured it.
    first: Stretch,
    /// From us, as the other end reports it.
    second: Stretch,
}

impl<'a> Way<'a> {
    fn new(from: &'a Side<'a>, to: &'a Side<'a>) -> Self {
        let received = from.media.received.filter(|stream| stream.packets > 0);
        let first = received.map_or_else(Stretch::default, |stream| Stretch {
            loss: Some(percent(stream.lost, stream.packets.saturating_add(stream.lost))),
            jitter_ms: Some(stream.jitter_ms.into()),
        });
        // Without a report there is no opinion of the other end.
        let reported = to.media.sent.filter(|stream| stream.mos.is_some() && stream.reported > 0);
        let second = reported.map_or_else(Stretch::default, |stream| {
            let lost = stream.lost.saturating_sub(stream.lost_before);
            let before = first.jitter_ms.unwrap_or(0.0);
            Stretch {
                loss: Some(percent(lost, stream.reported.max(lost))),
                jitter_ms: Some((f64::from(stream.jitter_ms) - before).max(0.0)),
            }
        });
        Self { from, to, first, second }
    }

    /// Returns what is wrong on this way, each in a few words.
    fn faults(&self) -> Vec<String> {
        let packets = |stream: Option<Stream>| stream.map(|stream| stream.packets);
        if packets(self.from.media.received) == Some(0) {
            return vec![self.nothing_came()];
        }
        let (from, to) = (self.from.name, self.to.name);
        let has_come = packets(self.from.media.received).is_some();
        if has_come && packets(self.to.media.sent) == Some(0) {
            return vec![format!("nothing was sent to the {to}: it held, or wants no media")];
        }
        let mut found: Vec<String> = self.loss().into_iter().collect();
        if let Some(jitter) = self.first.jitter_ms.filter(|jitter| *jitter >= JITTER_MIN_MS) {
            found.push(format!("jitter {jitter:.0} ms between {from} and PBX"));
        }
        let ours = self.from.media.relay_jitter_us.map_or(0.0, |us| f64::from(us) / 1000.0);
        if ours >= JITTER_MIN_MS {
            found.push(format!("jitter {ours:.0} ms within the PBX: its machine is too busy"));
        } else if let Some(jitter) = self.second.jitter_ms.filter(|ms| *ms >= JITTER_MIN_MS) {
            found.push(format!("jitter {jitter:.0} ms added towards the {to}"));
        }
        found
    }

    fn nothing_came(&self) -> String {
        if !self.from.is_carrier {
            return format!("the {} sent nothing: its NAT or firewall", self.from.name);
        }
        let what = "nothing came from the carrier's media addresses";
        match self.from.media.strange {
            0 => what.to_owned(),
            _ => format!("{what}, but from others: add their networks to `media_source`"),
        }
    }

    fn loss(&self) -> Option<String> {
        let (from, to) = (self.from.name, self.to.name);
        let bad = |loss: Option<f64>| loss.filter(|loss| *loss >= LOSS_MIN).map(Percent);
        let little = |loss: f64| match Percent(loss).to_string().as_str() {
            "0 %" => "none".to_owned(),
            little => little.to_owned(),
        };
        Some(match (bad(self.first.loss), bad(self.second.loss)) {
            (None, None) => return None,
            (Some(first), Some(second)) => {
                format!("loss {first} between {from} and PBX, and {second} towards the {to}")
            }
            (Some(first), None) => {
                let second = self.second.loss.map_or_else(
                    || format!("the {to} does not report what it hears"),
                    |loss| format!("{} towards the {to}", little(loss)),
                );
                format!("loss {first} between {from} and PBX; {second}")
            }
            (None, Some(second)) => match self.first.loss {
                Some(first) => {
                    let first = little(first);
                    format!("loss {second} towards the {to}; {first} between {from} and PBX")
                }
                // The sound is ours: a prompt.
                None => format!("loss {second} towards the {to}"),
            },
        })
    }
}

/// Prints as `4 %` or `0.4 %`.
struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:.1}", self.0);
        write!(f, "{} %", text.strip_suffix(".0").unwrap_or(&text))
    }
}

#[expect(clippy::cast_precision_loss, reason = "packet counts are below 2^52")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::cdr::tests::answered;

    /// A stretch towards us, or from us: packets lost of 1000, those of them lost before, jitter.
    fn stream(lost: u64, lost_before: u64, jitter_ms: f32) -> Option<Stream> {
        let (packets, reported, mos) = (1000 - lost, 1000 - lost_before, Some(4.0));
        Some(Stream { packets, lost, lost_before, reported, jitter_ms, mos })
    }

    /// What the phone and the carrier sent, and what they report of what they heard.
    fn call(phone: [Option<Stream>; 2], carrier: [Option<Stream>; 2]) -> Cdr {
        let mut cdr = answered(1);
        (cdr.media.caller.received, cdr.media.caller.sent) = (phone[0], phone[1]);
        (cdr.media.callee.received, cdr.media.callee.sent) = (carrier[0], carrier[1]);
        cdr
    }

    fn sentence(cdr: &Cdr) -> String {
        judge(cdr).unwrap().sentence
    }

    #[test]
    fn every_stretch_is_blamed_for_its_own() {
        let clean = stream(0, 0, 2.0);
        let silent = stream(1000, 1000, 0.0).map(|s| Stream { packets: 0, lost: 0, ..s });
        let mute = |s: Option<Stream>| s.map(|s| Stream { mos: None, reported: 0, lost: 0, ..s });
        for (phone, carrier, want) in [
            ([clean, clean], [clean, clean], "good: loss at most 0 %, jitter at most 2 ms"),
            (
                [clean, stream(40, 40, 2.0)],
                [stream(40, 0, 2.0), clean],
                "loss 4 % between carrier and PBX; none towards the phone",
            ),
            (
                [clean, mute(stream(40, 40, 0.0))],
                [stream(40, 0, 2.0), clean],
                "loss 4 % between carrier and PBX; the phone does not report what it hears",
            ),
            (
                [clean, stream(30, 0, 2.0)],
                [stream(4, 0, 2.0), clean],
                "loss 3 % towards the phone; 0.4 % between carrier and PBX",
            ),
            (
                [clean, stream(60, 40, 2.0)],
                [stream(40, 0, 2.0), clean],
                "loss 4 % between carrier and PBX, and 2.1 % towards the phone",
            ),
            (
                [stream(25, 0, 2.0), clean],
                [clean, stream(25, 25, 2.0)],
                "loss 2.5 % between phone and PBX; none towards the carrier",
            ),
            (
                [clean, clean],
                [clean, stream(100, 0, 2.0)],
                "loss 10 % towards the carrier; none between phone and PBX",
            ),
            (
                [clean, stream(20, 0, 2.0)],
                [clean, stream(20, 0, 2.0)],
                "loss 2 % towards the phone; none between carrier and PBX; \
                 loss 2 % towards the carrier; none between phone and PBX",
            ),
            (
                [stream(0, 0, 45.0), clean],
                [clean, stream(0, 0, 50.0)],
                "jitter 45 ms between phone and PBX",
            ),
            ([clean, stream(0, 0, 52.0)], [clean, clean], "jitter 50 ms added towards the phone"),
            ([silent, clean], [clean, silent], "the phone sent nothing: its NAT or firewall"),
            ([clean, silent], [silent, clean], "nothing came from the carrier's media addresses"),
            (
                [silent, silent],
                [silent, silent],
                "nothing came from the carrier's media addresses; \
                 the phone sent nothing: its NAT or firewall",
            ),
            (
                [clean, silent],
                [clean, clean],
                "nothing was sent to the phone: it held, or wants no media",
            ),
        ] {
            let cdr = call(phone, carrier);
            let verdict = judge(&cdr).unwrap();
            assert_eq!(verdict.sentence, want);
            assert_eq!(verdict.is_bad, !want.starts_with("good"), "{want}");
        }
    }

    #[test]
    fn the_ends_have_the_names_that_tell_them_apart() {
        let clean = stream(0, 0, 1.0);
        let lossy = [stream(40, 0, 1.0), clean];
        for (direction, caller, callee, want) in [
            (Direction::Outbound, true, false, ["phone", "carrier"]),
            (Direction::Inbound, false, true, ["carrier", "phone"]),
            (Direction::Internal, true, true, ["caller", "callee"]),
            (Direction::Inbound, false, false, ["caller", "callee"]),
        ] {
            let mut cdr = call(lossy, [clean, stream(40, 40, 1.0)]);
            cdr.direction = direction;
            cdr.caller.user = caller.then(|| "1001".into());
            cdr.callee.user = callee.then(|| "1002".into());
            let [from, to] = want;
            let want = format!("loss 4 % between {from} and PBX; none towards the {to}");
            assert_eq!(sentence(&cdr), want, "{direction:?}");
        }
    }

    #[test]
    fn what_is_ours_is_told_as_ours() {
        let clean = stream(0, 0, 1.0);
        let mut cdr = call([clean, clean], [clean, stream(0, 0, 45.0)]);
        cdr.media.caller.relay_jitter_us = Some(44_000);
        assert_eq!(sentence(&cdr), "jitter 44 ms within the PBX: its machine is too busy");

        // A prompt: there is no callee.
        let mut cdr = call([clean, stream(50, 0, 1.0)], [None, None]);
        assert_eq!(sentence(&cdr), "loss 5 % towards the phone");
        cdr.media.caller.sent = clean;
        assert!(!judge(&cdr).unwrap().is_bad);
    }

    #[test]
    fn a_carrier_that_sends_from_elsewhere_is_told_as_that() {
        let clean = stream(0, 0, 1.0);
        let silent = clean.map(|s| Stream { packets: 0, mos: None, ..s });
        let mut cdr = call([clean, silent], [silent, clean]);
        cdr.media.callee.strange = 500;
        let want = "nothing came from the carrier's media addresses, but from others: add their \
                    networks to `media_source`";
        assert_eq!(sentence(&cdr), want);
    }

    #[test]
    fn what_was_too_short_or_silent_by_nature_is_not_judged() {
        let clean = stream(0, 0, 1.0);
        let mut short = call([clean, clean], [clean, clean]);
        short.times.answer = Some(short.times.end);
        assert_eq!(judge(&short), None);
        assert_eq!(judge(&call([None, None], [None, None])), None);
    }
}
