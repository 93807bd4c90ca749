//! The audit: whether everything that can be seen of the shop adds up. Pure.
//!
//! It goes by the log, which it reads on its own, and by what was asked for; every service has to agree with both.

pub(super) mod analytics;
mod dead_letters;
mod history;
mod mails;
mod money;
mod orders;
mod stock;
#[cfg(test)]
mod tests;

use std::fmt;

use super::Ledger;

/// At most so many findings of one check are shown.
const SHOWN: usize = 20;

/// What the audit found.
#[derive(Debug)]
pub struct Audit {
    /// Each check, in the order in which to read them.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Debug, Default)]
pub struct Check {
    /// What is checked.
    pub name: &'static str,
    /// What there is, in numbers.
    pub seen: String,
    /// What is off. Nothing, if all is well.
    pub wrong: Vec<String>,
}

/// Checks everything.
pub fn audit(ledger: &Ledger) -> Audit {
    Audit {
        checks: vec![
            history::check(ledger),
            orders::check(ledger),
            stock::check(ledger),
            money::check(ledger),
            mails::check(ledger),
            analytics::check(ledger),
            dead_letters::check(ledger),
        ],
    }
}

impl Audit {
    /// How many things are off.
    pub fn wrong(&self) -> usize {
        self.checks.iter().map(|check| check.wrong.len()).sum()
    }
}

impl Check {
    fn new(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    /// Notes what is off unless `holds`.
    fn holds(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(otherwise());
        }
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Check { name, seen, wrong }) in self.checks.iter().enumerate() {
            let verdict = if wrong.is_empty() { "ok " } else { "OFF" };
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}  {verdict}  {name:<12} {seen}")?;
            for finding in wrong.iter().take(SHOWN) {
                write!(f, "\n         - {finding}")?;
            }
            if wrong.len() > SHOWN {
                write!(f, "\n         - and {} more", wrong.len() - SHOWN)?;
            }
        }
        Ok(())
    }
}
