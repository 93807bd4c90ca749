//! `cargo xtask new-service`: writes the events of a new aggregate into `common`, and a service around it: rules, a read
//! model, routes, a consumer, and the tests of each.

mod template;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use xtask::{cargo, run};

use crate::Workspace;
use crate::scaffold::{self, Files, NewMember, after_last};

/// What the new service is.
#[derive(Debug, Clone, Args)]
pub struct NewService {
    /// Its package, durable and container, such as loyalty-service
    pub name: String,

    /// What it keeps the history of, which is the first word of its events' types, such as points
    #[arg(long)]
    pub aggregate: String,

    /// What can happen to the aggregate, such as points.earned,points.spent
    #[arg(long, value_name = "TYPES", value_delimiter = ',', required = true)]
    pub events: Vec<String>,
}

/// A checked [`NewService`], with everything that the written files need.
#[derive(Debug)]
struct Plan {
    /// Its package and durable, `loyalty-service`, and its port.
    member: NewMember,
    /// `loyalty_service`: the package as a crate in Rust.
    library: String,
    /// `gift_card`: the entity of its events, and the module with its rules.
    entity: String,
    /// `GiftCard`: the type with its rules.
    aggregate: String,
    /// `gift card`: in a sentence.
    words: String,
    /// `gift-card`: in a path.
    path: String,
    events: Vec<NewEvent>,
}

/// One thing that can happen.
#[derive(Debug)]
struct NewEvent {
    /// `gift_card.paid_out`: on the wire.
    event_type: String,
    /// `paid_out`: a field's name.
    name: String,
    /// `PaidOut`: a variant's name.
    variant: String,
    /// `GiftCardPaidOut`: the type of its data.
    rust_type: String,
    /// `paid out`: in a sentence.
    words: String,
}

/// Names that the written files use: crates, modules, and types in lower case.
const RESERVED: &str = "announcer anyhow api axum common consumer entity event jetkit handler http lib main openapi \
    problem recorded routes serde serde_json service tempfile thiserror tokio tokio_util tracing utoipa utoipa_axum \
    chrono email_address icu_properties idna rust_decimal uuid \
    aggregate body event_set event_store handler_result history history_entry history_request http_api if_match json list \
    min_sequence or_problem order out_of_turn page page_query path projection read_model request_cause row seen state \
    status_code tables to_schema versioned \
    clone copy debug default deserialize drop eq err from into iterator none ok option ord partial_eq result send serialize \
    some string sync vec";

/// Verbs whose past participle does not end in `-ed`.
const IRREGULAR: &str = "become been begun bent bet bid bitten blown borne bought bound broken brought built burnt burst \
    caught chosen come cost cut dealt done drawn driven eaten fallen fed felt fought found forbidden forgiven forgotten \
    frozen given gone got gotten ground grown had heard held hidden hit hung hurt kept known laid lain learnt led left lent \
    lit lost made meant met mistaken outbid overdrawn overridden paid proven put read rebuilt reset rewritten ridden \
    risen run said seen sent set shaken shown shut sold sought spent split spoken spread spun stolen stood struck stuck \
    sung sunk swept swung taken taught thrown told torn understood undone unpaid upheld withdrawn withheld woken won worn \
    wound written";

/// Checks everything first, then writes; so a refusal leaves nothing half done. At the end, the service's own test
/// writes its OpenAPI document.
pub fn new_service(workspace: &Workspace, wanted: &NewService) -> Result<()> {
    let plan = Plan::check(workspace, wanted)?;
    let package = &plan.member.package;
    let mut files = template::files(&plan)?;
    plan.member.enter(workspace, &mut files)?;
    plan.enter_contract(workspace, &mut files)?;
    scaffold::write(workspace, &files, &[package, "common"])?;
    say!("compiling {package}, whose test writes {package}/openapi.json");
    run(cargo()
        .args(["test", "--quiet", "--package", package, "--test", "it", "openapi"])
        .current_dir(&workspace.root)
        .env("UPDATE_OPENAPI", "1"))?;
    say!("\n{}", template::next_steps(&plan)?);
    Ok(())
}

impl Plan {
    fn check(workspace: &Workspace, wanted: &NewService) -> Result<Self> {
        let library = scaffold::words(&wanted.name, '-', "a service")?.join("_");
        scaffold::ensure_free(&library, RESERVED)?;
        let entity = &wanted.aggregate;
        let words = scaffold::words(entity, '_', "an aggregate")?;
        let file = format!("common/src/{entity}.rs");
        ensure!(
            !common::catalog().entities().contains(entity.as_str()) && !workspace.root.join(&file).exists(),
            "{entity} is in the contract already; choose another aggregate, or add events to it by hand"
        );
        scaffold::ensure_free(entity, RESERVED)?;
        let aggregate = scaffold::camel_case(&words);
        let mut events: Vec<NewEvent> = Vec::new();
        for event_type in &wanted.events {
            let event = NewEvent::check(event_type.trim(), entity, &aggregate)?;
            if !events.iter().any(|other| other.rust_type == event.rust_type) {
                events.push(event);
            }
        }
        let member = NewMember::check(workspace, wanted.name.clone())?;
        let (words, path) = (words.join(" "), words.join("-"));
        Ok(Self { member, library, entity: entity.clone(), aggregate, words, path, events })
    }

