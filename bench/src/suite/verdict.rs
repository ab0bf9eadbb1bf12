//! What must be reached, what is aimed at, and whether it was.
//!
//! Owns: the limits. Never: a measurement.

use super::{
    row,
    runs::{Runs, Spread},
};

/// One figure with its limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Criterion {
    /// What it is of.
    pub(super) what: &'static str,
    /// Its unit.
    pub(super) unit: &'static str,
    /// What must be reached.
    pub(super) must: Limit,
    /// What would be fine.
    pub(super) aim: Option<Limit>,
    /// Tandem's value.
    pub(super) value: fn(&Runs) -> Option<Spread>,
    /// The floor's in the same run.
    pub(super) floor: Option<fn(&Runs) -> Option<Spread>>,
}

/// A bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Limit {
    /// At most this.
    Most(f64),
    /// At least this.
    Least(f64),
}

impl Limit {
    /// Whether a value keeps to it.
    pub(super) fn holds(self, value: f64) -> bool {
        match self {
            Self::Most(most) => value <= most,
            Self::Least(least) => value >= least,
        }
    }
}

impl Criterion {
    /// Whether the median keeps to what must be; what was not measured does not.
    pub(super) fn passes(&self, runs: &Runs) -> bool {
        (self.value)(runs).is_some_and(|spread| self.must.holds(spread.median))
    }
}

const fn criterion(
    what: &'static str,
    unit: &'static str,
    must: Limit,
    value: fn(&Runs) -> Option<Spread>,
) -> Criterion {
    Criterion { what, unit, must, aim: None, value, floor: None }
}

impl Criterion {
    const fn aim(mut self, aim: Limit) -> Self {
        self.aim = Some(aim);
        self
    }

    const fn floor(mut self, floor: fn(&Runs) -> Option<Spread>) -> Self {
        self.floor = Some(floor);
        self
    }
}

use Limit::{Least, Most};

