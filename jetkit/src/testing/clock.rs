//! A wall clock that is wrong, for processes under test: nothing may depend on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use chrono::TimeDelta;
use tempfile::TempDir;

/// Names the file that says by how many seconds the clock is ahead.
const FILE: &str = "EVENTKIT_WRONG_CLOCK";

/// Stands before libc: the wall clock is shifted, the monotonic one is not. (nats-server does not use libc: its clock stays
/// right.)
const SHIFT: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long ahead(void) {
    const char *file = getenv("EVENTKIT_WRONG_CLOCK");
    int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return 0;
    char text[32] = {0};
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 ? atol(text) : 0;
}

int clock_gettime(clockid_t id, struct timespec *t) {
    int failed = syscall(SYS_clock_gettime, id, t);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += ahead();
    return failed;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    int failed = syscall(SYS_gettimeofday, t, zone);
    if (!failed && t) t->tv_sec += ahead();
    return failed;
}

time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
"#;

/// The wall clock of processes under test: ahead of the real one, or behind it. Needs a C compiler, as SQLite does.
#[derive(Debug)]
pub struct WrongClock {
    /// Says how much it is ahead. Every look at the clock reads it.
    file: PathBuf,
    /// Where it was made, which is deleted with it.
    _made_in: Option<TempDir>,
}

impl WrongClock {
    /// A clock that is `ahead` of the real one, or behind it if that is negative.
    pub fn new(ahead: TimeDelta) -> Self {
        let dir = TempDir::new().expect("a directory for the clock");
        let source = dir.path().join("clock.c");
        fs::write(&source, SHIFT).expect("the clock's source can be written");
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut build = Command::new(compiler);
        build.args(["-shared", "-fPIC", "-O1", "-o"]).arg(library(dir.path())).arg(&source);
        assert!(build.status().expect("a C compiler (cc, or CC)").success(), "the clock is not compiled");
        let clock = Self { file: dir.path().join("ahead"), _made_in: Some(dir) };
        clock.set(ahead);
        clock
    }

    /// Sets the clock, also of processes that run.
    pub fn set(&self, ahead: TimeDelta) {
        // In one step: nobody reads half of it.
        let new = self.file.with_extension("new");
        fs::write(&new, ahead.num_seconds().to_string()).expect("the clock can be set");
        fs::rename(new, &self.file).expect("the clock can be set");
    }

    /// Gives this clock to a process, before it is started, and to those that it starts.
    pub fn give_to(&self, command: &mut Command) {
        let dir = self.file.parent().expect("it is in a directory");
        command.env("LD_PRELOAD", library(dir)).env(FILE, &self.file);
    }

    /// Runs the calling test in a process of its own that has such a clock: [`None`] in the process that was first, where
    /// the test is over then; the clock in the other one. `test` is the test's full name.
    pub fn of_test(test: &str, ahead: TimeDelta) -> Option<Self> {
        if let Some(file) = std::env::var_os(FILE) {
            return Some(Self { file: file.into(), _made_in: None });
        }
        let clock = Self::new(ahead);
        let mut child = Command::new(std::env::current_exe().expect("the test's program"));
        clock.give_to(child.args(["--exact", test, "--nocapture"]));
        let output = child.output().expect("the test's program starts again");
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && told.contains("1 passed"),
            "with a clock that is {ahead} ahead: {told}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        None
    }
}

fn library(dir: &Path) -> PathBuf {
    dir.join("clock.so")
}
