//! [`Console`]: standard output and standard error without ever waiting for whoever reads them.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

/// How many bytes wait for their reader. What comes when they are full is dropped.
const MAX_WAITING_BYTES: usize = 1024 * 1024;

/// A buffer that became larger than this is given back when it has been written.
const KEPT_BYTES: usize = 64 * 1024;

/// How long a reader that takes nothing is left alone, where the pipe says so instead of blocking.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// What a process says on one of its outputs. Writing to it never blocks and never fails: a thread of its own does what may
/// take for ever, and lines for which there is no room are dropped and counted (`jetkit_log_lines_dropped_total`). That
/// thread keeps no process from ending; [`Console::flush_within`] gives it the time for the last lines.
#[derive(Debug)]
pub struct Console(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write, or all is written.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// The thread has taken something and not written it yet.
    writing: bool,
    /// How many lines were dropped since the last that was written.
    dropped: u64,
}

impl Console {
    /// Standard output.
    pub fn stdout() -> &'static Self {
        static STDOUT: OnceLock<Console> = OnceLock::new();
        STDOUT.get_or_init(|| Self::on(io::stdout().as_fd()))
    }

    /// Standard error.
    pub fn stderr() -> &'static Self {
        static STDERR: OnceLock<Console> = OnceLock::new();
        STDERR.get_or_init(|| Self::on(io::stderr().as_fd()))
    }

    /// The thread has the descriptor for itself, and takes no lock that another writer could wait for.
    fn on(output: BorrowedFd<'_>) -> Self {
        Self::to(output.try_clone_to_owned().map(File::from))
    }

    fn to(output: io::Result<impl Write + Send + 'static>) -> Self {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let writer = output.and_then(|output| {
            thread::Builder::new().name("console".to_owned()).spawn(move || theirs.write_for_ever(output))
        });
        if writer.is_err() {
            // Nothing can be written, so there is room for nothing.
            shared.state().waiting = vec![0; MAX_WAITING_BYTES];
        }
        Self(shared)
    }

    /// Writes some lines, or none of them.
    pub fn write(&self, lines: &[u8]) {
        let mut state = self.0.state();
        if state.waiting.len() + lines.len() > MAX_WAITING_BYTES {
            let dropped = count_lines(lines);
            state.dropped += dropped;
            drop(state);
            count_dropped(dropped);
            return;
        }
        state.waiting.extend_from_slice(lines);
        drop(state);
        self.0.changed.notify_all();
    }

    /// Waits until everything is written, at most that long. Whether it is.
    pub fn flush_within(&self, longest: Duration) -> bool {
        let unwritten = |state: &mut State| state.writing || !state.waiting.is_empty();
        let waited = self.0.changed.wait_timeout_while(self.0.state(), longest, unwritten);
        let (_state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }
}

/// For what writes through [`Write`]: every buffer is taken whole, or dropped whole.
impl Write for &Console {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        Console::write(self, lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_for_ever(&self, mut output: impl Write) {
        let mut lines = Vec::new();
        loop {
            let dropped = self.take(&mut lines);
            match write_all(&mut output, &lines) {
                Ok(()) if dropped > 0 => {
                    tracing::warn!(
                        lines = dropped,
                        "the log was not read: lines are missing before this one"
                    );
                }
                Ok(()) => {}
                // Whoever read it has gone. There may be somebody again: a terminal, a named pipe.
                Err(_) => count_dropped(count_lines(&lines)),
            }
            lines.clear();
            lines.shrink_to(KEPT_BYTES);
        }
    }

    /// Says that all is written, and waits for more. Returns how many lines were dropped meanwhile.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        let mut state = self.state();
        state.writing = false;
        self.changed.notify_all();
        let waited = self.changed.wait_while(state, |state| state.waiting.is_empty());
        state = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(lines, &mut state.waiting);
        state.writing = true;
        std::mem::take(&mut state.dropped)
    }
}

/// As [`Write::write_all`], also where the other end of the pipe has made it one that does not block.
fn write_all(output: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(TRY_AGAIN_AFTER),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn count_lines(lines: &[u8]) -> u64 {
    lines.split_inclusive(|byte| *byte == b'\n').count() as u64
}

fn count_dropped(lines: u64) {
    metrics::counter!("jetkit_log_lines_dropped_total").increment(lines);
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::time::Instant;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn a_reader_that_reads_gets_every_line_in_order() {
        let (reader, writer) = io::pipe().unwrap();
        let console = Console::to(Ok(writer));
        let read = thread::spawn(|| BufReader::new(reader).lines().take(10_000).collect::<Vec<_>>());
        for n in 0..10_000 {
            console.write(format!("{n}\n").as_bytes());
        }
        assert!(console.flush_within(SOON));
        for (n, line) in read.join().unwrap().into_iter().enumerate() {
            assert_eq!(line.unwrap(), n.to_string());
        }
    }

    #[test]
    fn a_reader_that_does_not_read_stops_nobody_and_costs_bounded_memory() {
        let (reader, writer) = io::pipe().unwrap();
        let console = Console::to(Ok(writer));
        let line = [b'x'; 1023].into_iter().chain([b'\n']).collect::<Vec<_>>();
        for _ in 0..10_000 {
            console.write(&line);
        }
        assert!(!console.flush_within(Duration::from_millis(10)));
        let state = console.0.state();
        assert!(state.waiting.len() <= MAX_WAITING_BYTES && state.dropped > 0, "{}", state.dropped);
        drop(state);
        // It reads after all: nothing that was taken is lost.
        let read = thread::spawn(|| BufReader::new(reader).lines().map_while(Result::ok).next());
        assert_eq!(read.join().unwrap().unwrap().len(), 1023);
    }

    #[test]
    fn a_reader_that_has_gone_stops_nobody() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let console = Console::to(Ok(writer));
        let started = Instant::now();
        for _ in 0..10_000 {
            console.write(&[b'\n'; 1024]);
        }
        assert!(console.flush_within(SOON) && started.elapsed() < SOON);
    }
}
