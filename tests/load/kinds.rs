//! The kinds of calls, and what must come of each.

use crate::{carrier::Trunk, house::PATIENCE};
use std::time::Duration;
use tandem::{
    shell::{now, softphone::Softphone},
    sim::{
        phone::{Act, Habit, Heard, On},
        voice::Report,
    },
};

/// What far ends press, to be heard by phones, and the other way round.
pub(crate) const FAR_KEYS: &str = "*09";
pub(crate) const NEAR_KEYS: &str = "1234#";
/// How much of the tone must be heard in a call that was up.
const TONE_MIN: Duration = Duration::from_millis(400);
/// What a phone says before it hangs up, in packets of 20 ms, and what more if it presses keys.
const SAID_MIN: u64 = 75;
const PRESSED_MIN: u64 = 35;
/// How long a phone holds.
const HOLDS_FOR: Duration = Duration::from_millis(700);
/// From one call of a phone to its next.
const EACH_MIN: Duration = Duration::from_millis(1500);
/// An ordinary number, and those with a will of their own.
const ORDINARY: &str = "+14155550199";

/// What a phone does by itself.
pub(crate) type Script = &'static [(On, u64, Act)];

/// How a call may end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    /// It was up, and both sides heard each other.
    Talked,
    /// It never was.
    Refused(u16),
    /// The same, but for a few where the answer was quicker: they are hung up at once.
    MostlyRefused(u16),
    /// Taken back, or, where the answer was quicker, hung up at once.
    TakenBack,
}

/// What a phone does in a call that is up. It waits for what it must hear: a script would hang up, on a machine that is
/// away for a moment, before that has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    presses: bool,
    /// Once it has heard the keys.
    holds: bool,
    /// It is held, and taken back.
    is_held: bool,
    hangs_up: bool,
}

const HANGS_UP: Manner = Manner { presses: false, holds: false, is_held: false, hangs_up: true };
const LISTENS: Manner = Manner { hangs_up: false, ..HANGS_UP };
const PRESSES: Manner = Manner { presses: true, ..LISTENS };
const HOLDS: Manner = Manner { holds: true, ..HANGS_UP };

/// A phone that calls.
#[derive(Clone, Debug)]
pub(crate) struct Dialling {
    pub(crate) name: &'static str,
    /// Dialled in turn.
    numbers: &'static [&'static str],
    pub(crate) script: Script,
    pub(crate) habit: Option<Habit>,
    /// Milliseconds from the INVITE to its CANCEL, in turn.
    cancels: &'static [u64],
    manner: Manner,
    end: End,
}

const DIALS: Dialling = Dialling {
    name: "hangs up",
    numbers: &[ORDINARY],
    script: &[],
    habit: None,
    cancels: &[],
    manner: HANGS_UP,
    end: End::Talked,
};

pub(crate) const DIALLING: [Dialling; 12] = [
    DIALS,
    Dialling { name: "is hung up", numbers: &["+15005550002"], manner: LISTENS, ..DIALS },
    Dialling { name: "presses keys", manner: Manner { hangs_up: true, ..PRESSES }, ..DIALS },
    Dialling { name: "holds and resumes", manner: HOLDS, ..DIALS },
    Dialling { name: "cancels at once", cancels: &[0], end: End::TakenBack, ..DIALS },
    Dialling {
        name: "cancels early",
        cancels: &[1, 3, 5, 8, 12, 20, 40, 70, 100, 130],
        end: End::TakenBack,
        ..DIALS
    },
    Dialling {
        name: "cancels while it rings",
        script: &[(On::Ringing, 200, Act::Cancel), (On::Up, 0, Act::HangUp)],
        end: End::MostlyRefused(487),
        ..DIALS
    },
    Dialling {
        name: "cancels as it is answered",
        cancels: &[580, 590, 595, 600, 605, 610, 615, 620, 630, 650],
        end: End::TakenBack,
        ..DIALS
    },
    Dialling { name: "finds it busy", numbers: &["+15005550486"], end: End::Refused(486), ..DIALS },
    Dialling { name: "offers late", habit: Some(Habit::OffersLate), ..DIALS },
    Dialling {
        name: "is held",
        numbers: &["+15005550004"],
        manner: Manner { is_held: true, ..HANGS_UP },
        ..DIALS
    },
    Dialling {
        name: "meets strange far ends",
        numbers: &["+15005550003", "+15005550180", "+15005550200"],
        ..DIALS
    },
];

/// A phone that is called.
#[derive(Clone, Debug)]
pub(crate) struct Ringing {
    pub(crate) name: &'static str,
    pub(crate) script: Script,
    pub(crate) habit: Option<Habit>,
    /// What the caller does: keys of the scenario.
    pub(crate) caller: &'static str,
    manner: Manner,
    end: End,
}

const RINGS: Ringing = Ringing {
    name: "is hung up by the caller",
    script: &[(On::Called, 50, Act::Ring), (On::Called, 400, Act::Answer)],
    habit: None,
    caller: "talks = \"3000ms\"",
    manner: PRESSES,
    end: End::Talked,
};

