//! How long things took: counts in buckets whose width is at most 1.6 % of their value.
//!
//! Owns: the counts. Never: a clock.

use crate::Sample;
use std::time::Duration;

/// Buckets per doubling.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// Counts of durations, for quantiles. Its size grows with the longest, to at most 30 KB.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum_ns: u128,
    max_ns: u64,
}

impl Histogram {
    /// Counts one. Longer than 584 years is as good as that.
    pub fn record(&mut self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = bucket_of(ns);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.count += 1;
        self.sum_ns += u128::from(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The least value that so many of one are not above, to the bucket's upper end; zero if
    /// nothing was counted.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = ((share * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper_end(bucket).min(self.max_ns));
            }
        }
        Duration::ZERO
    }

    /// The mean; zero if nothing was counted.
    pub fn mean(&self) -> Duration {
        let mean = self.sum_ns.checked_div(u128::from(self.count)).unwrap_or(0);
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// Notes median, p99, p99.9 and maximum in milliseconds as `name_p50_ms` and so on.
    #[must_use]
    pub fn note(&self, name: &str, sample: Sample) -> Sample {
        let ms = |took: Duration| (took.as_secs_f64() * 1e6).round() / 1e3;
        sample
            .got(&format!("{name}_p50_ms"), ms(self.quantile(0.5)))
            .got(&format!("{name}_p99_ms"), ms(self.quantile(0.99)))
            .got(&format!("{name}_p999_ms"), ms(self.quantile(0.999)))
            .got(&format!("{name}_max_ms"), ms(Duration::from_nanos(self.max_ns)))
    }
}

/// Below `STEPS` each value has a bucket; above, each doubling has `STEPS` of them.
fn bucket_of(ns: u64) -> usize {
    if ns < STEPS {
        return ns as usize;
    }
    let doubling = ns.ilog2() - STEP_BITS;
    ((u64::from(doubling) + 1) * STEPS + ((ns >> doubling) - STEPS)) as usize
}

/// The greatest value in a bucket.
fn upper_end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let doubling = bucket / STEPS - 1;
    let next = u128::from(bucket % STEPS + STEPS + 1) << doubling;
    u64::try_from(next - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_everything_and_are_narrow() {
        for ns in (0..5000).chain((1..64).map(|bit| 1_u64 << bit)).chain([u64::MAX]) {
            let bucket = bucket_of(ns);
            let end = upper_end(bucket);
            assert!(end >= ns, "{ns} is in bucket {bucket}, which ends at {end}");
            assert!((end - ns) as f64 <= ns as f64 / 60.0, "{ns}: {end}");
            if end < u64::MAX {
                assert_eq!(bucket_of(end + 1), bucket + 1, "no gap after {end}");
            }
        }
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        (1..=1000).for_each(|us| histogram.record(Duration::from_micros(us)));
        for (share, us) in [(0.0, 1.0), (0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)]
        {
            let found = histogram.quantile(share).as_secs_f64() * 1e6;
            assert!((us..=us * 1.017).contains(&found), "{share}: {found}, not {us}");
        }
        assert_eq!(histogram.mean(), Duration::from_nanos(500_500));

        let mut both = Histogram::default();
        both.record(Duration::from_millis(2));
        both.merge(&histogram);
        assert_eq!(both.count(), 1001);
        assert_eq!(both.quantile(1.0), Duration::from_millis(2));
        let sample = both.note("setup", Sample::default());
        assert_eq!(sample.figure("setup_max_ms"), Some(2.0));
        assert!((0.5..0.51).contains(&sample.figure("setup_p50_ms").unwrap()));
    }
}
