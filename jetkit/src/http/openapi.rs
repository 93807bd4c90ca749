//! The OpenAPI document of a service: what its handlers say about themselves, and what all routes have in common.
//!
//! A handler's `#[utoipa::path]` names what is its own: its parameters, its body, its answers. [`document`] adds the rest:
//! the refusals that the edge and the extractors give by themselves, the problem document in every one of them, the
//! headers of [`super::Versioned`], and the routes for health and metrics.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Map, Value, json};
use utoipa::PartialSchema;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::{OpenApi, RefOr};
use utoipa_axum::router::OpenApiRouter;

use super::html::html_page;
use super::problem::Problem;
use crate::{EntityId, ServiceInfo};

/// The HTTP API of a service: its routes, and what they work with.
pub trait HttpApi: Clone + Send + Sync + 'static {
    /// The routes, with what their `#[utoipa::path]` says of them.
    fn described() -> Routes<Self>;

    /// The routes, to be served ([`crate::Service::serve`]) or tested (`testing::Routes`).
    fn routes(self) -> Routes {
        Self::described().with_state(self)
    }

    /// What [`document`] makes the service's OpenAPI document from.
    fn openapi() -> OpenApi {
        Self::described().into_openapi()
    }
}

/// The document of a service with these routes, OpenAPI 3.1.
pub fn document(info: ServiceInfo, routes: &OpenApi) -> Value {
    let mut document = serde_json::to_value(routes).unwrap_or_default();
    document["info"] = json!({
        "title": info.name,
        "version": info.version,
        "description": format!(
            "{}\n\nA request's body is JSON, whatever its Content-Type says. A refusal is a problem (RFC 9457), and \
             nothing is written. Every answer has an `x-request-id`: the request's, or a new one.",
            info.description
        ),
        "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
    });
    if !document["paths"].is_object() {
        document["paths"] = json!({});
    }
    let mut bodies = BTreeSet::new();
    let items = document["paths"].as_object_mut().into_iter().flatten();
    for (path, item) in items {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            complete_operation(path, method, operation);
            let body = operation.pointer("/requestBody/content/application~1json/schema/$ref");
            bodies.extend(
                body.and_then(Value::as_str).and_then(|path| path.rsplit('/').next()).map(str::to_owned),
            );
        }
    }
    if let (Some(paths), Value::Object(own)) = (document["paths"].as_object_mut(), own_routes()) {
        paths.extend(own);
    }
    let schemas = &mut document["components"]["schemas"];
    if let Some(schemas) = schemas.as_object_mut() {
        close(schemas, &bodies);
        schemas.retain(|name, _| !name.starts_with(VERSIONED));
    }
    schemas["EntityId"] = serde_json::to_value(EntityId::schema()).unwrap_or_default();
    schemas["Problem"] = problem_schema();
    document
}

/// What the name of a [`super::Versioned`]'s schema begins with.
const VERSIONED: &str = "Versioned_";

/// The same for a [`super::Page`]'s.
const PAGE: &str = "Page_";

/// The same for a [`super::HistoryEntry`]'s.
const HISTORY: &str = "HistoryEntry_";