pub(crate) const RINGING: [Ringing; 8] = [
    RINGS,
    Ringing {
        name: "hangs up on the caller",
        script: &[(On::Called, 50, Act::Progress), (On::Called, 400, Act::Answer)],
        caller: "",
        manner: HANGS_UP,
        ..RINGS
    },
    Ringing {
        name: "is cancelled before it rings",
        script: &[],
        caller: "waits = \"60ms\"",
        end: End::TakenBack,
        ..RINGS
    },
    Ringing {
        name: "is cancelled while it rings",
        script: &[(On::Called, 50, Act::Ring)],
        caller: "waits = \"500ms\"",
        end: End::TakenBack,
        ..RINGS
    },
    Ringing {
        name: "answers as it is cancelled",
        script: &[(On::Called, 50, Act::Ring), (On::Called, 498, Act::Answer)],
        caller: "waits = \"500ms\"\ntalks = \"300ms\"",
        end: End::TakenBack,
        ..RINGS
    },
    Ringing {
        name: "is held by the caller",
        caller: "talks = \"3300ms\"\nhold_after = \"900ms\"\nhold_for = \"700ms\"",
        manner: LISTENS,
        ..RINGS
    },
    Ringing {
        name: "holds the caller",
        script: &[(On::Called, 50, Act::Ring), (On::Called, 300, Act::Answer)],
        caller: "",
        manner: HOLDS,
        ..RINGS
    },
    Ringing {
        name: "is busy",
        script: &[(On::Called, 100, Act::Reject(486))],
        caller: "",
        end: End::Refused(486),
        ..RINGS
    },
];

impl Dialling {
    /// Which trunk the phone at this place calls through.
    pub(crate) fn trunk(index: usize) -> Trunk {
        if index.is_multiple_of(2) { Trunk::Secure } else { Trunk::Plain }
    }
}

impl Ringing {
    /// From which trunk the phone at this place is called.
    pub(crate) fn trunk(index: usize) -> Trunk {
        if index.is_multiple_of(2) { Trunk::Plain } else { Trunk::Secure }
    }
}

/// Returns how many phones talk through a trunk, and how many of them press keys.
pub(crate) fn talking(trunk: Trunk) -> (usize, usize) {
    let out = DIALLING.iter().enumerate().filter(|(index, _)| Dialling::trunk(*index) == trunk);
    let from = RINGING.iter().enumerate().filter(|(index, _)| Ringing::trunk(*index) == trunk);
    let all = out.map(|(_, kind)| (kind.end, kind.manner.presses));
    let all = all.chain(from.map(|(_, kind)| (kind.end, kind.manner.presses)));
    let talking: Vec<_> = all.filter(|(end, _)| *end == End::Talked).collect();
    (talking.len(), talking.iter().filter(|(_, presses)| *presses).count())
}

/// What became of one call, as its phone saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    pub(crate) problem: Option<String>,
    /// From dialling to the first sign of ringing.
    pub(crate) rang_after: Option<Duration>,
}

/// Calls so many times, one after the other.
pub(crate) async fn dial(
    phone: &mut Softphone,
    kind: &'static Dialling,
    calls: usize,
) -> Vec<Done> {
    let (mut done, mut refused) = (vec![], 0);
    for call in 0..calls {
        let before = phone.report();
        let began = now();
        let number = kind.numbers[call % kind.numbers.len()];
        phone.act(Act::Call(number.into())).await;
        let mut story = vec![];
        let mut rang_after = None;
        if let Some(ms) = kind.cancels.get(call % kind.cancels.len().max(1)) {
            let at = began + Duration::from_millis(*ms);
            // Nothing is wanted: this is the wait.
            phone.story(|_| false, at).await;
            phone.act(Act::Cancel).await;
            // What was answered meanwhile cannot be cancelled any more.
            phone.act(Act::HangUp).await;
        } else {
            let rings = |heard: &Heard| {
                matches!(heard, Heard::Ringing(_) | Heard::EarlyMedia(_) | Heard::Up)
            };
            hear(phone, &mut story, rings).await;
            let rang = story.last().is_some_and(|last| !is_end(last));
            rang_after = rang.then(|| began.elapsed());
        }
        if kind.end == End::Talked {
            talk(phone, &mut story, kind.manner, &before).await;
        }
        hear(phone, &mut story, is_end).await;
        let is_free = phone.is_free(now() + PATIENCE).await;
        // People do not redial faster, and a carrier takes only so many calls in a second.
        phone.story(|_| false, began + EACH_MIN).await;
        refused += usize::from(matches!(story.last(), Some(Heard::Refused(..))));
        let heard = (before, phone.report());
        let problem = problem(kind.end, &story, &heard);
        done.push(Done { problem: named(kind.name, call, &story, problem, is_free), rang_after });
    }
    if matches!(kind.end, End::MostlyRefused(_)) && refused * 4 < calls * 3 {
        let problem = format!("{}: {refused} of {calls} were refused", kind.name);
        let last = done.pop().unwrap_or_default();
        done.push(Done { problem: Some(problem), ..last });
    }
    done
}

