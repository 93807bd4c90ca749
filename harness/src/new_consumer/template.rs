//! What a new consumer consists of: its manifest, a `main.rs` that wires, one file with its handlers.

use std::fmt::Write as _;

use jetkit::EventSpec;

use super::{Plan, type_of};
use crate::scaffold::{self, NewMember};

pub(super) fn manifest(plan: &Plan) -> String {
    format!(
        r#"[package]
name = "{}"
description = "Listens to {}"
version.workspace = true
edition.workspace = true
rust-version.workspace = true
license.workspace = true
publish.workspace = true

[lints]
workspace = true

[dependencies]
anyhow.workspace = true
common.workspace = true
jetkit = {{ workspace = true, features = ["service"] }}
tokio.workspace = true
tracing.workspace = true

[dev-dependencies]
jetkit = {{ workspace = true, features = ["testing"] }}
"#,
        plan.member.package,
        listed(&plan.events)
    )
}

pub(super) fn main(plan: &Plan) -> String {
    let Plan { member: NewMember { package, port }, module, handler, events } = plan;
    let on: Vec<_> = events.iter().map(|event| format!(".on::<{}>({handler})", type_of(event))).collect();
    let on = on.concat();
    format!(
        r#"//! Listens to {listed}. What it does with them is in `{module}.rs`.

mod {module};

{imports}use jetkit::{{Consumer, NoSettings, Service}};

use crate::{module}::{handler};

#[tokio::main]
async fn main() -> anyhow::Result<()> {{
    let about = jetkit::about!(port = {port});
    let (mut service, _) = Service::start::<NoSettings>(about, common::catalog()).await?;
    service.consume(Consumer::new("{package}"){on});
    service.run().await
}}
"#,
        listed = listed(events),
        imports = imports(events),
    )
}

pub(super) fn handler(plan: &Plan) -> String {
    let Plan { handler, events, .. } = plan;
    let mut file = format!(
        r"//! What happens with {listed}.

{imports}use jetkit::{{Event, Handler, HandlerResult, Recorded}};
use tracing::info;

/// Handles the events. What it works with (a client, a store) goes into its fields.
///
/// `?` on an error means: try again later. `.or_reject()?` means: this will never work, give it to the dead letters. An
/// event may come twice, so an effect outside needs a key of its own: `event.cause().derive(…)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct {handler};
",
        listed = listed(events),
        imports = imports(events),
    );
    for event in events {
        file += &implementation(handler, event);
    }
    file += &tests(handler, events);
    file
}

/// One `impl Handler`.
fn implementation(handler: &str, event: &EventSpec) -> String {
    let (event_type, rust_type) = (event.event_type, type_of(event));
    format!(
        r#"
impl Handler<{rust_type}> for {handler} {{
    async fn handle(&self, event: Recorded<{rust_type}>) -> HandlerResult {{
        info!(event.id = %event.meta.id, entity.id = %event.entity_id(), "{event_type}");
        Ok(())
    }}
}}
"#
    )
}

fn tests(handler: &str, events: &[EventSpec]) -> String {
    let mut tests = String::from(
        "\n#[cfg(test)]\nmod tests {\n    use jetkit::testing::recorded;\n\n    use super::*;\n",
    );
    for event in events {
        let (event_type, rust_type) = (event.event_type, type_of(event));
        let name = event_type.replace(['.', '-'], "_");
        // Writing to a string cannot fail.
        let _ = write!(
            tests,
            r#"
    #[tokio::test]
    async fn {name}_is_handled() {{
        let event = recorded::<{rust_type}>(include_str!("../../common/tests/golden/{event_type}.v{version}.json"));
        {handler}.handle(event).await.unwrap();
    }}
"#,
            version = event.version
        );
    }
    tests + "}\n"
}

pub(super) fn next_steps(plan: &Plan) -> String {
    let Plan { member: NewMember { package, port }, module, .. } = plan;
    format!(
        "{package} listens to {} and answers on port {port}.\n\n  \
         its work    {package}/src/{module}.rs\n  \
         its test    cargo test -p {package}\n  \
         run it      cargo xtask up, or docker compose up --build",
        listed(&plan.events)
    )
}

/// Returns the types of the events, for a sentence.
fn listed(events: &[EventSpec]) -> String {
    let names: Vec<_> = events.iter().map(|event| event.event_type).collect();
    scaffold::listed(&names)
}

/// One `use` for each event, sorted as rustfmt sorts them.
fn imports(events: &[EventSpec]) -> String {
    let mut modules = std::collections::BTreeMap::<&str, Vec<&str>>::new();
    for event in events {
        let (module, name) = event.rust_type.rsplit_once("::").unwrap_or(("common", event.rust_type));
        modules.entry(module).or_default().push(name);
    }
    modules
        .into_iter()
        .map(|(module, mut names)| {
            names.sort_unstable();
            match names.as_slice() {
                [one] => format!("use {module}::{one};\n"),
                names => format!("use {module}::{{{}}};\n", names.join(", ")),
            }
        })
        .collect()
}
