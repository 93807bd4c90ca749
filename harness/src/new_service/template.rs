//! What a new service consists of. The texts are in `templates/new-service/`, one for each file that is written.

use anyhow::{Context, Result};
use askama::Template;
use uuid::Uuid;

use super::{NewEvent, Plan};
use crate::scaffold::{Files, listed};

/// A text for the whole service.
macro_rules! text_of_the_plan {
    ($($name:ident = $path:literal;)*) => {$(
        #[derive(Template)]
        #[template(path = $path, escape = "none")]
        struct $name<'a> {
            plan: &'a Plan,
        }
    )*};
}

text_of_the_plan! {
    Contract = "new-service/contract.rs";
    Manifest = "new-service/manifest.toml";
    Main = "new-service/main.rs";
    Library = "new-service/lib.rs";
    Rules = "new-service/rules.rs";
    ReadModel = "new-service/read_model.rs";
    Http = "new-service/http.rs";
    Announcer = "new-service/announcer.rs";
    TestMain = "new-service/it/main.rs";
    TestRoutes = "new-service/it/routes.rs";
    TestConsumer = "new-service/it/consumer.rs";
    TestOpenapi = "new-service/it/openapi.rs";
    NextSteps = "new-service/next_steps.txt";
}

/// The wire form of one event.
#[derive(Template)]
#[template(path = "new-service/golden.json", escape = "none")]
struct Golden<'a> {
    plan: &'a Plan,
    event: &'a NewEvent,
    id: Uuid,
}

/// Returns every file of the service, and those of its events.
pub(super) fn files(plan: &Plan) -> Result<Files> {
    let (package, entity) = (&plan.member.package, &plan.entity);
    let mut files = Files::new();
    let mut add = |path: String, text: askama::Result<String>| {
        let text = text.with_context(|| format!("composing {path}"))?;
        files.insert(path, text);
        anyhow::Ok(())
    };
    add(format!("common/src/{entity}.rs"), Contract { plan }.render())?;
    for event in &plan.events {
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, event.event_type.as_bytes());
        let path = format!("common/tests/golden/{}.v1.json", event.event_type);
        add(path, Golden { plan, event, id }.render().map(|text| text + "\n"))?;
    }
    add(format!("{package}/Cargo.toml"), Manifest { plan }.render().map(|text| text + "\n"))?;
    add(format!("{package}/src/main.rs"), Main { plan }.render())?;
    add(format!("{package}/src/lib.rs"), Library { plan }.render())?;
    add(format!("{package}/src/{entity}.rs"), Rules { plan }.render())?;
    add(format!("{package}/src/{entity}_list.rs"), ReadModel { plan }.render())?;
    add(format!("{package}/src/http.rs"), Http { plan }.render())?;
    add(format!("{package}/src/announcer.rs"), Announcer { plan }.render())?;
    add(format!("{package}/tests/it/main.rs"), TestMain { plan }.render())?;
    add(format!("{package}/tests/it/routes.rs"), TestRoutes { plan }.render())?;
    add(format!("{package}/tests/it/consumer.rs"), TestConsumer { plan }.render())?;
    add(format!("{package}/tests/it/openapi.rs"), TestOpenapi { plan }.render())?;
    Ok(files)
}

/// Returns what there is now, and what to do with it.
pub(super) fn next_steps(plan: &Plan) -> Result<String> {
    Ok(NextSteps { plan }.render()?)
}

impl Plan {
    /// Returns the first event: what the consumer listens to, and what examples are about.
    fn first(&self) -> &NewEvent {
        &self.events[0]
    }

    /// Returns the only event, where a `match` would have a single arm.
    fn only(&self) -> Option<&NewEvent> {
        self.events.first().filter(|_| self.events.len() == 1)
    }

    /// Returns the types of the events, for a sentence.
    fn listed(&self) -> String {
        let types: Vec<_> = self.events.iter().map(|event| event.event_type.as_str()).collect();
        listed(&types)
    }
}
