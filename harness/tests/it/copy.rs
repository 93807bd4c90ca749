//! A copy of the tree, for commands that change it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Options, PortLease, Ports, System, Workspace};

/// A copy of the tree, always in the same place and building to the same target directory as the original, so that a second
/// run compiles next to nothing.
pub(crate) struct Copy {
    pub(crate) tree: PathBuf,
    _lock: File,
}

impl Copy {
    pub(crate) fn of(original: &Workspace) -> Self {
        let dir = original.target.join("scaffold-test");
        fs::create_dir_all(&dir).unwrap();
        let lock = File::create(dir.join("lock")).unwrap();
        lock.lock().unwrap();
        let tree = dir.join("tree");
        if tree.exists() {
            fs::remove_dir_all(&tree).unwrap();
        }
        copy_tree(&original.root, &tree);
        let config = tree.join(".cargo/config.toml");
        let target = format!("\n[build]\ntarget-dir = \"{}\"\n", original.target.display());
        fs::write(&config, fs::read_to_string(&config).unwrap() + &target).unwrap();
        Self { tree, _lock: lock }
    }

    pub(crate) fn workspace(&self) -> Workspace {
        Workspace::at(&self.tree).unwrap()
    }

    /// Runs a command in the copy.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.tree).env("CARGO_MANIFEST_DIR", &self.tree);
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(
            output.status.success(),
            "{program} {arguments:?} failed:\n{}",
            String::from_utf8_lossy(&said)
        );
    }

    /// Builds and starts these services by the code behind `cargo xtask up`, on free ports.
    pub(crate) async fn start(&self, services: &[&str]) -> System {
        let mut workspace = self.workspace();
        workspace.services.retain(|service| services.contains(&service.name.as_str()));
        workspace.build_services().unwrap();
        let lease = PortLease::take(&workspace).unwrap();
        let ports = Ports::from_base(Some(lease.base())).unwrap();
        let data_dir = self.tree.join("data");
        let options = Options { data_dir, ports, nats: None, show_logs: false, env: Vec::new() };
        System::start(&workspace, options).await.unwrap()
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if [".git", "target", "data"].iter().any(|skipped| entry.file_name() == *skipped) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            // What has not changed keeps its time, by which cargo goes.
            let modified = entry.metadata().unwrap().modified().unwrap();
            File::options().append(true).open(&target).unwrap().set_modified(modified).unwrap();
        }
    }
}
