//! What the contract and the kit without features depend on: nothing that does I/O.

use std::collections::BTreeSet;
use std::process::Command;

/// What only a feature may bring in.
const HEAVY: [&str; 12] = [
    "async-nats",
    "axum",
    "clap",
    "futures",
    "hyper",
    "jetkit-async-nats",
    "libsqlite3-sys",
    "metrics",
    "rusqlite",
    "tokio",
    "tracing",
    "utoipa",
];

#[test]
fn the_contract_and_what_an_event_is_depend_on_nothing_that_does_io() {
    for (package, own) in [("common", "jetkit"), ("jetkit", "serde_json")] {
        let tree = dependencies(&["-p", package, "--no-default-features"]);
        assert!(tree.contains(own), "the tree of {package} was not read: {tree:?}");
        let heavy: Vec<_> = HEAVY.into_iter().filter(|name| tree.contains(*name)).collect();
        assert!(heavy.is_empty(), "{package} depends on {heavy:?}: put what needs them behind a feature");
    }
}

#[test]
fn the_heavy_dependencies_are_called_what_the_tree_calls_them() {
    let tree = dependencies(&["-p", "jetkit", "--all-features"]);
    let absent: Vec<_> =
        HEAVY.into_iter().filter(|name| *name != "async-nats" && !tree.contains(*name)).collect();
    assert!(absent.is_empty(), "no dependency is called {absent:?}");
}

/// Returns the names of all packages that a program with this one consists of.
fn dependencies(package: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let tree = ["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let output = Command::new(cargo).current_dir(super::root()).args(tree).args(package).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}
