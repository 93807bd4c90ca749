//! `cargo xtask new-consumer`: writes a consumer crate and adds it to the workspace, to `up` and to the containers.

mod template;

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use jetkit::EventSpec;
use xtask::{cargo, run};

use crate::{Ports, Workspace};

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
    /// `consumer-fraud`: its package, binary, durable, container, directory.
    package: String,
    /// `fraud`: the module with its handlers.
    module: String,
    /// `Fraud`: the handlers' type.
    handler: String,
    port: u16,
    events: Vec<EventSpec>,
}

/// Changes the text of a file so that the new consumer is in it.
type Edit = fn(&str, &Plan) -> Result<String>;

/// The files that list the services.
const EDITS: [(&str, Edit); 2] =
    [("Cargo.toml", add_to_workspace), ("docker-compose.yml", add_to_containers)];

/// Checks everything first, then writes; so a refusal leaves nothing half done. Returns the name of the package.
pub fn new_consumer(workspace: &Workspace, wanted: &NewConsumer) -> Result<String> {
    let plan = Plan::check(workspace, wanted)?;
    let mut files = BTreeMap::from([
        (format!("{}/Cargo.toml", plan.package), template::manifest(&plan)),
        (format!("{}/src/main.rs", plan.package), template::main(&plan)),
        (format!("{0}/src/{1}.rs", plan.package, plan.module), template::handler(&plan)),
    ]);
    for (file, edit) in EDITS {
        let text =
            fs::read_to_string(workspace.root.join(file)).with_context(|| format!("reading {file}"))?;
        let text = edit(&text, &plan).with_context(|| format!("adding {} to {file}", plan.package))?;
        files.insert(file.to_owned(), text);
    }
    fs::create_dir_all(workspace.root.join(&plan.package).join("src")).context("creating its directory")?;
    for (file, text) in &files {
        fs::write(workspace.root.join(file), text).with_context(|| format!("writing {file}"))?;
        say!("wrote {file}");
    }
    // The line width depends on the names, so rustfmt has the last word; and images are built with a locked Cargo.lock.
    run(cargo().args(["fmt", "--package", &plan.package]).current_dir(&workspace.root))?;
    run(cargo().args(["update", "--workspace", "--offline", "--quiet"]).current_dir(&workspace.root))?;
    say!("\n{}", template::next_steps(&plan));
    Ok(plan.package)
}

impl Plan {
    fn check(workspace: &Workspace, wanted: &NewConsumer) -> Result<Self> {
        let name = wanted.name.strip_prefix("consumer-").unwrap_or(&wanted.name);
        let words: Vec<&str> = name.split('-').collect();
        let legal = |word: &&str| {
            word.starts_with(|first: char| first.is_ascii_lowercase())
                && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        ensure!(
            words.iter().all(legal) && name.len() <= 32,
            "{name:?} is no name for a consumer: up to 32 of a-z, 0-9 and -, each word starting with a letter"
        );
        let package = format!("consumer-{name}");
        let module = words.join("_");
        let handler: String = words.iter().map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect();
        let events = events(&wanted.on)?;

        let taken = |event: &EventSpec| type_of(event) == handler;
        ensure!(
            !RESERVED.contains(&module.as_str()) && !events.iter().any(taken),
            "the name {name} means something else in Rust or in the shop; choose another"
        );
        ensure!(!workspace.root.join(&package).exists(), "there is a {package} already");

        let port = workspace.services.last().map_or(Ports::SERVICES.start + 1, |last| last.port + 1);
        ensure!(Ports::SERVICES.contains(&port), "no port is left for it below {}", Ports::SERVICES.end);
        Ok(Self { package, module, handler, port, events })
    }
}

/// Names of modules that would hide something: keywords of Rust, crates and types that the written files use.
const RESERVED: [&str; 50] = [
    "abstract", "as", "async", "await", "become", "box", "break", "common", "const", "consumer", "continue",
    "crate", "do", "dyn", "else", "enum", "event", "jetkit", "extern", "final", "fn", "for", "gen",
    "handler", "if", "impl", "in", "let", "loop", "macro", "main", "match", "mod", "move", "mut", "override",
    "priv", "pub", "recorded", "ref", "return", "service", "static", "struct", "tokio", "tracing", "try",
    "type", "use", "where",
];

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

fn add_to_workspace(manifest: &str, plan: &Plan) -> Result<String> {
    let Plan { package, port, .. } = plan;
    let manifest = after_last(manifest, "    \"consumer-", &format!("    \"{package}\",\n"))?;
    let section = "[workspace.metadata.services]\n";
    let start = manifest.find(section).with_context(|| format!("no {}", section.trim()))? + section.len();
    let (before, services) = manifest.split_at(start);
    let end = services.find("\n\n").map_or(services.len(), |end| end + 1);
    let (services, after) = services.split_at(end);
    Ok(format!("{before}{services}{package} = {port}\n{after}"))
}

fn add_to_containers(compose: &str, plan: &Plan) -> Result<String> {
    let volumes = compose.find("\nvolumes:\n").context("no volumes at its end")?;
    let (services, volumes) = compose.split_at(volumes);
    let volumes = after_last(volumes, "  consumer-", &format!("  {}:\n", plan.package))?;
    Ok(format!("{services}\n{}{volumes}", template::container(plan)))
}

/// Puts `line` after the last line that starts with `start`.
fn after_last(text: &str, start: &str, line: &str) -> Result<String> {
    let missing = || format!("no line starts with {start:?}");
    let last = text.rfind(&format!("\n{start}")).with_context(missing)? + 1;
    let end = text[last..].find('\n').map_or(text.len(), |end| last + end + 1);
    Ok(format!("{}{line}{}", &text[..end], &text[end..]))
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