/// All of them: first those of the load itself, then those of latency, rest and memory.
pub(super) const CRITERIA: &[Criterion] = &[
    criterion("CPU per call at 4,000 calls/s", "ms", Most(0.18), |runs| {
        runs.spread(row::CALLS_4000, "tandem", "cpu_ms_per_call")
    })
    .aim(Most(0.10))
    .floor(|runs| runs.spread(row::CALLS_4000, "floor", "cpu_ms_per_call")),
    criterion(
        "calls/s on one core without failure or retransmission",
        "1/s",
        Least(4500.0),
        |runs| runs.clean_rate("tandem"),
    )
    .aim(Least(8000.0))
    .floor(|runs| runs.clean_rate("floor")),
    criterion("CPU per REGISTER with digest at 12,000/s", "us", Most(40.0), |runs| {
        runs.spread(row::REGISTER, "tandem", "cpu_us_per_register")
    })
    .aim(Most(20.0))
    .floor(|runs| runs.spread(row::REGISTER, "floor", "cpu_us_per_register")),
    criterion(
        "registrations that failed or needed a retransmission at 12,000/s",
        "",
        Most(0.0),
        |runs| runs.sum(row::REGISTER, "tandem", &["failed", "resent"]).map(Spread::worst),
    ),
    criterion("CPU per relayed packet, 800 calls", "us", Most(3.8), |runs| {
        runs.spread(row::MEDIA_800, "tandem", "cpu_us_per_packet")
    })
    .floor(|runs| runs.spread(row::MEDIA_800, "floor", "cpu_us_per_packet")),
    criterion("the same in floors of the same run", "x", Most(1.2), |runs| {
        runs.ratio(row::MEDIA_800, "cpu_us_per_packet")
    }),
    criterion("CPU per relayed packet, 800 calls, coalesce = \"1ms\"", "us", Most(2.9), |runs| {
        runs.spread(row::MEDIA_800_COALESCED, "tandem", "cpu_us_per_packet")
    })
    .floor(|runs| runs.spread(row::MEDIA_800_COALESCED, "floor", "cpu_us_per_packet")),
    criterion(
        "calls relayed on one core, loss < 0.1 %, delay p99 < 5 ms",
        "",
        Least(2400.0),
        |runs| runs.carried("tandem"),
    )
    .aim(Least(8000.0))
    .floor(|runs| runs.carried("floor")),
    criterion(
        "two media workers in ones, by CPU per packet and balance",
        "x",
        Least(1.8),
        |runs| runs.scaling(),
    ),
    criterion("memory of a held call", "KB", Most(24.0), |runs| {
        runs.spread(row::HELD_1000, "tandem", "pss_kb_per_call")
    })
    .aim(Most(8.0)),
    criterion("descriptors of a held call", "", Most(4.0), |runs| {
        runs.spread(row::HELD_1000, "tandem", "fds_per_call")
    })
    .aim(Most(2.0)),
    criterion("threads of a held call", "", Most(0.0), |runs| {
        runs.spread(row::HELD_1000, "tandem", "threads_per_call")
    }),
    criterion("more CPU for a call with digest, 1,000 calls/s", "us", Most(50.0), |runs| {
        let digest = runs.spread(row::DIGEST_1000, "tandem", "cpu_ms_per_call")?;
        let plain = runs.spread(row::CALLS_1000, "tandem", "cpu_ms_per_call")?;
        Some(digest.map(|ms| 1e3 * (ms - plain.median)))
    }),
    criterion("INVITE to 200, p99, 1,000 calls/s", "ms", Most(3.0), |runs| {
        runs.spread(row::CALLS_1000, "tandem", "setup_p99_ms")
    })
    .floor(|runs| runs.spread(row::CALLS_1000, "floor", "setup_p99_ms")),
    criterion("BYE to 200, p99, 1,000 calls/s", "ms", Most(1.0), |runs| {
        runs.spread(row::CALLS_1000, "tandem", "bye_p99_ms")
    })
    .floor(|runs| runs.spread(row::CALLS_1000, "floor", "bye_p99_ms")),
    criterion("packet delay, median, 400 calls", "ms", Most(0.1), |runs| {
        runs.spread(row::MEDIA_400, "tandem", "delay_p50_ms")
    })
    .floor(|runs| runs.spread(row::MEDIA_400, "floor", "delay_p50_ms")),
    criterion("packet delay, p99, 400 calls", "ms", Most(0.3), |runs| {
        runs.spread(row::MEDIA_400, "tandem", "delay_p99_ms")
    })
    .floor(|runs| runs.spread(row::MEDIA_400, "floor", "delay_p99_ms")),
    criterion("jitter added, mean, 400 calls", "us", Most(20.0), |runs| {
        runs.spread(row::MEDIA_400, "tandem", "jitter_mean_us")
    })
    .floor(|runs| runs.spread(row::MEDIA_400, "floor", "jitter_mean_us")),
    criterion("start to ready", "ms", Most(100.0), |runs| {
        runs.spread(row::START, "tandem", "ready_ms")
    }),
    criterion("1,000 held calls without media", "cores", Most(0.003), |runs| {
        runs.spread(row::HELD_1000, "tandem", "holding_cores")
    }),
    criterion("idle with 1,000 registered phones", "cores", Most(0.005), |runs| {
        runs.spread(row::IDLE_1000, "tandem", "cores")
    }),
    criterion("memory with 50,000 registered phones", "MB", Most(150.0), |runs| {
        Some(runs.spread(row::PHONES_50000, "tandem", "after_pss_kb")?.map(|kb| kb / 1024.0))
    }),
    criterion("growth of memory over 1,000,000 short calls", "%", Most(1.0), |runs| {
        runs.spread(row::MILLION, "tandem", "pss_growth_percent")
    }),
    criterion(
        "a short call beside the most held ones, in such calls beside 10",
        "x",
        Most(1.1),
        |runs| {
            let many = runs.spread(row::HELD_5000, "tandem", "beside_cpu_ms_per_call")?;
            let few = runs.spread(row::HELD_10, "tandem", "beside_cpu_ms_per_call")?;
            Some(many.map(|ms| ms / few.median))
        },
    ),
];

impl Spread {
    /// The same in another unit.
    fn map(self, change: impl Fn(f64) -> f64) -> Self {
        let Self { median, min, max, runs } = self;
        Self { median: change(median), min: change(min), max: change(max), runs }
    }

    /// Judged by its greatest value: one failure is a failure.
    fn worst(self) -> Self {
        Self { median: self.max, ..self }
    }
}

impl Runs {
    /// The highest rate up to which no call failed or needed a retransmission, in any repeat.
    fn clean_rate(&self, subject: &str) -> Option<Spread> {
        let mut best: Option<Spread> = None;
        for name in row::RATES {
            let samples = self.samples(name, subject);
            let Some(sums) = self.sum(name, subject, &["failed", "resent", "repeated"]) else {
                continue;
            };
            if sums.max > 0.0 {
                break;
            }
            let asked = samples.iter().filter_map(|sample| sample.asked.get("calls_per_s"));
            best = Spread::of(asked.copied().collect()).or(best);
        }
        best
    }

    /// The most calls whose media was carried.
    fn carried(&self, subject: &str) -> Option<Spread> {
        let samples = self.samples(row::MEDIA_MOST, subject).iter();
        let carried = samples.filter(|sample| sample.figure("carried") == Some(1.0));
        let most = carried.filter_map(|sample| sample.asked.get("calls").copied());
        Spread::of(vec![most.reduce(f64::max)?])
    }

