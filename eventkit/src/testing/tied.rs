//! Child processes that do not outlive this one.

use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// Starts `command` as a child that the kernel kills when this process ends, however it ends: a panic, `kill -9`, a
/// test runner's time-out. It is in a process group of its own, so Ctrl-C in a terminal reaches only the parent,
/// which then stops its children in the order that it likes.
///
/// Works by `setpriv --pdeathsig` (util-linux). Where that is missing the child is an ordinary one, and only a parent
/// that ends by itself takes it along.
pub fn spawn_tied(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    // The kernel's signal goes out when the *thread* that started the child ends, and test threads end early.
    // This one never does.
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::spawn(move || jobs.into_iter().for_each(|job| job()));
        sender
    });

    if setpriv_works() {
        command = through_setpriv(&command);
    }
    std::os::unix::process::CommandExt::process_group(&mut command, 0);

    let gone = || io::Error::other("the thread that starts processes is gone");
    let (answer, answered) = mpsc::channel();
    let job = move || drop(answer.send((command.spawn(), command)));
    spawner.send(Box::new(job)).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?.0
}
