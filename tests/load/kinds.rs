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
    /// Taken back, or, where the answer was quicker, hung up at once.
    TakenBack,
}

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
    presses: bool,
    end: End,
}

const DIALS: Dialling = Dialling {
    name: "hangs up",
    numbers: &[ORDINARY],
    script: &[(On::Up, 1500, Act::HangUp)],
    habit: None,
    cancels: &[],
    presses: false,
    end: End::Talked,
};

pub(crate) const DIALLING: [Dialling; 12] = [
    DIALS,
    Dialling { name: "is hung up", numbers: &["+15005550002"], script: &[], ..DIALS },
    Dialling {
        name: "presses keys",
        script: &[(On::Up, 2200, Act::HangUp)],
        presses: true,
        ..DIALS
    },
    Dialling {
        name: "holds and resumes",
        script: &[
            (On::Up, 900, Act::Hold),
            (On::Up, 1600, Act::Resume),
            (On::Up, 2600, Act::HangUp),
        ],
        ..DIALS
    },
    Dialling { name: "cancels at once", script: &[], cancels: &[0], end: End::TakenBack, ..DIALS },
    Dialling {
        name: "cancels early",
        script: &[],
        cancels: &[1, 3, 5, 8, 12, 20, 40, 70, 100, 130],
        end: End::TakenBack,
        ..DIALS
    },
    Dialling {
        name: "cancels while it rings",
        script: &[(On::Ringing, 200, Act::Cancel)],
        end: End::Refused(487),
        ..DIALS
    },
    Dialling {
        name: "cancels as it is answered",
        script: &[],
        cancels: &[580, 590, 595, 600, 605, 610, 615, 620, 630, 650],
        end: End::TakenBack,
        ..DIALS
    },
    Dialling {
        name: "finds it busy",
        numbers: &["+15005550486"],
        script: &[],
        end: End::Refused(486),
        ..DIALS
    },
    Dialling { name: "offers late", habit: Some(Habit::OffersLate), ..DIALS },
    Dialling {
        name: "is held",
        numbers: &["+15005550004"],
        script: &[(On::Up, 3600, Act::HangUp)],
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
    presses: bool,
    end: End,
}

const RINGS: Ringing = Ringing {
    name: "is hung up by the caller",
    script: &[(On::Called, 50, Act::Ring), (On::Called, 400, Act::Answer)],
    habit: None,
    caller: "talks = \"1800ms\"",
    presses: true,
    end: End::Talked,
};

pub(crate) const RINGING: [Ringing; 8] = [
    RINGS,
    Ringing {
        name: "hangs up on the caller",
        script: &[
            (On::Called, 50, Act::Progress),
            (On::Called, 400, Act::Answer),
            (On::Up, 1500, Act::HangUp),
        ],
        caller: "",
        presses: false,
        ..RINGS
    },
    Ringing {
        name: "is cancelled before it rings",
        script: &[],
        caller: "waits = \"60ms\"",
        presses: false,
        end: End::TakenBack,
        ..RINGS
    },
    Ringing {
        name: "is cancelled while it rings",
        script: &[(On::Called, 50, Act::Ring)],
        caller: "waits = \"500ms\"",
        presses: false,
        end: End::TakenBack,
        ..RINGS
    },
    Ringing {
        name: "answers as it is cancelled",
        script: &[(On::Called, 50, Act::Ring), (On::Called, 498, Act::Answer)],
        caller: "waits = \"500ms\"\ntalks = \"300ms\"",
        presses: false,
        end: End::TakenBack,
        ..RINGS
    },
    Ringing {
        name: "is held by the caller",
        caller: "talks = \"2600ms\"\nhold_after = \"900ms\"\nhold_for = \"700ms\"",
        presses: false,
        ..RINGS
    },
    Ringing {
        name: "holds the caller",
        script: &[
            (On::Called, 50, Act::Ring),
            (On::Called, 300, Act::Answer),
            (On::Up, 900, Act::Hold),
            (On::Up, 1600, Act::Resume),
            (On::Up, 2600, Act::HangUp),
        ],
        caller: "",
        presses: false,
        ..RINGS
    },
    Ringing {
        name: "is busy",
        script: &[(On::Called, 100, Act::Reject(486))],
        caller: "",
        presses: false,
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
    let all = out.map(|(_, kind)| (kind.end, kind.presses));
    let all = all.chain(from.map(|(_, kind)| (kind.end, kind.presses)));
    let talking: Vec<_> = all.filter(|(end, _)| *end == End::Talked).collect();
    (talking.len(), talking.iter().filter(|(_, presses)| *presses).count())
}

/// What became of one call, as its phone saw it.
#[derive(Clone, Debug)]
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
    let mut done = vec![];
    for call in 0..calls {
        let before = phone.report();
        let began = now();
        let number = kind.numbers[call % kind.numbers.len()];
        phone.act(Act::Call(number.into())).await;
        if let Some(ms) = kind.cancels.get(call % kind.cancels.len().max(1)) {
            let at = began + Duration::from_millis(*ms);
            // Nothing is wanted: this is the wait.
            phone.story(|_| false, at).await;
            phone.act(Act::Cancel).await;
            // What was answered meanwhile cannot be cancelled any more.
            phone.act(Act::HangUp).await;
        }
        let mut story = vec![];
        let mut rang_after = None;
        if kind.cancels.is_empty() {
            let ringing = |heard: &Heard| {
                matches!(heard, Heard::Ringing(_) | Heard::EarlyMedia(_) | Heard::Up)
                    || is_end(heard)
            };
            story = phone.story(ringing, began + PATIENCE).await.unwrap_or_default();
            let rang = story.last().is_some_and(|last| !is_end(last));
            rang_after = rang.then(|| began.elapsed());
        }
        if kind.presses && !story.iter().any(is_end) {
            story.extend(
                phone
                    .story(|heard| *heard == Heard::Up, began + PATIENCE)
                    .await
                    .unwrap_or_default(),
            );
            phone.press(NEAR_KEYS);
        }
        if !story.iter().any(is_end) {
            story.extend(phone.story(is_end, began + PATIENCE).await.unwrap_or_default());
        }
        let is_free = phone.is_free(began + PATIENCE).await;
        // People do not redial faster, and a carrier takes only so many calls in a second.
        phone.story(|_| false, began + EACH_MIN).await;
        let heard = (before, phone.report());
        let problem =
            problem(kind.end, &story, &heard).or((!is_free).then(|| "is not over".into()));
        let problem = problem.map(|problem| format!("{} {call}: {problem}: {story:?}", kind.name));
        done.push(Done { problem, rang_after });
    }
    done
}

/// Is called so many times.
pub(crate) async fn ring(phone: &mut Softphone, kind: &'static Ringing, calls: usize) -> Vec<Done> {
    let mut done = vec![];
    for call in 0..calls {
        let before = phone.report();
        let is_called = |heard: &Heard| matches!(heard, Heard::Called { .. });
        let mut story = phone.story(is_called, now() + PATIENCE).await.unwrap_or_default();
        let by = now() + PATIENCE;
        if kind.presses {
            story.extend(phone.story(|heard| *heard == Heard::Up, by).await.unwrap_or_default());
            phone.press(NEAR_KEYS);
        }
        // A phone that refuses hears nothing more.
        if !matches!(kind.end, End::Refused(_)) {
            story.extend(phone.story(is_end, by).await.unwrap_or_default());
        }
        let is_free = phone.is_free(by).await;
        let heard = (before, phone.report());
        let problem = match kind.end {
            End::Refused(_) if !story.is_empty() => None,
            End::Refused(_) | End::Talked | End::TakenBack => problem(kind.end, &story, &heard),
        };
        let problem = problem.or((!is_free).then(|| "is not over".into()));
        let problem = problem.map(|problem| format!("{} {call}: {problem}: {story:?}", kind.name));
        done.push(Done { problem, rang_after: None });
    }
    done
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
        (End::TakenBack, Some(Heard::Refused(487, _) | Heard::Cancelled(_) | Heard::Gone(200))) => {
            true
        }
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
    let keys = after.digits.strip_prefix(&*before.digits).unwrap_or(&after.digits);
    if keys != FAR_KEYS {
        return Some(format!("the keys heard were {keys:?}"));
    }
    None
}
