//! `cargo xtask new-consumer`: writes a consumer crate and adds it to the workspace, to `up` and to the containers.

mod template;

use anyhow::{Result, bail};
use clap::Args;
use jetkit::EventSpec;

use crate::Workspace;
use crate::scaffold::{self, Files, NewMember};

/// What the new consumer is.
#[derive(Debug, Clone, Args)]
pub struct NewConsumer {
    /// What it does, in a word or two: `fraud` makes the crate `consumer-fraud`
    pub name: String,

    /// The events that it listens to, such as order.placed,payment.processed
    #[arg(long, value_name = "TYPES", value_delimiter = ',', required = true)]
    pub on: Vec<String>,
}

/// A checked [`NewConsumer`], with everything that the written files need.
#[derive(Debug)]
struct Plan {
    /// Its package and durable, `consumer-fraud`, and its port.
    member: NewMember,
    /// `fraud`: the module with its handlers.
    module: String,
    /// `Fraud`: the handlers' type.
    handler: String,
    events: Vec<EventSpec>,
}

/// Names that the written files use.
const RESERVED: &str = "common consumer event jetkit handler main recorded service tokio tracing";

/// Checks everything first, then writes; so a refusal leaves nothing half done. Returns the name of the package.
pub fn new_consumer(workspace: &Workspace, wanted: &NewConsumer) -> Result<String> {
    let plan = Plan::check(workspace, wanted)?;
    let package = &plan.member.package;
    let mut files = Files::from([
        (format!("{package}/Cargo.toml"), template::manifest(&plan)),
        (format!("{package}/src/main.rs"), template::main(&plan)),
        (format!("{package}/src/{}.rs", plan.module), template::handler(&plan)),
    ]);
    plan.member.enter(workspace, &mut files)?;
    scaffold::write(workspace, &files, &[package])?;
    say!("\n{}", template::next_steps(&plan));
    Ok(plan.member.package)
}

impl Plan {
    fn check(workspace: &Workspace, wanted: &NewConsumer) -> Result<Self> {
        let name = wanted.name.strip_prefix("consumer-").unwrap_or(&wanted.name);
        let words = scaffold::words(name, '-', "a consumer")?;
        let (module, handler) = (words.join("_"), scaffold::camel_case(&words));
        let events = events(&wanted.on)?;
        scaffold::ensure_free(&module, RESERVED)?;
        if events.iter().any(|event| type_of(event) == handler) {
            bail!("the name {name} is an event's type; choose another");
        }
        let member = NewMember::check(workspace, format!("consumer-{name}"))?;
        Ok(Self { member, module, handler, events })
    }
}

/// The events of these types, each once; an unknown one is refused with the list of those that there are.
fn events(types: &[String]) -> Result<Vec<EventSpec>> {
    let catalog = common::catalog();
    let mut events: Vec<EventSpec> = Vec::new();
    for wanted in types {
        let Some(event) = catalog.get(wanted.trim()) else {
            let known: Vec<_> = catalog.events().iter().map(|event| event.event_type).collect();
            bail!("there is no event {wanted:?}; there are {}", known.join(", "));
        };
        if !events.iter().any(|other| other.event_type == event.event_type) {
            events.push(*event);
        }
    }
    Ok(events)
}

/// `OrderPlaced` of `common::order::OrderPlaced`.
fn type_of(event: &EventSpec) -> &'static str {
    event.rust_type.rsplit("::").next().unwrap_or(event.rust_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str, on: &str) -> String {
        let wanted = NewConsumer { name: name.into(), on: on.split(',').map(str::to_owned).collect() };
        Plan::check(&Workspace::find().unwrap(), &wanted).unwrap_err().to_string()
    }

    #[test]
    fn a_name_that_would_not_compile_is_refused() {
        for name in ["", "Fraud", "1st", "a--b", "a-", "../up", "match", "common", "order-placed", "fraud_"] {
            let refusal = refusal(name, "order.placed");
            assert!(refusal.contains("name"), "{name}: {refusal}");
        }
    }

    #[test]
    fn a_consumer_is_not_written_over_another() {
        assert!(refusal("email", "order.placed").contains("already"));
        assert!(refusal("consumer-email", "order.placed").contains("already"));
    }

    #[test]
    fn an_unknown_event_is_refused_with_the_known_ones() {
        let refusal = refusal("fraud", "order.placed,order.plcaed");
        assert!(refusal.contains("order.plcaed") && refusal.contains("payment.processed"), "{refusal}");
    }
}
