//! Dead letters to look at, to try again and to put away; and the page for people.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jetkit::http::{
    Body, HttpApi, MinSequence, Object, Page, PageQuery, Path, Problem, Query, Routes, html_page,
};
use jetkit::{Catalog, DeadLetter, OpenCircuit, RedriveError, Seen};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use crate::archive::Archive;
use crate::dead_letters::{Entry, Filter, Status};
use crate::edit::with_data;

/// The most that one request redrives.
const MAX_REDRIVES: usize = 1_000;

/// What the routes work with.
#[derive(Clone)]
pub struct Api {
    /// The dead letters.
    pub archive: Archive,
    /// What is redriven with new data must be an event of these.
    pub catalog: Arc<Catalog>,
}

impl HttpApi for Api {
    fn described() -> Routes<Self> {
        Routes::new()
            .route("/", get(page))
            .routes(routes!(list))
            .routes(routes!(redrive_many))
            .routes(routes!(show, dismiss))
            .routes(routes!(redrive))
            .routes(routes!(circuits))
    }
}

/// The consumers that wait for something that is down.
#[derive(Debug, Serialize, ToSchema)]
struct Circuits {
    circuits: Vec<OpenCircuit>,
}

/// A dead letter with everything that is known about it.
#[derive(Debug, Serialize, ToSchema)]
struct Whole {
    #[serde(flatten)]
    entry: Entry,
    /// The error and what caused it, outermost first.
    errors: Vec<String>,
    service_version: String,
    headers: BTreeMap<String, Vec<String>>,
    /// How many more headers there were than a dead letter has room for.
    headers_dropped: usize,
    payload: Payload,
}

/// The failed message's body: always as base64, as text if it is text, as JSON if it is JSON.
#[derive(Debug, Serialize, ToSchema)]
struct Payload {
    bytes: usize,
    #[schema(value_type = Value)]
    json: Option<Box<RawValue>>,
    text: Option<String>,
    base64: String,
}

impl Payload {
    fn of(payload: &[u8]) -> Self {
        Self {
            bytes: payload.len(),
            json: serde_json::from_slice(payload).ok(),
            text: std::str::from_utf8(payload).ok().map(str::to_owned),
            base64: BASE64_STANDARD.encode(payload),
        }
    }
}

/// With what to try again
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Mended {
    /// New data for the event that failed; or a whole new event, where what failed is none
    #[schema(value_type = Option<Value>)]
    data: Option<Box<RawValue>>,
}

/// Which ones to try again
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"filter": {"consumer": "consumer-email", "class": "exhausted"}}))]
struct RedriveMany {
    #[schema(value_type = Filter)]
    filter: Object<Filter>,
}

/// What became of a request to redrive many.
#[derive(Debug, Serialize, ToSchema)]
struct RedrivenMany {
    redriven: usize,
    /// How many more there are than one request redrives.
    left: usize,
}

async fn page() -> impl IntoResponse {
    html_page(include_str!("page.html"))
}

/// What is open or redriven, or what has the `status` asked for; the latest first, by when it was given up first
#[utoipa::path(
    get,
    path = "/dead-letters",
    params(ListQuery, PageQuery, MinSequence),
    responses((status = 200, description = "A page of them", body = Page<Entry>))
)]
async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
    page: PageQuery,
    min_sequence: MinSequence,
) -> Result<Seen<Page<Entry>>, Problem> {
    let filter = Filter::from(query);
    let letters = api.archive.at(min_sequence).await?;
    Ok(letters.read(move |tables| Entry::list(tables, filter, &page)).await?)
}

/// A dead letter, with the message that failed
#[utoipa::path(
    get,
    path = "/dead-letters/{id}",
    params(("id" = String, Path, description = "As the list says")),
    responses(
        (status = 200, description = "All that is known of it", body = Whole),
        (status = 404, description = "There is no such dead letter"),
    )
)]
async fn show(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Whole>, Problem> {
    let (entry, letter) = api.find(&id).await?;
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, values) in letter.original.headers.iter() {
        headers.entry(name.to_string()).or_default().extend(values.iter().map(ToString::to_string));
    }
    let payload = Payload::of(&letter.original.payload);
    Ok(Json(Whole {
        entry,
        errors: letter.errors,
        service_version: letter.service_version,
        headers,
        headers_dropped: letter.original.headers_dropped,
        payload,
    }))
}