fn complete_operation(path: &str, method: &str, operation: &mut Value) {
    let slug: Vec<&str> = path.split(['/', '{', '}', '-']).filter(|part| !part.is_empty()).collect();
    operation["operationId"] = format!("{method}_{}", slug.join("_")).into();
    operation["tags"] = json!([slug.first().unwrap_or(&"page")]);

    for parameter in list(operation, "parameters").into_iter().flatten() {
        // A parameter is left out, not null.
        if let Some(kind) = parameter["schema"]["type"].as_array().and_then(|kinds| kinds.first()).cloned() {
            parameter["schema"]["type"] = kind;
        }
        if let Some(schema) = parameter.pointer("/schema/oneOf/0").cloned() {
            parameter["schema"] = schema;
        }
    }
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    let takes = |place: &str| parameters.iter().any(|parameter| parameter["in"] == place);
    let named = |name: &str| parameters.iter().any(|parameter| parameter["name"] == name);
    let (body, key) = (operation.get("requestBody").is_some(), named("Idempotency-Key"));
    let shown =
        operation.pointer("/responses/200/content/application~1json/schema/$ref").and_then(Value::as_str);
    let is_history = shown.is_some_and(|schema| schema.contains(HISTORY));
    let Some(answers) = operation["responses"].as_object_mut() else { return };
    let mut may = |given: bool, status: &str, why: &str| {
        if given && !answers.contains_key(status) {
            answers.insert(status.to_owned(), json!({ "description": why }));
        }
    };
    may(true, "400", "The request cannot be understood: a header, a parameter, or a body that is not JSON");
    may(is_history, "409", "`ahead-of-history`: there is no such version to begin after");
    may(named("If-Match"), "412", "It is not at the version that If-Match names");
    may(body || key, "413", "The body is larger than 256 KiB");
    may(
        body || key || takes("path"),
        "422",
        "The request is understood and makes no sense; or its Idempotency-Key was used for another",
    );
    may(true, "503", "Not now; the same request may work soon");
    for (status, answer) in answers.iter_mut() {
        if status.starts_with(['4', '5']) {
            is_problem(answer);
        } else if let Some(schema) = answer.pointer_mut("/content/application~1json/schema") {
            let name = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
            if let Some(body) = name.strip_prefix(VERSIONED) {
                *schema = json!({ "$ref": format!("#/components/schemas/{body}") });
                has_position(answer);
            } else if name.starts_with(PAGE) {
                has_next(answer);
            } else if name.starts_with(HISTORY) {
                *schema = json!({ "type": "array", "items": schema });
                answer["content"]["text/event-stream"] = json!({ "schema": {
                    "type": "string",
                    "description": "With `Accept: text/event-stream`: past events, then new ones as they happen. `id` is \
                                    the version, `event` the type, `data` an entry of the list",
                } });
                has_next(answer);
            }
        }
        if status == "503" {
            answer["headers"]["Retry-After"] = json!({ "description": "In how many seconds", "schema": { "type": "integer", "minimum": 1 } });
        }
    }
}

/// Says of the variants of request bodies that they take no other fields. (utoipa says it of structs.)
fn close(schemas: &mut Map<String, Value>, bodies: &BTreeSet<String>) {
    for body in bodies {
        let variants = schemas.get_mut(body).and_then(|schema| list(schema, "oneOf"));
        for variant in variants.into_iter().flatten().filter(|variant| variant["properties"].is_object()) {
            variant["additionalProperties"] = false.into();
        }
    }
}

/// A list that is there. (Indexing would write a null where there is none.)
fn list<'a>(parent: &'a mut Value, name: &str) -> Option<&'a mut Vec<Value>> {
    parent.get_mut(name)?.as_array_mut()
}

fn is_problem(answer: &mut Value) {
    answer["content"] =
        json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
}

fn has_position(answer: &mut Value) {
    answer["headers"]["ETag"] = json!({
        "description": "The entity's version, for If-Match",
        "schema": { "type": "string", "pattern": "^\"[0-9]+\"$" },
    });
    answer["headers"]["Event-Sequence"] = json!({
        "description": "The position on the log, for min_sequence",
        "schema": { "type": "integer", "format": "int64", "minimum": 0 },
    });
}

fn has_next(answer: &mut Value) {
    answer["headers"]["Link"] = json!({
        "description": "Where to go on (RFC 8288): `<…>; rel=\"next\"`; absent at the end",
        "schema": { "type": "string" },
    });
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "description": "What is wrong (RFC 9457). Some problems have further members.",
        "required": ["type", "title", "status"],
        "properties": {
            "type": { "type": "string", "pattern": "^urn:problem:[a-z-]+$", "description": "Stable: programs tell problems apart by it" },
            "title": { "type": "string" },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string", "description": "What is wrong this time" },
            "request_id": { "type": "string", "description": "The same as x-request-id: what the service's log calls it" },
        },
        "example": { "type": "urn:problem:not-found", "title": "Not found", "status": 404, "request_id": "0190…" },
    })
}

