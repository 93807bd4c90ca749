//! `/{{ plan.path }}`: takes commands and shows what became of them. It translates and decides nothing.

use axum::extract::State;
use axum::http::StatusCode;
use common::{{ plan.entity }}::{{ plan.aggregate }}Event;
use jetkit::http::{
    Body, History, HistoryEntry, HistoryRequest, HttpApi, IfMatch, MinSequence, OrProblem, Page, PageQuery, Path, Problem,
    RequestCause, Routes, Versioned,
};
use jetkit::{EntityId, EventStore, ReadModel, Seen};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::{{ plan.entity }}::{ {{ plan.aggregate }}, {{ plan.aggregate }}Rejection, Record{{ plan.aggregate }} };
use crate::{{ plan.entity }}_list::{ {{ plan.aggregate }}List, {{ plan.aggregate }}Summary };

/// What the routes work with.
#[derive(Clone)]
pub struct Api {
    /// Where commands go.
    pub store: EventStore<{{ plan.aggregate }}>,
    /// What readers see.
    pub list: ReadModel<{{ plan.aggregate }}List>,
}

impl HttpApi for Api {
    fn described() -> Routes<Self> {
        Routes::new().routes(routes!(list)).routes(routes!(show, record)).routes(routes!(history))
    }
}

/// What happened
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", deny_unknown_fields)]
#[schema(example = json!({"type": "{{ plan.first().variant }}", "quantity": 5}))]
enum RecordBody {
{%- for event in plan.events %}
    {{ event.variant }} {
        /// How many
        #[schema(minimum = 1, maximum = 1_000_000)]
        quantity: u32,
    },
{%- endfor %}
}

impl RecordBody {
    /// Returns the command that it stands for.
    fn command(self, {{ plan.entity }}_id: EntityId) -> Record{{ plan.aggregate }} {
{%- if let Some(event) = plan.only() %}
        let Self::{{ event.variant }} { quantity } = self;
        Record{{ plan.aggregate }}::{{ event.variant }} { {{ plan.entity }}_id, quantity }
{%- else %}
        match self {
{%- for event in plan.events %}
            Self::{{ event.variant }} { quantity } => Record{{ plan.aggregate }}::{{ event.variant }} { {{ plan.entity }}_id, quantity },
{%- endfor %}
        }
{%- endif %}
    }
}

/// What everything that happened adds up to
#[derive(Debug, Serialize, ToSchema)]
struct {{ plan.aggregate }}Body {
    id: EntityId,
{%- for event in plan.events %}
    {{ event.name }}: u64,
{%- endfor %}
    version: u64,
}

impl From<{{ plan.aggregate }}Summary> for {{ plan.aggregate }}Body {
    fn from(summary: {{ plan.aggregate }}Summary) -> Self {
        let {{ plan.aggregate }}Summary { {{ plan.entity }}_id: id, {% for event in plan.events %}{{ event.name }}, {% endfor %}version } = summary;
        Self { id, {% for event in plan.events %}{{ event.name }}, {% endfor %}version }
    }
}

/// One event of the history
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type")]
enum {{ plan.aggregate }}Entry {
{%- for event in plan.events %}
    #[serde(rename = "{{ event.rust_type }}")]
    {{ event.variant }} { quantity: u32 },
{%- endfor %}
}

impl From<{{ plan.aggregate }}Event> for {{ plan.aggregate }}Entry {
    fn from(event: {{ plan.aggregate }}Event) -> Self {
{%- if let Some(event) = plan.only() %}
        let {{ plan.aggregate }}Event::{{ event.variant }}(event) = event;
        Self::{{ event.variant }} { quantity: event.quantity }
{%- else %}
        match event {
{%- for event in plan.events %}
            {{ plan.aggregate }}Event::{{ event.variant }}(event) => Self::{{ event.variant }} { quantity: event.quantity },
{%- endfor %}
        }
{%- endif %}
    }
}