/// Sends it back to the consumer that failed, and to no other; with new data if the body has some
#[utoipa::path(
    post,
    path = "/dead-letters/{id}/redrive",
    params(("id" = String, Path, description = "As the list says")),
    request_body = Option<Mended>,
    responses(
        (status = 202, description = "It is on its way to its consumer", body = Entry),
        (status = 404, description = "There is no such dead letter"),
        (status = 409, description = "It is on its way already, and new data would not be read"),
    )
)]
async fn redrive(
    State(api): State<Api>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<impl IntoResponse, Problem> {
    let mended = match body.as_ref() {
        b"" => Mended::default(),
        body => Body::read(body)?.0,
    };
    let (entry, letter) = api.find(&id).await?;
    let payload = match mended.data {
        None => None,
        // The consumer handles one redrive after each failure: this one's data would not be read.
        Some(_) if entry.status == Status::Redriven => return Err(under_way()),
        Some(data) => {
            let edited = with_data(&letter.original.payload, &data, &api.catalog)
                .map_err(|error| Problem::invalid(error.to_string()))?;
            Some(Bytes::from(edited))
        }
    };
    let sequence = api.archive.redrive(&letter, payload).await.map_err(not_redriven)?;
    api.archive.heard_of(sequence).await;
    api.entry(&id).await.map(|entry| (StatusCode::ACCEPTED, Json(entry)))
}

/// Sends back everything open that the filter takes, the oldest first, up to a limit
#[utoipa::path(
    post,
    path = "/dead-letters/redrive",
    request_body = RedriveMany,
    responses((status = 202, description = "They are on their way", body = RedrivenMany))
)]
async fn redrive_many(
    State(api): State<Api>,
    Body(RedriveMany { filter: Object(filter) }): Body<RedriveMany>,
) -> Result<impl IntoResponse, Problem> {
    let filter = Filter { status: Some(Status::Open), ..filter };
    let open = api.archive.read(|tables| Entry::oldest(tables, filter, MAX_REDRIVES)).await?;
    let (open, total) = open.value;
    let left = total - open.len();
    let (mut redriven, mut last) = (0, 0);
    for entry in open {
        let letter = api.archive.letter(entry.dlq_sequence).await.map_err(Problem::unavailable)?;
        if let Some(letter) = letter {
            last = api.archive.redrive(&letter, None).await.map_err(not_redriven)?.max(last);
            redriven += 1;
        }
    }
    api.archive.heard_of(last).await;
    Ok((StatusCode::ACCEPTED, Json(RedrivenMany { redriven, left })))
}

/// Puts it away. It stays on the stream, and under its id, but is not listed any more
#[utoipa::path(
    delete,
    path = "/dead-letters/{id}",
    params(("id" = String, Path, description = "As the list says")),
    responses(
        (status = 204, description = "It is put away"),
        (status = 404, description = "There is no such dead letter"),
    )
)]
async fn dismiss(State(api): State<Api>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let entry = api.entry(&id).await?;
    if entry.status != Status::Dismissed {
        let (_, letter) = api.find(&id).await?;
        api.archive.dismiss(&letter).await.map_err(Problem::unavailable)?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The consumers that wait until what they depend on is back: they make no dead letters meanwhile
#[utoipa::path(
    get,
    path = "/circuits",
    responses((status = 200, description = "Those whose circuit is open", body = Circuits))
)]
async fn circuits(State(api): State<Api>) -> Result<Json<Circuits>, Problem> {
    let circuits = api.archive.circuits().await.map_err(Problem::unavailable)?;
    Ok(Json(Circuits { circuits }))
}

impl Api {
    async fn entry(&self, id: &str) -> Result<Entry, Problem> {
        let id = id.to_owned();
        let entry = self.archive.read(move |tables| Entry::find(tables, &id)).await?;
        entry.value.ok_or_else(|| Problem::not_found("There is no such dead letter"))
    }

    async fn find(&self, id: &str) -> Result<(Entry, DeadLetter), Problem> {
        let entry = self.entry(id).await?;
        let letter = self.archive.letter(entry.dlq_sequence).await.map_err(Problem::unavailable)?;
        let letter =
            letter.ok_or_else(|| Problem::not_found("The stream does not hold this dead letter any more"))?;
        Ok((entry, letter))
    }
}

fn not_redriven(error: RedriveError) -> Problem {
    match error {
        RedriveError::UnderWay => under_way(),
        RedriveError::NotStored(error) => Problem::unavailable(error),
    }
}

fn under_way() -> Problem {
    Problem::new(StatusCode::CONFLICT, "already-redriven", "It was sent back already").detail(
        "It has not failed since, so its consumer would not read other data. If it fails again, it is open again.",
    )
}

/// [`Filter`] as a query string; other parameters there are the page's.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only what this consumer gave up
    consumer: Option<String>,
    /// Only events of this type
    #[serde(rename = "type")]
    event_type: Option<String>,
    /// Only failures of this class
    #[param(inline)]
    class: Option<jetkit::FailureClass>,
    /// Only what stands so
    #[param(inline)]
    status: Option<Status>,
}

impl From<ListQuery> for Filter {
    fn from(ListQuery { consumer, event_type, class, status }: ListQuery) -> Self {
        Self { consumer, event_type, class, status }
    }
}
