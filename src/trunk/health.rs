//! Whether a trunk is worth calling: OPTIONS at a steady pace, and what calls tell us besides.
//!
//! Owns: the verdict with its hysteresis, the time of the next OPTIONS, the round-trip time.
//! Never: sends, builds a message, reads the clock, or refuses a call (whoever asks decides).

use std::{
    fmt,
    time::{Duration, Instant},
};

/// Good answers in a row that lead from `Down` back to `Up`.
const UP_AFTER: u32 = 2;

/// How a trunk is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pace {
    /// From one OPTIONS to the next. Twilio bans who asks more often than every 10 to 15 s.
    pub every: Duration,
    /// How long to wait for an answer; at most `every`.
    pub timeout: Duration,
    /// Failures in a row that make the trunk `Down`; at least 1.
    pub down_after: u32,
}

/// What we think of the trunk.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum State {
    /// The last evidence was good.
    Up,
    /// Not heard yet, failing since lately, or recovering. Calls are tried.
    Suspect,
    /// Failed `down_after` times in a row. Calls prefer any other way.
    Down,
}

/// What can happen, time aside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Input {
    /// A final response to the OPTIONS with this number.
    ProbeAnswered {
        /// Of [`Effect::Probe`].
        probe: u64,
        /// 200..=699.
        status: u16,
    },
    /// The OPTIONS with this number could not be sent, or its transaction timed out.
    ProbeFailed {
        /// Of [`Effect::Probe`].
        probe: u64,
    },
    /// A call to the trunk got its first response, provisional or final.
    CallAnswered,
    /// A call to the trunk got no response at all, or could not be sent.
    CallUnanswered,
}

/// What the shard must do now, in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Send an OPTIONS to the trunk and report what becomes of it under this number.
    Probe(u64),
    /// Say the OPTIONS with this number no more: a repetition that meets the next one is one too many
    /// for a carrier that counts them.
    GiveUp(u64),
    /// Log it: one INFO line.
    Changed {
        /// Before.
        from: State,
        /// Now.
        to: State,
    },
}

/// [`State`] with the counts behind it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    Up,
    /// This many failures in a row; 0 before the first evidence.
    Failing(u32),
    Down,
    /// This many good answers in a row since `Down`.
    Recovering(u32),
}

/// An OPTIONS that nobody has answered yet.
#[derive(Clone, Copy, Debug)]
struct Probe {
    number: u64,
    sent_at: Instant,
}

/// One trunk's health. Without a [`Pace`] only calls tell.
#[derive(Debug)]
pub struct Health {
    pace: Option<Pace>,
    standing: Standing,
    since: Instant,
    last_probe: u64,
    waiting: Option<Probe>,
    probe_at: Option<Instant>,
    rtt: Option<Duration>,
    heard_at: Option<Instant>,
}

impl Health {
    /// Creates the machine; the first OPTIONS is due at once.
    pub fn new(pace: Option<Pace>, now: Instant) -> Self {
        Self {
            pace,
            standing: Standing::Failing(0),
            since: now,
            last_probe: 0,
            waiting: None,
            probe_at: pace.map(|_| now),
            rtt: None,
            heard_at: None,
        }
    }

    /// Returns what we think of the trunk.
    pub fn state(&self) -> State {
        match self.standing {
            Standing::Up => State::Up,
            Standing::Failing(_) | Standing::Recovering(_) => State::Suspect,
            Standing::Down => State::Down,
        }
    }

    /// Returns since when.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Returns the round-trip time of the last answered OPTIONS.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Returns when the trunk last proved to be alive, if ever.
    pub fn heard_at(&self) -> Option<Instant> {
        self.heard_at
    }

    /// Returns how many failures there were in a row; 0 unless they are the latest evidence.
    pub fn failures(&self) -> u32 {
        match (self.standing, self.pace) {
            (Standing::Failing(failures), _) => failures,
            (Standing::Down, Some(pace)) => pace.down_after,
            (Standing::Down, None) => 1,
            (Standing::Up | Standing::Recovering(_), _) => 0,
        }
    }