/// Is called so many times.
pub(crate) async fn ring(phone: &mut Softphone, kind: &'static Ringing, calls: usize) -> Vec<Done> {
    let mut done = vec![];
    for call in 0..calls {
        let before = phone.report();
        let mut story = vec![];
        hear(phone, &mut story, |heard| matches!(heard, Heard::Called { .. })).await;
        if story.is_empty() && kind.end == End::TakenBack {
            // Some were taken back before anybody heard of them. There are no more to come.
            done.resize_with(calls, Done::default);
            break;
        }
        if kind.end == End::Talked {
            talk(phone, &mut story, kind.manner, &before).await;
        }
        // A phone that refuses hears nothing more.
        if !matches!(kind.end, End::Refused(_)) {
            hear(phone, &mut story, is_end).await;
        }
        let is_free = phone.is_free(now() + PATIENCE).await;
        let heard = (before, phone.report());
        let problem = match kind.end {
            End::Refused(_) if !story.is_empty() => None,
            End::Refused(_) | End::MostlyRefused(_) | End::Talked | End::TakenBack => {
                problem(kind.end, &story, &heard)
            }
        };
        let problem = named(kind.name, call, &story, problem, is_free);
        done.push(Done { problem, rang_after: None });
    }
    done
}

/// Does in a call what is this phone's way.
async fn talk(phone: &mut Softphone, story: &mut Vec<Heard>, manner: Manner, before: &Report) {
    if !story.contains(&Heard::Up) {
        hear(phone, story, |heard| *heard == Heard::Up).await;
    }
    if manner.presses {
        phone.press(NEAR_KEYS);
    }
    if manner.holds {
        phone.listens(|report| keys(before, report) == FAR_KEYS, now() + PATIENCE).await;
        phone.act(Act::Hold).await;
        hear(phone, story, |heard| matches!(heard, Heard::Changed(_))).await;
        phone.story(|_| false, now() + HOLDS_FOR).await;
        phone.act(Act::Resume).await;
        hear(phone, story, |heard| matches!(heard, Heard::Changed(_))).await;
    }
    if manner.is_held {
        for _ in 0..2 {
            hear(phone, story, |heard| matches!(heard, Heard::Offered(_))).await;
        }
    }
    if manner.hangs_up {
        let said_min = SAID_MIN + if manner.presses { PRESSED_MIN } else { 0 };
        let is_enough = |report: &Report| {
            report.sent - before.sent >= said_min
                && report.heard.saturating_sub(before.heard) >= TONE_MIN
                && keys(before, report) == FAR_KEYS
        };
        phone.listens(is_enough, now() + PATIENCE).await;
        phone.act(Act::HangUp).await;
    }
}

/// Waits for something, or for the end; adds what was heard until then.
async fn hear(phone: &mut Softphone, story: &mut Vec<Heard>, wants: impl Fn(&Heard) -> bool) {
    if story.iter().any(is_end) {
        return;
    }
    let heard = phone.story(|heard| wants(heard) || is_end(heard), now() + PATIENCE).await;
    story.extend(heard.unwrap_or_default());
}

/// The keys that were heard since.
fn keys<'r>(before: &Report, after: &'r Report) -> &'r str {
    after.digits.strip_prefix(&*before.digits).unwrap_or(&after.digits)
}

fn named(
    name: &str,
    call: usize,
    story: &[Heard],
    problem: Option<String>,
    is_free: bool,
) -> Option<String> {
    let problem = problem.or((!is_free).then(|| "is not over".into()))?;
    Some(format!("{name} {call}: {problem}: {story:?}"))
}

fn is_end(heard: &Heard) -> bool {
    matches!(heard, Heard::Gone(_) | Heard::HungUp(_) | Heard::Refused(..) | Heard::Cancelled(_))
}

/// Compares what was heard with what should have been.
fn problem(end: End, story: &[Heard], (before, after): &(Report, Report)) -> Option<String> {
    let was_up = story.contains(&Heard::Up);
    let last = story.last();
    let ended_well = match (end, last) {
        (End::Talked, Some(Heard::Gone(200) | Heard::HungUp(_))) => was_up,
        (End::Refused(want), Some(Heard::Refused(status, _))) => *status == want,
        (
            End::TakenBack | End::MostlyRefused(487),
            Some(Heard::Refused(487, _) | Heard::Cancelled(_) | Heard::Gone(200)),
        ) => true,
        (End::TakenBack, Some(Heard::HungUp(_))) => was_up,
        (_, _) => false,
    };
    if !ended_well {
        return Some("ended otherwise".to_owned());
    }
    if end != End::Talked {
        return None;
    }
    let tone = after.heard.saturating_sub(before.heard);
    if tone < TONE_MIN {
        return Some(format!("the tone was heard for {} ms", tone.as_millis()));
    }
    let keys = keys(before, after);
    if keys != FAR_KEYS {
        return Some(format!("the keys heard were {keys:?}"));
    }
    None
}
