//! How long something takes: average, percentiles and a histogram, in bounded memory.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde::Serialize;
use utoipa::ToSchema;

use crate::sums::half_even;

/// The upper bounds of the histogram, in milliseconds: from what a machine takes to what a bank transfer takes.
const BOUNDS_MS: [u64; 10] = [10, 50, 100, 500, 1_000, 5_000, 60_000, 3_600_000, 86_400_000, 604_800_000];

/// Durations, counted at three significant digits: at most 900 counters for each power of ten.
#[derive(Debug, Clone, Default)]
pub struct Durations {
    counts: BTreeMap<u64, i64>,
    count: i64,
    sum_ms: i128,
}

/// Durations as a report shows them; everything is unknown where nothing was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DurationReport {
    /// How many were measured.
    pub count: i64,
    /// The exact average.
    pub average_ms: Option<i128>,
    /// Half of them were at most this long, to three digits.
    pub p50_ms: Option<u64>,
    /// 95 % of them were at most this long, to three digits.
    pub p95_ms: Option<u64>,
    /// The longest, to three digits.
    pub max_ms: Option<u64>,
    /// How many there are in each range.
    pub histogram: Vec<Bucket>,
}

/// One range of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Bucket {
    /// Its upper bound, inclusive; none for the last, which has none. Its lower bound is that of the one before.
    pub up_to_ms: Option<u64>,
    /// How many are in it.
    pub count: i64,
}

impl Durations {
    /// Adds `count` durations that are all [`three_digits`], and `sum_ms` together.
    pub fn add(&mut self, three_digits: u64, count: i64, sum_ms: i64) {
        *self.counts.entry(three_digits).or_default() += count;
        self.count += count;
        self.sum_ms += i128::from(sum_ms);
    }

    /// What a reader sees.
    pub fn report(&self) -> DurationReport {
        DurationReport {
            count: self.count,
            average_ms: (self.count > 0).then(|| half_even(self.sum_ms, self.count.into())),
            p50_ms: self.percentile(50),
            p95_ms: self.percentile(95),
            max_ms: self.counts.keys().next_back().copied(),
            histogram: self.histogram(),
        }
    }

    /// The nearest-rank percentile.
    fn percentile(&self, percent: i64) -> Option<u64> {
        let rank = (self.count * percent + 99) / 100;
        let mut seen = 0;
        self.counts.iter().find_map(|(ms, count)| {
            seen += count;
            (seen >= rank).then_some(*ms)
        })
    }

    fn histogram(&self) -> Vec<Bucket> {
        let mut histogram: Vec<Bucket> =
            BOUNDS_MS.iter().map(|bound| Bucket { up_to_ms: Some(*bound), count: 0 }).collect();
        histogram.push(Bucket { up_to_ms: None, count: 0 });
        for (ms, count) in &self.counts {
            let index = BOUNDS_MS.partition_point(|bound| bound < ms);
            if let Some(bucket) = histogram.get_mut(index) {
                bucket.count += count;
            }
        }
        histogram
    }
}

/// In whole milliseconds. One below zero is zero: another producer's payment may come before its order.
pub fn whole_ms(duration: TimeDelta) -> u64 {
    u64::try_from(duration.num_milliseconds()).unwrap_or(0)
}

/// The number with only its first three digits, the others zero: how durations are told apart.
pub fn three_digits(ms: u64) -> u64 {
    let mut unit = 1;
    while ms / unit >= 1_000 {
        unit *= 10;
    }
    ms / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(durations_ms: impl IntoIterator<Item = i64>) -> Durations {
        let mut durations = Durations::default();
        for ms in durations_ms {
            let ms = whole_ms(TimeDelta::milliseconds(ms));
            durations.add(three_digits(ms), 1, ms.try_into().unwrap());
        }
        durations
    }

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let report = of(1..=100).report();
        assert_eq!((report.p50_ms, report.p95_ms, report.max_ms), (Some(50), Some(95), Some(100)));
        assert_eq!(report.average_ms, Some(50)); // 50.5, half to even
        assert_eq!(of([7]).report().p95_ms, Some(7));
    }

    #[test]
    fn nothing_measured_is_unknown_and_not_zero() {
        let report = Durations::default().report();
        assert_eq!((report.count, report.average_ms, report.p50_ms, report.max_ms), (0, None, None, None));
    }

    #[test]
    fn every_duration_is_in_one_range() {
        let report = of([-5, 0, 10, 11, 700_000_000_000]).report();
        let counts: Vec<_> = report.histogram.iter().map(|bucket| bucket.count).collect();
        assert_eq!(counts, [3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn durations_without_end_need_few_counters() {
        assert!(of(0..100_000).counts.len() < 3_000);
        assert_eq!([999, 1_000, 1_009, 123_456].map(three_digits), [999, 1_000, 1_000, 123_000]);
    }
}
