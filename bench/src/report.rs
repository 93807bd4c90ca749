//! What came out: a table for people, JSON for machines.

use std::fmt;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::loads::Loads;
use crate::measure::{Sample, median};
use crate::memory::Memory;
use crate::scenario::Scenario;

/// All results.
#[derive(Debug, Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
    pub(crate) loads: Option<Loads>,
    pub(crate) memory: Option<Memory>,
}

/// The pairs of one scenario: the kit, and by hand.
#[derive(Debug)]
pub(crate) struct Line {
    scenario: Scenario,
    messages: usize,
    pub(crate) pairs: Vec<(Sample, Sample)>,
}

impl Line {
    pub(crate) fn new(scenario: &Scenario, messages: usize) -> Self {
        Self { scenario: *scenario, messages, pairs: Vec::new() }
    }

    fn ratios(&self) -> impl Iterator<Item = f64> {
        self.pairs.iter().map(|(kit, raw)| kit.rate() / raw.rate())
    }

    fn ratio(&self) -> f64 {
        median(self.ratios())
    }

    fn rates(&self) -> [f64; 2] {
        [
            median(self.pairs.iter().map(|(kit, _)| kit.rate())),
            median(self.pairs.iter().map(|(_, raw)| raw.rate())),
        ]
    }

    /// CPU seconds per 100,000 messages: of the kit's process and its server, and the same by hand.
    fn cpu(&self) -> [f64; 4] {
        let of = |pick: fn(&(Sample, Sample)) -> f64| median(self.pairs.iter().map(pick));
        [
            of(|(kit, _)| kit.cpu_per_100k()[0]),
            of(|(kit, _)| kit.cpu_per_100k()[1]),
            of(|(_, raw)| raw.cpu_per_100k()[0]),
            of(|(_, raw)| raw.cpu_per_100k()[1]),
        ]
    }

    fn verdict(&self) -> &'static str {
        self.scenario.target.map_or("", |target| verdict(self.ratio() >= target))
    }

    fn json(&self) -> Value {
        let [kit_rate, raw_rate] = self.rates();
        let [kit_client, kit_server, raw_client, raw_server] = self.cpu();
        json!({
            "name": self.scenario.name,
            "about": self.scenario.about,
            "messages": self.messages,
            "sync_always": self.scenario.sync_always,
            "kit_per_second": kit_rate,
            "raw_per_second": raw_rate,
            "ratio": self.ratio(),
            "ratios": self.ratios().collect::<Vec<_>>(),
            "target": self.scenario.target,
            "met": self.scenario.target.map(|target| self.ratio() >= target),
            "cpu_seconds_per_100k": {
                "kit": { "client": kit_client, "server": kit_server },
                "raw": { "client": raw_client, "server": raw_server },
            },
        })
    }
}

fn verdict(met: bool) -> &'static str {
    if met { "PASS" } else { "MISS" }
}

impl Report {
    pub(crate) fn add(&mut self, line: Line) {
        self.lines.push(line);
    }

    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let lines: Vec<_> = self.lines.iter().map(Line::json).collect();
        let memory = self.memory.as_ref().map(Memory::json);
        let loads = self.loads.as_ref().map(Loads::json);
        let report = json!({ "comparisons": lines, "loads": loads, "memory": memory });
        if let Some(dir) = file.parent() {
            std::fs::create_dir_all(dir)?;
        }
        Ok(std::fs::write(file, serde_json::to_string_pretty(&report)? + "\n")?)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.lines.is_empty() {
            writeln!(
                f,
                "{:21} {:>9} {:>9}  {:>5} {:>13}  {:>6} {:4}  {:>11} {:>11}",
                "", "kit/s", "raw/s", "ratio", "(of pairs)", "target", "", "kit cpu", "raw cpu"
            )?;
        }
        for line in &self.lines {
            let [kit, raw] = line.rates();
            let (lowest, highest) = line
                .ratios()
                .fold((f64::MAX, f64::MIN), |(low, high), ratio| (low.min(ratio), high.max(ratio)));
            let target = line.scenario.target.map_or(String::new(), |target| format!("≥ {target:.2}"));
            let [kit_client, kit_server, raw_client, raw_server] = line.cpu();
            writeln!(
                f,
                "{:21} {kit:>9.0} {raw:>9.0}  {:>5.2} {:>13}  {target:>6} {:4}  {:>11} {:>11}",
                line.scenario.name,
                line.ratio(),
                format!("({lowest:.2}-{highest:.2})"),
                line.verdict(),
                format!("{kit_client:.2} + {kit_server:.2}"),
                format!("{raw_client:.2} + {raw_server:.2}"),
            )?;
        }
        if !self.lines.is_empty() {
            writeln!(
                f,
                "\ncpu: seconds per 100,000 messages, client + server. What is compared, kit | by hand:"
            )?;
            for Line { scenario, pairs, .. } in &self.lines {
                writeln!(f, "  {:21} {} ({} pairs)", scenario.name, scenario.about, pairs.len())?;
            }
        }
        if let Some(loads) = &self.loads {
            writeln!(f, "\n{loads}: {}", verdict(loads.met()))?;
        }
        if let Some(memory) = &self.memory {
            let met = verdict(memory.met());
            write!(f, "\n{memory}: {met}")?;
        }
        Ok(())
    }
}
