//! How far it is, for people who watch and for tests that interfere.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicUsize, Ordering};

use jetkit::Console;

/// Counts what is done, and says so where somebody watches.
#[derive(Debug, Default)]
pub struct Progress {
    shown: bool,
    /// Whether the last line can be written over.
    rewritable: bool,
    total: AtomicUsize,
    placed: AtomicUsize,
    ended: AtomicUsize,
}

impl Progress {
    /// Says everything on this terminal.
    pub fn shown() -> Self {
        Self { shown: true, rewritable: std::io::stdout().is_terminal(), ..Self::default() }
    }

    /// Says nothing.
    pub fn silent() -> Self {
        Self::default()
    }

    /// How many orders have been accepted so far.
    pub fn placed(&self) -> usize {
        self.placed.load(Ordering::Relaxed)
    }

    /// How many orders have come to their end so far.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }

    /// The next thing begins.
    pub fn step(&self, what: &str) {
        if self.shown {
            say!("  {what}");
        }
    }

    pub(super) fn orders(&self, total: usize) {
        self.total.store(total, Ordering::Relaxed);
    }

    pub(super) fn one_placed(&self) {
        self.placed.fetch_add(1, Ordering::Relaxed);
        self.show_counts();
    }

    pub(super) fn one_ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.show_counts();
    }

    fn show_counts(&self) {
        let (placed, ended, total) = (self.placed(), self.ended(), self.total.load(Ordering::Relaxed));
        let done = ended == total;
        // Where lines stay, a few of them are enough.
        let due = self.rewritable || done || (placed + ended) % (total / 2).max(1) == 0;
        if !self.shown || !due {
            return;
        }
        let line = format!("  orders: {placed} of {total} placed, {ended} ended");
        if self.rewritable {
            let end = if done { "\n" } else { "" };
            Console::stdout().write(format!("\r{line}\x1b[K{end}").as_bytes());
        } else {
            say!("{line}");
        }
    }
}