    /// How much more two workers on two cores carry than one on one: until the busier one has no time
    /// left, at what a packet costs with two of them.
    fn scaling(&self) -> Option<Spread> {
        let two = |figure| Some(self.spread(row::WORKERS, row::TWO_WORKERS, figure)?.median);
        let one = self.spread(row::WORKERS, row::ONE_WORKER, "cpu_us_per_packet")?;
        let (busiest, next) = (two("busiest_thread_cores")?, two("next_thread_cores")?);
        let carried = (busiest + next) / busiest / two("cpu_us_per_packet")?;
        Some(one.map(|cost| cost * carried))
    }

    /// Tandem's medians in the floor's.
    fn ratio(&self, row: &str, figure: &str) -> Option<Spread> {
        let floor = self.spread(row, "floor", figure)?;
        Some(self.spread(row, "tandem", figure)?.map(|value| value / floor.median))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sample;

    fn find(what: &str) -> &'static Criterion {
        CRITERIA.iter().find(|criterion| criterion.what.contains(what)).unwrap()
    }

    #[test]
    fn what_was_not_measured_does_not_pass() {
        let runs = Runs::default();
        let passed: Vec<_> = CRITERIA.iter().filter(|c| c.passes(&runs)).collect();
        assert!(passed.is_empty(), "{passed:?}");
    }

    #[test]
    fn medians_are_held_against_the_limits() {
        let mut runs = Runs::default();
        for (subject, ms) in [("tandem", 0.17), ("tandem", 0.18), ("tandem", 0.4), ("floor", 0.06)]
        {
            let sample = Sample::new("calls", subject).got("cpu_ms_per_call", ms);
            runs.push(row::CALLS_4000, sample);
        }
        let per_call = find("CPU per call at 4,000");
        assert!(per_call.passes(&runs));
        assert!(!per_call.aim.unwrap().holds(0.17));
        assert_eq!((per_call.floor.unwrap())(&runs).unwrap().median, 0.06);
        runs.push(row::CALLS_4000, Sample::new("calls", "tandem").got("cpu_ms_per_call", 0.5));
        assert!(!per_call.passes(&runs), "0.17 0.18 0.4 0.5");
    }

    #[test]
    fn the_rate_is_the_last_before_one_that_is_not_clean() {
        let mut runs = Runs::default();
        let sample = |rate: f64, failed: f64| {
            let sample = Sample::new("calls", "tandem").asked("calls_per_s", rate);
            sample.got("failed", failed).got("resent", 0.0).got("repeated", 0.0)
        };
        runs.push(row::RATES[0], sample(4500.0, 0.0));
        runs.push(row::RATES[1], sample(6000.0, 0.0));
        runs.push(row::RATES[1], sample(6000.0, 0.0));
        runs.push(row::RATES[3], sample(10_000.0, 0.0));
        let rate = find("without failure");
        assert_eq!((rate.value)(&runs).unwrap().median, 10_000.0);
        assert!(rate.passes(&runs));
        runs.push(row::RATES[1], sample(6000.0, 1.0));
        assert_eq!((rate.value)(&runs).unwrap().median, 4500.0);
        runs.push(row::RATES[0], sample(4500.0, 2.0));
        assert!(!rate.passes(&runs));
    }

    #[test]
    fn workers_scale_if_they_share_the_load_and_a_packet_costs_no_more() {
        for (cost, next, scaling) in [(8.0, 0.2, 2.0), (10.0, 0.2, 1.6), (8.0, 0.1, 1.5)] {
            let mut runs = Runs::default();
            let one = Sample::new("media", row::ONE_WORKER).got("cpu_us_per_packet", 8.0);
            let two = Sample::new("media", row::TWO_WORKERS).got("cpu_us_per_packet", cost);
            runs.push(row::WORKERS, one);
            let two = two.got("busiest_thread_cores", 0.2).got("next_thread_cores", next);
            runs.push(row::WORKERS, two);
            let found = (find("two media workers").value)(&runs).unwrap().median;
            assert!((found - scaling).abs() < 1e-9, "{found}, not {scaling}");
        }
    }

    #[test]
    fn digest_costs_what_it_adds_and_one_failed_registration_is_one_too_many() {
        let mut runs = Runs::default();
        let cost = |ms| Sample::new("calls", "tandem").got("cpu_ms_per_call", ms);
        runs.push(row::CALLS_1000, cost(0.20));
        runs.push(row::DIGEST_1000, cost(0.24));
        let more = (find("with digest, 1,000").value)(&runs).unwrap().median;
        assert!((more - 40.0).abs() < 1e-6, "{more}");
        let registered = |failed| Sample::new("register", "tandem").got("failed", failed);
        for failed in [0.0, 0.0, 1.0] {
            runs.push(row::REGISTER, registered(failed).got("resent", 0.0));
        }
        assert!(!find("registrations that failed").passes(&runs));
    }
}
