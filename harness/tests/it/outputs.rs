//! The commands while nobody reads what they say.

use std::io::pipe;
use std::process::Command;

#[test]
fn a_closed_output_ends_no_command() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut harness = Command::new(env!("CARGO_BIN_EXE_harness"));
    let status = harness.arg("nats-server").stdout(writer.try_clone().unwrap()).stderr(writer).status();
    assert!(status.unwrap().success());
}