    /// Changes the pace (a reload); what is known of the trunk stays. Where nobody asks any more, a
    /// trunk that is down, or was, counts as not heard yet: nothing else would raise it.
    pub fn set_pace(&mut self, pace: Option<Pace>, now: Instant, out: &mut Vec<Effect>) {
        if self.pace == pace {
            return;
        }
        self.pace = pace;
        self.give_up(out);
        self.probe_at = pace.map(|pace| now + pace.every);
        if pace.is_none() && matches!(self.standing, Standing::Down | Standing::Recovering(_)) {
            self.enter(Standing::Failing(0), now, out);
        }
    }

    /// Forgets everything that is known: the trunk is to be found elsewhere now.
    pub fn begin_again(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.give_up(out);
        self.probe_at = self.pace.map(|_| now);
        self.rtt = None;
        self.heard_at = None;
        self.enter(Standing::Failing(0), now, out);
    }

    fn give_up(&mut self, out: &mut Vec<Effect>) {
        out.extend(self.waiting.take().map(|probe| Effect::GiveUp(probe.number)));
    }

    /// Returns when [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.probe_at, self.gives_up_at()].into_iter().flatten().min()
    }

    /// Returns whether an OPTIONS has waited for its answer long enough.
    pub fn is_unanswered(&self, now: Instant) -> bool {
        self.gives_up_at().is_some_and(|at| at <= now)
    }

    /// Counts an unanswered OPTIONS as a failure unless there is an excuse for it, and asks again when
    /// the pace says so.
    pub fn handle_timeout(&mut self, is_excused: bool, now: Instant, out: &mut Vec<Effect>) {
        let is_due = self.is_unanswered(now);
        if let Some(probe) = self.waiting.take_if(|_| is_due) {
            out.push(Effect::GiveUp(probe.number));
            if !is_excused {
                self.fail(now, out);
            }
        }
        if let (Some(pace), Some(at)) = (self.pace, self.probe_at)
            && at <= now
        {
            self.probe_at = Some(next_on_schedule(at, pace.every, now));
            self.last_probe += 1;
            self.waiting = Some(Probe { number: self.last_probe, sent_at: now });
            out.push(Effect::Probe(self.last_probe));
        }
    }

    /// Weighs one piece of evidence.
    pub fn handle(&mut self, input: Input, now: Instant, out: &mut Vec<Effect>) {
        match input {
            // Any answer shows a living peer (RFC 3261 11.1), except the one that says it is not.
            Input::ProbeAnswered { probe, status } => {
                let Some(probe) = self.take_probe(probe) else { return };
                if status == 503 {
                    self.fail(now, out);
                } else {
                    self.rtt = Some(now.saturating_duration_since(probe.sent_at));
                    self.succeed(now, out);
                }
            }
            Input::ProbeFailed { probe } => {
                if self.take_probe(probe).is_some() {
                    self.fail(now, out);
                }
            }
            Input::CallAnswered => self.succeed(now, out),
            Input::CallUnanswered => self.fail(now, out),
        }
    }

    /// Lets a failure pass that is one address's of several.
    pub fn excuse(&mut self, input: Input) {
        match input {
            Input::ProbeAnswered { probe, .. } | Input::ProbeFailed { probe } => {
                self.take_probe(probe);
            }
            Input::CallAnswered | Input::CallUnanswered => {}
        }
    }

    fn gives_up_at(&self) -> Option<Instant> {
        Some(self.waiting?.sent_at + self.pace?.timeout)
    }

    /// Takes the probe we wait for, if it has this number: an older one has been judged already.
    fn take_probe(&mut self, number: u64) -> Option<Probe> {
        self.waiting.take_if(|waiting| waiting.number == number)
    }

    fn succeed(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.heard_at = Some(now);
        let standing = match self.standing {
            Standing::Up | Standing::Failing(_) => Standing::Up,
            Standing::Down => recovering(1),
            Standing::Recovering(answers) => recovering(answers.saturating_add(1)),
        };
        self.enter(standing, now, out);
    }

    fn fail(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let down_after = self.pace.map_or(u32::MAX, |pace| pace.down_after);
        let failing = |failures| match failures >= down_after {
            true => Standing::Down,
            false => Standing::Failing(failures),
        };
        let standing = match self.standing {
            Standing::Up => failing(1),
            Standing::Failing(failures) => failing(failures.saturating_add(1)),
            Standing::Down | Standing::Recovering(_) => Standing::Down,
        };
        self.enter(standing, now, out);
    }

    fn enter(&mut self, standing: Standing, now: Instant, out: &mut Vec<Effect>) {
        let from = self.state();
        self.standing = standing;
        let to = self.state();
        if from != to {
            self.since = now;
            out.push(Effect::Changed { from, to });
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
        })
    }
}

