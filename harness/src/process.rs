//! One process of the system: started, listened to, stopped.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jetkit::testing::spawn_tied;
use rustix::process::{Pid, Signal, kill_process};

/// How many of its last lines are repeated when a process ends by itself.
const LAST_WORDS: usize = 15;

/// Where the output of the processes goes.
#[derive(Debug, Clone)]
pub struct Output {
    /// One file for each process: `<dir>/<name>.log`.
    pub dir: PathBuf,
    /// Also to this terminal, each line with the name of its process before it.
    pub show: bool,
}

/// A running child process. Killed when dropped, and by the kernel when this process ends.
#[derive(Debug)]
pub struct Process {
    /// What it is called in the log.
    pub name: String,
    child: Child,
    listeners: Vec<JoinHandle<()>>,
    last_words: LastWords,
}

type LastWords = Arc<Mutex<VecDeque<String>>>;

impl Process {
    /// Starts `command`, which [`jetkit::testing::tied_command`] made.
    pub fn spawn(name: &str, mut command: Command, output: &Output) -> Result<Self> {
        fs::create_dir_all(&output.dir).with_context(|| format!("creating {}", output.dir.display()))?;
        let log = output.dir.join(format!("{name}.log"));
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn_tied(command).with_context(|| format!("starting {name}"))?;

        let last_words = LastWords::default();
        let label = output.show.then(|| label(name));
        let listen = |pipe: Box<dyn Read + Send>| -> Result<_> {
            let listener =
                Listener { log: log.try_clone()?, label: label.clone(), last_words: last_words.clone() };
            Ok(thread::spawn(move || listener.listen(pipe)))
        };
        let mut listeners = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            listeners.push(listen(Box::new(pipe))?);
        }
        if let Some(pipe) = child.stderr.take() {
            listeners.push(listen(Box::new(pipe))?);
        }
        Ok(Self { name: name.to_owned(), child, listeners, last_words })
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop (SIGTERM). It may take its time; see [`Process::stopped_by`].
    pub fn ask_to_stop(&mut self) {
        // Not after it was waited for: the id could be another's by then.
        if self.ended().is_none() {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
    }

    /// Waits for its end until `deadline`, and kills it then. Whether it stopped by itself.
    pub async fn stopped_by(&mut self, deadline: Instant) -> bool {
        while Instant::now() < deadline {
            if self.ended().is_some() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.kill();
        false
    }

    /// Ends it as a crash would (SIGKILL).
    pub fn kill(&mut self) {
        // Both fail only for a child that has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Its last lines. Complete once it has ended.
    pub fn last_words(&mut self) -> String {
        if self.ended().is_some() {
            self.listeners.drain(..).for_each(|listener| drop(listener.join()));
        }
        let lines = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().fold(String::new(), |text, line| text + "  " + line + "\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Takes one pipe of a process to where its lines go.
struct Listener {
    log: File,
    label: Option<String>,
    last_words: LastWords,
}

impl Listener {
    fn listen(mut self, pipe: Box<dyn Read + Send>) {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        // Reads to the end whatever becomes of the lines: a full pipe would stop the process.
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            drop(self.log.write_all(&line));
            if let Some(label) = &self.label {
                say!("{label} {text}");
            }
            let mut last = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
            last.push_back(text.to_owned());
            if last.len() > LAST_WORDS {
                last.pop_front();
            }
            drop(last);
            line.clear();
        }
    }
}

/// The name in a column, in a colour of its own on a terminal.
fn label(name: &str) -> String {
    const COLOURS: [u8; 10] = [32, 33, 34, 35, 36, 92, 93, 94, 95, 96];
    if !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some() {
        return format!("{name:<18} |");
    }
    let colour = name.bytes().fold(0, |sum, byte| sum * 31 % 1009 + usize::from(byte)) % COLOURS.len();
    format!("\x1b[{}m{name:<18} |\x1b[0m", COLOURS[colour])
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use jetkit::testing::{eventually, tied_command};

    use super::*;

    fn shell(script: &str, dir: &tempfile::TempDir) -> Process {
        let mut command = tied_command("sh");
        command.args(["-c", script]);
        Process::spawn("toy", command, &Output { dir: dir.path().into(), show: false }).unwrap()
    }

    async fn ended(process: &mut Process) -> ExitStatus {
        let process = std::cell::RefCell::new(process);
        eventually(Duration::from_secs(10), async || process.borrow_mut().ended()).await
    }

    #[tokio::test]
    async fn a_process_that_ends_is_noticed_with_what_it_said_last() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell("echo one; echo two >&2; exit 3", &dir);
        assert_eq!(ended(&mut process).await.code(), Some(3));
        let words = process.last_words();
        assert!(words.contains("one") && words.contains("two"), "{words}");
        let log = fs::read_to_string(dir.path().join("toy.log")).unwrap();
        assert!(log.contains("one\n") && log.contains("two\n"), "{log}");
    }

    #[tokio::test]
    async fn a_process_that_ignores_sigterm_is_killed_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell("trap '' TERM; echo ready; exec sleep 60", &dir);
        let process_said = |process: &mut Process| process.last_words().contains("ready").then_some(());
        {
            let process = std::cell::RefCell::new(&mut process);
            eventually(Duration::from_secs(10), async || process_said(*process.borrow_mut())).await;
        }
        process.ask_to_stop();
        assert!(!process.stopped_by(Instant::now() + Duration::from_millis(200)).await);
        assert_eq!(ended(&mut process).await.signal(), Some(9));
    }
}
