//! Time, CPU and memory of a piece of work.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// What one run of one side cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) messages: usize,
    pub(crate) took: Duration,
    /// CPU time of this process and of the server.
    pub(crate) client_cpu: Duration,
    pub(crate) server_cpu: Duration,
}

impl Sample {
    /// Messages a second.
    pub(crate) fn rate(&self) -> f64 {
        count(self.messages) / self.took.as_secs_f64()
    }

    /// CPU seconds of client and server per 100,000 messages.
    pub(crate) fn cpu_per_100k(&self) -> [f64; 2] {
        [self.client_cpu, self.server_cpu].map(|cpu| cpu.as_secs_f64() * 100_000.0 / count(self.messages))
    }
}

/// Measures from its start to [`Stopwatch::stop`].
#[derive(Debug)]
pub(crate) struct Stopwatch {
    server: u32,
    started: Instant,
    cpu_before: [Duration; 2],
}

impl Stopwatch {
    pub(crate) fn start(server: u32) -> anyhow::Result<Self> {
        let cpu_before = [cpu_of(std::process::id())?, cpu_of(server)?];
        Ok(Self { server, cpu_before, started: Instant::now() })
    }

    pub(crate) fn stop(self, messages: usize) -> anyhow::Result<Sample> {
        let took = self.started.elapsed();
        let [client, server] = self.cpu_before;
        let client_cpu = cpu_of(std::process::id())?.saturating_sub(client);
        let server_cpu = cpu_of(self.server)?.saturating_sub(server);
        Ok(Sample { messages, took, client_cpu, server_cpu })
    }
}

/// CPU time that a process has used, in user and kernel mode. (Linux: /proc/PID/stat counts in hundredths of a second.)
fn cpu_of(pid: u32) -> anyhow::Result<Duration> {
    let file = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    // The second field is the name in parentheses, which may hold anything; utime and stime are the 14th and 15th.
    let (_, after_name) = stat.rsplit_once(')').context("a process without a name")?;
    let mut fields = after_name.split_whitespace().skip(11).map(str::parse::<u64>);
    let mut next = || anyhow::Ok(fields.next().context("too few fields")??);
    Ok(Duration::from_millis((next()? + next()?) * 10))
}

/// Resident memory of a process in MiB: now (`VmRSS`), and at its highest (`VmHWM`).
pub(crate) fn memory_of(pid: u32) -> anyhow::Result<[f64; 2]> {
    let file = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    let mib = |field: &str| -> anyhow::Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
        let kib: u32 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(f64::from(kib) / 1024.0)
    };
    Ok([mib("VmRSS:")?, mib("VmHWM:")?])
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match (values.len() / 2, values.len() % 2) {
        (0, 0) => f64::NAN,
        (middle, 1) => values[middle],
        (middle, _) => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// A number of things, to calculate with.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median([]).is_nan());
    }

    #[test]
    fn work_costs_cpu_time_and_memory() {
        let me = std::process::id();
        let before = cpu_of(me).unwrap();
        let started = Instant::now();
        while cpu_of(me).unwrap() == before {
            assert!(started.elapsed() < Duration::from_secs(20), "no CPU time was counted");
        }
        let [now, highest] = memory_of(me).unwrap();
        assert!(0.0 < now && now <= highest);
    }
}