    /// Adds to the files the list of all events, with the new ones in it.
    fn enter_contract(&self, workspace: &Workspace, files: &mut Files) -> Result<()> {
        scaffold::edit(workspace, files, "common/src/lib.rs", |lib| {
            let Self { entity, events, .. } = self;
            let types: Vec<_> = events.iter().map(|event| event.rust_type.as_str()).collect();
            let lib = after_last(lib, "pub mod ", &format!("pub mod {entity};\n"))?;
            let lib = after_last(&lib, "use ", &format!("use {entity}::{{{}}};\n", types.join(", ")))?;
            let start = lib.find("pub enum ShopEvent {").context("no ShopEvent")?;
            let end = lib[start..].find("\n    }\n").context("ShopEvent has no end")? + start + 1;
            let variants: String =
                types.iter().flat_map(|name| ["        ", name, "(", name, "),\n"]).collect();
            Ok(format!("{}{variants}{}", &lib[..end], &lib[end..]))
        })
    }
}

impl NewEvent {
    fn check(event_type: &str, entity: &str, aggregate: &str) -> Result<Self> {
        let name = event_type.strip_prefix(entity).and_then(|rest| rest.strip_prefix('.'));
        let Some(name) = name.filter(|name| !name.contains('.')) else {
            bail!(
                "{event_type:?} is no event of {entity}: its type is {entity}.<what happened>, such as {entity}.added"
            );
        };
        let words = scaffold::words(name, '_', "an event")?;
        let is_past =
            |word: &&str| word.ends_with("ed") || IRREGULAR.split_whitespace().any(|past| past == *word);
        ensure!(
            words.iter().any(is_past),
            "{event_type} does not say what happened: write its verb in the past tense, as in {entity}.added"
        );
        // The rules' tests are told in `given`, and in functions that are named after the events.
        scaffold::ensure_free(name, "given")?;
        let variant = scaffold::camel_case(&words);
        let rust_type = format!("{aggregate}{variant}");
        let catalog = common::catalog();
        if let Some(taken) =
            catalog.events().iter().find(|event| event.rust_type.ends_with(&format!("::{rust_type}")))
        {
            bail!(
                "{event_type} would be called {rust_type}, as {} is; choose another name",
                taken.event_type
            );
        }
        let words = words.join(" ");
        Ok(Self { event_type: event_type.to_owned(), name: name.to_owned(), variant, rust_type, words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, aggregate: &str, events: &str) -> Result<Plan> {
        let events = events.split(',').map(str::to_owned).collect();
        let wanted = NewService { name: name.into(), aggregate: aggregate.into(), events };
        Plan::check(&Workspace::find().unwrap(), &wanted)
    }

    fn refusal(name: &str, aggregate: &str, events: &str) -> String {
        check(name, aggregate, events).unwrap_err().to_string()
    }

    #[test]
    fn a_name_that_would_not_compile_is_refused() {
        for name in ["", "Loyalty", "1st", "a--b", "a-", "../up", "match", "test", "serde", "loyalty_service"]
        {
            let refusal = refusal(name, "points", "points.earned");
            assert!(refusal.contains("name"), "{name}: {refusal}");
        }
        for aggregate in
            ["", "Points", "gift-card", "gift__card", "type", "event", "page", "page_query", "a.b"]
        {
            let refusal = refusal("loyalty", aggregate, &format!("{aggregate}.earned"));
            assert!(refusal.contains("name"), "{aggregate}: {refusal}");
        }
    }

    #[test]
    fn nothing_is_written_over_a_service_or_an_entity_that_is_there() {
        for name in ["order-service", "consumer-email", "harness"] {
            assert!(refusal(name, "points", "points.earned").contains("already"), "{name}");
        }
        // The last two are files of the contract and not entities.
        for aggregate in ["order", "stock", "money", "text"] {
            let refusal = refusal("loyalty", aggregate, &format!("{aggregate}.earned"));
            assert!(refusal.contains("already"), "{aggregate}: {refusal}");
        }
    }

    #[test]
    fn an_event_type_is_the_aggregate_and_what_happened_to_it() {
        for event in [
            "",
            "points",
            "points.",
            "earned",
            "order.earned",
            "points.a.earned",
            "points.Earned",
            "PointsEarned",
        ] {
            let refusal = refusal("loyalty", "points", &format!("points.spent,{event}"));
            assert!(refusal.contains("event"), "{event}: {refusal}");
        }
        for event in ["points.earn", "points.balance", "points.earning"] {
            let refusal = refusal("loyalty", "points", &format!("points.spent,{event}"));
            assert!(refusal.contains("past tense") && refusal.contains(event), "{event}: {refusal}");
        }
        assert!(refusal("loyalty", "points", "points.given").contains("choose another"));
        for event in ["points.earned", "points.paid_out", "points.status_changed", "points.sent"] {
            assert!(check("loyalty", "points", event).is_ok(), "{event}");
        }
    }

    #[test]
    fn an_event_is_not_named_as_another_one_is() {
        // The file of `order.placed` has an `OrderPlaced`, and another file could have one too: the list of all events not.
        let refusal = NewEvent::check("stock.received", "stock", "Stock").unwrap_err().to_string();
        assert!(refusal.contains("StockReceived") && refusal.contains("choose another"), "{refusal}");
    }

    #[test]
    fn names_follow_from_what_is_wanted() {
        let plan =
            check("gift-cards", "gift_card", "gift_card.paid_out, gift_card.paid_in,gift_card.paid_out")
                .unwrap();
        assert_eq!((plan.library.as_str(), plan.aggregate.as_str()), ("gift_cards", "GiftCard"));
        assert_eq!((plan.words.as_str(), plan.path.as_str()), ("gift card", "gift-card"));
        let types: Vec<_> = plan.events.iter().map(|event| event.rust_type.as_str()).collect();
        assert_eq!(types, ["GiftCardPaidOut", "GiftCardPaidIn"]);
    }
}