/// What every service serves beside its own.
fn own_routes() -> Value {
    let text = json!({ "text/plain": { "schema": { "type": "string" } } });
    let report = json!({ "application/json": { "schema": {
        "type": "object",
        "required": ["ready", "checks"],
        "properties": {
            "ready": { "type": "boolean" },
            "checks": { "type": "object", "additionalProperties": {
                "type": "object",
                "required": ["ready", "detail"],
                "properties": { "ready": { "type": "boolean" }, "detail": { "type": "string" } },
            } },
        },
    } } });
    let route = |id: &str, summary: &str, answers: Value| {
        json!({ "get": {
            "operationId": id, "tags": ["service"], "summary": summary, "responses": answers,
        } })
    };
    json!({
        "/health/live": route("get_health_live", "Whether everything that should run does", json!({
            "200": { "description": "It does", "content": text },
            "503": { "description": "A part has failed, and the process is ending", "content": text },
        })),
        "/health/ready": route("get_health_ready", "Whether it can do its work, and what each part says", json!({
            "200": { "description": "It can", "content": report },
            "503": { "description": "Not yet, or not now", "content": report },
        })),
        "/metrics": route("get_metrics", "Metrics, for Prometheus", json!({
            "200": { "description": "In the text format", "content": text },
        })),
    })
}

/// `/openapi.json` and, for people, `/docs`.
pub(crate) fn pages(document: &Value) -> axum::Router {
    let json = bytes::Bytes::from(document.to_string());
    let json = move || async move { ([(header::CONTENT_TYPE, "application/json")], json.clone()) };
    let page = || async { html_page(include_str!("docs.html")).into_response() };
    axum::Router::new().route("/openapi.json", get(json)).route("/docs", get(page))
}

/// The query parameters that each documented route takes.
#[derive(Debug, Clone)]
pub(super) struct KnownParameters(Arc<HashMap<(Method, String), BTreeSet<String>>>);

impl KnownParameters {
    pub(super) fn of(routes: &OpenApi) -> Self {
        let mut known = HashMap::new();
        for (path, item) in &routes.paths.paths {
            for (method, operation) in operations(item) {
                let names = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
                    RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => {
                        Some(parameter.name.clone())
                    }
                    _ => None,
                });
                known.insert((method, path.clone()), names.collect());
            }
        }
        Self(Arc::new(known))
    }

    /// 400 for a parameter that the route's document does not name. A route without a document takes any.
    pub(super) async fn check(self, request: Request, next: Next) -> Response {
        match self.unknown(&request) {
            None => next.run(request).await,
            Some(unknown) => {
                let unknown: String = unknown.chars().take(80).collect();
                Problem::bad_request(format!("There is no query parameter {unknown:?} here")).into_response()
            }
        }
    }

    fn unknown(&self, request: &Request) -> Option<String> {
        let query = request.uri().query().filter(|query| !query.is_empty())?;
        let route = request.extensions().get::<MatchedPath>()?.as_str();
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let known = self.0.get(&(method.clone(), route.to_owned()))?;
        let pairs = form_urlencoded::parse(query.as_bytes());
        pairs.map(|(name, _)| name.into_owned()).find(|name| !known.contains(name))
    }
}

fn operations(item: &PathItem) -> impl Iterator<Item = (Method, &Operation)> {
    [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::PATCH, &item.patch),
        (Method::DELETE, &item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

/// Routes with what their handlers say about themselves; [`utoipa_axum::routes!`] makes them.
pub type Routes<S = ()> = OpenApiRouter<S>;