/// Records what happened: {{ plan.listed() }}. With an `Idempotency-Key` a repeat records nothing more.
#[utoipa::path(
    post,
    path = "/{{ plan.path }}/{id}",
    params(("id" = EntityId, Path, description = "Whose history it belongs to"), IfMatch, RequestCause),
    request_body = RecordBody,
    responses((status = 200, description = "What it adds up to now", body = Versioned<{{ plan.aggregate }}Body>))
)]
async fn record(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    IfMatch(version): IfMatch,
    RequestCause(cause): RequestCause,
    Body(body): Body<RecordBody>,
) -> Result<Versioned<{{ plan.aggregate }}Body>, Problem> {
    let executed = api.store.execute_at(&id, version, &body.command(id.clone()), &cause).await;
    let executed = executed.or_problem(|reason| refusal(&reason))?;
    let (version, state) = (executed.version, executed.state);
    let body = {{ plan.aggregate }}Body { id, {% for event in plan.events %}{{ event.name }}: state.{{ event.name }}, {% endfor %}version };
    Ok(Versioned::ok(version, executed.sequence, body))
}

/// One by its id
#[utoipa::path(
    get,
    path = "/{{ plan.path }}/{id}",
    params(("id" = EntityId, Path, description = "Which one"), MinSequence),
    responses(
        (status = 200, description = "What it adds up to", body = Versioned<{{ plan.aggregate }}Body>),
        (status = 404, description = "Nothing ever happened to it"),
    )
)]
async fn show(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    min_sequence: MinSequence,
) -> Result<Versioned<{{ plan.aggregate }}Body>, Problem> {
    let wanted = id.clone();
    let list = api.list.at(min_sequence).await?;
    let summary = list.read(move |tables| {{ plan.aggregate }}Summary::find(tables, &wanted)).await?;
    let Seen { value: summary, sequence } = summary.found().ok_or_else(|| unknown(&id))?;
    Ok(Versioned::ok(summary.version, sequence, summary.into()))
}

/// All of them, oldest first
#[utoipa::path(
    get,
    path = "/{{ plan.path }}",
    params(PageQuery, MinSequence),
    responses((status = 200, description = "A page of them", body = Page<{{ plan.aggregate }}Body>))
)]
async fn list(
    State(api): State<Api>,
    page: PageQuery,
    min_sequence: MinSequence,
) -> Result<Seen<Page<{{ plan.aggregate }}Body>>, Problem> {
    let list = api.list.at(min_sequence).await?;
    let found = list.read(move |tables| {{ plan.aggregate }}Summary::list(tables, &page)).await?;
    Ok(found.map(|page| page.map({{ plan.aggregate }}Body::from)))
}

/// What happened to one, from its first event
#[utoipa::path(
    get,
    path = "/{{ plan.path }}/{id}/events",
    params(("id" = EntityId, Path, description = "Which one"), HistoryRequest, MinSequence),
    responses(
        (status = 200, description = "Its events, oldest first: all of them, or as many as one answer has", body = HistoryEntry<{{ plan.aggregate }}Entry>),
        (status = 404, description = "Nothing ever happened to it"),
    )
)]
async fn history(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    min_sequence: MinSequence,
    asked: HistoryRequest,
) -> Result<History<{{ plan.aggregate }}Entry>, Problem> {
    api.list.at(min_sequence).await?;
    asked.answer(&api.store, &id).await?.ok_or_else(|| unknown(&id))
}

fn unknown(id: &EntityId) -> Problem {
    Problem::not_found(format!("There is no {{ plan.words }} {id}"))
}

fn refusal(reason: &{{ plan.aggregate }}Rejection) -> Problem {
    match reason {
        {{ plan.aggregate }}Rejection::Quantity => Problem::invalid(reason.to_string()),
        {{ plan.aggregate }}Rejection::Total => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "total-too-large", "Total too large").detail(reason.to_string())
        }
    }
}
