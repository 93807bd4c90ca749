//! Runs cargo, and other programs, on this terminal.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Returns the cargo that started this command, without what it set about this crate: build scripts that look at those
/// variables (ring's does) would run, and compile, again after every switch between `cargo` and `cargo xtask`.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    forget_this_crate(&mut cargo);
    cargo
}

/// Removes the variables that cargo set for this crate from the environment of `command`.
pub fn forget_this_crate(command: &mut Command) {
    let about_this_crate = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
    for (name, _) in std::env::vars_os() {
        if about_this_crate.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
}

/// Runs a command to its end, its output on this terminal.
pub fn run(command: &mut Command) -> Result<()> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    let status = command.status().with_context(|| format!("running `{line}`"))?;
    ensure!(status.success(), "`{line}` failed: {status}");
    Ok(())
}