fn recovering(answers: u32) -> Standing {
    if answers >= UP_AFTER { Standing::Up } else { Standing::Recovering(answers) }
}

/// Returns the first time after `now` that is a whole number of steps after `at`, so that a late
/// wake-up shifts nothing and never sends two in a row. A zero step counts as a second.
fn next_on_schedule(at: Instant, every: Duration, now: Instant) -> Instant {
    let every_ms = if every.is_zero() { 1000 } else { every.as_millis().max(1) };
    let behind_ms = now.saturating_duration_since(at).as_millis();
    let steps = (behind_ms / every_ms).saturating_add(1);
    let ahead_ms = steps.saturating_mul(every_ms);
    at + Duration::from_millis(u64::try_from(ahead_ms).unwrap_or(u64::MAX / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace =
        Pace { every: Duration::from_secs(15), timeout: Duration::from_secs(4), down_after: 3 };

    /// `.` is a good answer, `x` silence, `5` a 503, `4` a 404, `c`/`u` a call with and without an
    /// answer; then the state.
    #[test]
    fn hysteresis() {
        use State::{Down, Suspect, Up};
        for (evidence, want) in [
            ("", Suspect),
            (".", Up),
            ("4", Up),
            ("5", Suspect),
            (".x", Suspect),
            (".x.", Up),
            (".xx", Suspect),
            (".xxx", Down),
            ("xxx", Down),
            ("555", Down),
            (".x5u", Down),
            (".xx.x", Suspect),
            ("xxx.", Suspect),
            ("xxx..", Up),
            ("xxx.x", Down),
            ("xxx.x.", Suspect),
            ("xxxc.", Up),
            ("c", Up),
            (".uu", Suspect),
            (".uuc", Up),
        ] {
            assert_eq!(Bench::new().play(evidence).health.state(), want, "{evidence:?}");
        }
    }

    /// Nobody asks any more: what is down, or was until lately, is as good as not heard yet.
    #[test]
    fn without_a_pace_no_trunk_stays_down() {
        use State::{Down, Suspect, Up};
        for (evidence, want, told) in
            [("xxx", Suspect, Some(Down)), ("xxx.", Suspect, None), (".", Up, None)]
        {
            let mut bench = Bench::new().play(evidence);
            let mut out = vec![];
            bench.health.set_pace(None, bench.now, &mut out);
            assert_eq!(bench.health.state(), want, "{evidence}");
            let changed = told.map(|from| Effect::Changed { from, to: Suspect });
            assert_eq!(out, Vec::from_iter(changed), "{evidence}");
            // One answered call raises it.
            bench.health.handle(Input::CallAnswered, bench.now, &mut out);
            assert_eq!(bench.health.state(), Up, "{evidence}");
        }
    }

    #[test]
    fn every_change_is_told_once() {
        use State::{Down, Suspect, Up};
        let bench = Bench::new().play(".xxxx..");
        let changes =
            [(Suspect, Up), (Up, Suspect), (Suspect, Down), (Down, Suspect), (Suspect, Up)];
        assert_eq!(bench.changes, changes);
    }

    #[test]
    fn asks_on_a_schedule_that_does_not_drift() {
        let mut bench = Bench::new();
        bench.run_until(46_000);
        assert_eq!(bench.probed_at_ms, [0, 15_000, 30_000, 45_000]);
        assert_eq!(bench.given_up, [1, 2, 3], "none is said while the next one is");

        // A wake-up 1.5 periods late asks once, and the next is on the old schedule.
        bench.wake_at(82_500);
        bench.run_until(91_000);
        assert_eq!(bench.probed_at_ms[4..], [82_500, 90_000]);
    }

    #[test]
    fn measures_the_round_trip_of_its_own_question_only() {
        let mut bench = Bench::new();
        bench.wake_at(0);
        bench.give_at(84, Input::ProbeAnswered { probe: 1, status: 200 });
        assert_eq!(bench.health.rtt(), Some(Duration::from_millis(84)));

        // The second is judged lost at 19 s; its answer afterwards is no evidence.
        bench.run_until(19_000);
        assert_eq!(bench.health.state(), State::Suspect);
        bench.give_at(19_500, Input::ProbeAnswered { probe: 2, status: 200 });
        assert_eq!(bench.health.state(), State::Suspect);
        assert_eq!(bench.health.rtt(), Some(Duration::from_millis(84)));
    }

    #[test]
    fn a_failure_counts_once() {
        let mut bench = Bench::new();
        bench.wake_at(0);
        for _ in 0..5 {
            bench.give_at(100, Input::ProbeFailed { probe: 1 });
        }
        bench.run_until(10_000);
        assert_eq!(bench.health.failures(), 1);
    }

    #[test]
    fn without_a_pace_it_asks_nothing_and_never_despairs() {
        let now = epoch();
        let mut health = Health::new(None, now);
        let mut out = vec![];
        assert_eq!(health.poll_timeout(), None);
        for _ in 0..100 {
            health.handle(Input::CallUnanswered, now, &mut out);
        }
        assert_eq!(health.state(), State::Suspect);
        health.handle(Input::CallAnswered, now, &mut out);
        assert_eq!(health.state(), State::Up);
    }

    #[test]
    fn a_new_pace_keeps_what_is_known() {
        let mut bench = Bench::new().play("..");
        let now = bench.now;
        let faster = Pace { every: Duration::from_secs(10), ..PACE };
        bench.health.set_pace(Some(faster), now, &mut vec![]);
        assert_eq!(bench.health.state(), State::Up);
        assert_eq!(bench.health.poll_timeout(), Some(now + faster.every));
        bench.health.set_pace(None, now, &mut vec![]);
        assert_eq!(bench.health.poll_timeout(), None);
    }

    struct Bench {
        epoch: Instant,
        now: Instant,
        health: Health,
        probe: Option<u64>,
        probed_at_ms: Vec<u128>,
        given_up: Vec<u64>,
        changes: Vec<(State, State)>,
    }

    impl Bench {
        fn new() -> Self {
            let epoch = epoch();
            let health = Health::new(Some(PACE), epoch);
            let (probed_at_ms, given_up, changes) = (vec![], vec![], vec![]);
            Self { epoch, now: epoch, health, probe: None, probed_at_ms, given_up, changes }
        }

        fn play(mut self, evidence: &str) -> Self {
            for letter in evidence.chars() {
                match letter {
                    'c' => self.give(Input::CallAnswered),
                    'u' => self.give(Input::CallUnanswered),
                    probe => self.play_probe(probe),
                }
            }
            self
        }

        fn play_probe(&mut self, letter: char) {
            self.probe = None;
            while self.probe.is_none() {
                self.wake();
            }
            let probe = self.probe.unwrap();
            match letter {
                '.' => self.give(Input::ProbeAnswered { probe, status: 200 }),
                '4' => self.give(Input::ProbeAnswered { probe, status: 404 }),
                '5' => self.give(Input::ProbeAnswered { probe, status: 503 }),
                'x' => self.wake(),
                other => panic!("{other}"),
            }
        }

        fn wake(&mut self) {
            self.now = self.health.poll_timeout().unwrap();
            let mut out = vec![];
            self.health.handle_timeout(false, self.now, &mut out);
            self.note(&out);
        }

        fn wake_at(&mut self, at_ms: u64) {
            self.now = self.epoch + Duration::from_millis(at_ms);
            let mut out = vec![];
            self.health.handle_timeout(false, self.now, &mut out);
            self.note(&out);
        }

        fn run_until(&mut self, end_ms: u64) {
            let end = self.epoch + Duration::from_millis(end_ms);
            while self.health.poll_timeout().is_some_and(|at| at <= end) {
                self.wake();
            }
        }

        fn give_at(&mut self, at_ms: u64, input: Input) {
            self.now = self.epoch + Duration::from_millis(at_ms);
            self.give(input);
        }

        fn give(&mut self, input: Input) {
            let mut out = vec![];
            self.health.handle(input, self.now, &mut out);
            self.note(&out);
        }

        fn note(&mut self, out: &[Effect]) {
            for effect in out {
                match *effect {
                    Effect::Probe(number) => {
                        self.probe = Some(number);
                        self.probed_at_ms.push((self.now - self.epoch).as_millis());
                    }
                    Effect::GiveUp(number) => self.given_up.push(number),
                    Effect::Changed { from, to } => self.changes.push((from, to)),
                }
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "virtual time must start somewhere")]
    fn epoch() -> Instant {
        Instant::now()
    }
}
