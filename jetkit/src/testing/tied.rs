//! Child processes that do not outlive this one.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// A command for [`spawn_tied`]: it runs `program`, and the kernel kills that when this process ends, however it ends: a
/// panic, `kill -9`, a test runner's time-out.
///
/// Works by `setpriv --pdeathsig` (util-linux), which turns into the program and keeps the process id. Where that is
/// missing the child is an ordinary one, and only a parent that ends by itself takes it along.
pub fn tied_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = if setpriv_works() {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    // Ctrl-C in a terminal goes to a process group. It should reach only the parent, which then stops its children in
    // the order that it likes.
    command.process_group(0);
    command
}

/// Starts what [`tied_command`] made, on a thread that never ends: the kernel's signal goes out when the *thread* that
/// started the child is gone, and a test's thread is gone early.
pub fn spawn_tied(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::spawn(move || jobs.into_iter().for_each(|job| job()));
        sender
    });
    let gone = || io::Error::other("the thread that starts processes is gone");
    let (answer, answered) = mpsc::channel();
    let job = move || drop(answer.send(command.spawn()));
    spawner.send(Box::new(job)).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

fn setpriv_works() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let probe = ["--pdeathsig", "KILL", "--", "true"];
        let probe = Command::new("setpriv").args(probe).stdout(Stdio::null()).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    })
}
