//! What ladders say again and again, in one line: `2180 ms  1001 reinvites 1002`.
//!
//! Owns: which messages such a line stands for, and when each is sent on a clean network.
//! Never: hides a message; a flow that is about one of these writes it out.

/// How long after the beginning, who to whom, what.
type Step = (u64, Way, &'static str);

/// Who sends to whom.
#[derive(Clone, Copy)]
enum Way {
    /// The first to the PBX.
    In,
    /// The PBX to the second.
    On,
    /// The second to the PBX.
    Back,
    /// The PBX to the first.
    Out,
}

use Way::{Back, In, On, Out};

/// The second one has not answered yet.
const CALLS: &[Step] = &[
    (0, In, "INVITE (sdp)"),
    (20, Out, "100 Trying (INVITE)"),
    (20, On, "INVITE (sdp)"),
    (40, Back, "100 Trying (INVITE)"),
];
/// The trunk asks for credentials first.
const CALLS_TRUNK: &[Step] = &[
    (0, In, "INVITE (sdp)"),
    (20, Out, "100 Trying (INVITE)"),
    (20, On, "INVITE (sdp)"),
    (40, Back, "100 trying -- your call is important to us (INVITE)"),
    (40, Back, "407 Proxy Authentication required (INVITE)"),
    (60, On, "ACK"),
    (60, On, "INVITE (sdp)"),
    (80, Back, "100 trying -- your call is important to us (INVITE)"),
];
const ANSWERED: &[Step] = &[
    (0, Back, "200 OK (INVITE, sdp)"),
    (20, On, "ACK"),
    (20, Out, "200 OK (INVITE, sdp)"),
    (40, In, "ACK"),
];
/// An offer inside the call, passed on.
const REINVITES: &[Step] = &[
    (0, In, "INVITE (sdp)"),
    (20, Out, "100 Trying (INVITE)"),
    (20, On, "INVITE (sdp)"),
    (40, Back, "100 Trying (INVITE)"),
    (40, Back, "200 OK (INVITE, sdp)"),
    (60, On, "ACK"),
    (60, Out, "200 OK (INVITE, sdp)"),
    (80, In, "ACK"),
];
/// The trunk accepts at once, without a 100.
const REINVITES_TRUNK: &[Step] = &[
    (0, In, "INVITE (sdp)"),
    (20, Out, "100 Trying (INVITE)"),
    (20, On, "INVITE (sdp)"),
    (40, Back, "200 OK (INVITE, sdp)"),
    (60, On, "ACK"),
    (60, Out, "200 OK (INVITE, sdp)"),
    (80, In, "ACK"),
];
const HANGS_UP: &[Step] =
    &[(0, In, "BYE"), (20, Out, "200 OK (BYE)"), (20, On, "BYE"), (40, Back, "200 OK (BYE)")];

/// Returns the lines that one line of a flow's ladder stands for; itself, if it is a message.
pub(crate) fn expand(line: &str) -> Vec<String> {
    let line = line.trim();
    let said = || {
        let (at_ms, phrase) = line.split_once(" ms  ").filter(|_| !line.contains(" -> "))?;
        let at_ms: u64 = at_ms.parse().ok()?;
        let (first, rest) = phrase.split_once(' ')?;
        let (verb, second) = rest.rsplit_once(' ')?;
        let steps = match (verb, second) {
            ("calls", "twilio") => CALLS_TRUNK,
            ("calls", _) => CALLS,
            ("is answered by", _) => ANSWERED,
            ("reinvites", "twilio") => REINVITES_TRUNK,
            ("reinvites", _) => REINVITES,
            ("hangs up on", _) => HANGS_UP,
            _ => return None,
        };
        let message = |(after_ms, way, what): &Step| {
            let (from, to) = match way {
                In => (first, "tandem"),
                On => ("tandem", second),
                Back => (second, "tandem"),
                Out => ("tandem", first),
            };
            format!("{} ms  {from} -> {to}  {what}", at_ms + after_ms)
        };
        Some(steps.iter().map(message).collect())
    };
    said().unwrap_or_else(|| vec![line.to_owned()])
}
