//! `/users`.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use common::user::{UserEvent, UserStatus};
use jetkit::http::{
    Body, History, HistoryEntry, HistoryRequest, IfMatch, MinSequence, OrProblem, Page, PageQuery, Path,
    Problem, Query, RequestCause, Versioned,
};
use jetkit::{Cause, EntityId, ExpectedVersion, Seen};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use crate::user::{Profile, User, UserCommand, UserRejection};
use crate::user_list::UserSummary;

/// A user to create
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"username": "alice", "email": "alice@example.com"}))]
pub(super) struct NewUser {
    #[schema(min_length = 1, max_length = 64)]
    username: String,
    #[schema(format = "email", max_length = 254)]
    email: String,
}

/// What is to change, at least one of them
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": "alice@example.org"}))]
pub(super) struct UserChanges {
    #[schema(min_length = 1, max_length = 64)]
    username: Option<String>,
    #[schema(format = "email", max_length = 254)]
    email: Option<String>,
}

/// What the user is from now on
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"status": "Suspended"}))]
pub(super) struct NewStatus {
    status: UserStatus,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Only users of this status
    #[param(inline)]
    status: Option<UserStatus>,
    /// Only users with this in their name or address, in any case
    #[serde(default)]
    search: String,
}

/// A user
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UserBody {
    /// Under the name that every entity's has, and under the one that events use.
    id: EntityId,
    user_id: EntityId,
    username: String,
    email: String,
    status: UserStatus,
    version: u64,
}

impl UserBody {
    fn new(profile: Profile, version: u64) -> Self {
        Self {
            id: profile.user_id.clone(),
            user_id: profile.user_id,
            username: profile.username,
            email: profile.email,
            status: profile.status,
            version,
        }
    }

    fn of(user: &User, version: u64) -> Option<Self> {
        Some(Self::new(user.profile()?.clone(), version))
    }
}

impl From<UserSummary> for UserBody {
    fn from(UserSummary { profile, version }: UserSummary) -> Self {
        Self::new(profile, version)
    }
}

/// One event of a user's history
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type")]
pub(super) enum UserEntry {
    #[serde(rename = "UserCreated")]
    Created { username: String, email: String },
    #[serde(rename = "UserUpdated")]
    Updated {
        #[serde(skip_serializing_if = "Option::is_none")]
        username: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        email: Option<String>,
    },
    #[serde(rename = "UserStatusChanged")]
    StatusChanged { status: UserStatus },
}

impl From<UserEvent> for UserEntry {
    fn from(event: UserEvent) -> Self {
        match event {
            UserEvent::Created(created) => Self::Created { username: created.username, email: created.email },
            UserEvent::Updated(updated) => Self::Updated { username: updated.username, email: updated.email },
            UserEvent::StatusChanged(changed) => Self::StatusChanged { status: changed.status },
        }
    }
}

/// Creates a user
#[utoipa::path(
    post,
    path = "/users",
    params(RequestCause),
    request_body = NewUser,
    responses(
        (status = 201, description = "The user is there", body = Versioned<UserBody>,
         headers(("Location" = String, description = "Where it is"))),
        (status = 409, description = "`user-exists`"),
    )
)]
pub(super) async fn create(
    State(api): State<Api>,
    cause: RequestCause,
    Body(NewUser { username, email }): Body<NewUser>,
) -> Result<impl IntoResponse, Problem> {
    let user_id = cause.derive_entity_id();
    let command = UserCommand::Create { user_id: user_id.clone(), username, email };
    let created = execute(&api, &user_id, ExpectedVersion::Any, &command, &cause.0).await?;
    let location = [(header::LOCATION, format!("/users/{user_id}"))];
    Ok((location, created.created()))
}

/// A user
#[utoipa::path(
    get,
    path = "/users/{id}",
    params(("id" = EntityId, Path, description = "The user"), MinSequence),
    responses(
        (status = 200, description = "The user as it is", body = Versioned<UserBody>),
        (status = 404, description = "There is no such user"),
    )
)]
pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    min_sequence: MinSequence,
) -> Result<Versioned<UserBody>, Problem> {
    let wanted = id.clone();
    let users = api.user_list.at(min_sequence).await?;
    let user = users.read(move |tables| UserSummary::find(tables, &wanted)).await?;
    let Seen { value: user, sequence } = user.found().ok_or_else(|| unknown(&id))?;
    Ok(Versioned::ok(user.version, sequence, user.into()))
}

/// Users, oldest first
#[utoipa::path(
    get,
    path = "/users",
    params(Filter, PageQuery, MinSequence),
    responses((status = 200, description = "A page of them", body = Page<UserBody>))
)]
pub(super) async fn list(
    State(api): State<Api>,
    Query(filter): Query<Filter>,
    page: PageQuery,
    min_sequence: MinSequence,
) -> Result<Seen<Page<UserBody>>, Problem> {
    let Filter { status, search } = filter;
    let users = api.user_list.at(min_sequence).await?;
    let found = users.read(move |tables| UserSummary::list(tables, status, &search, &page)).await?;
    Ok(found.map(|page| page.map(UserBody::from)))
}

/// What happened to a user
#[utoipa::path(
    get,
    path = "/users/{id}/events",
    params(("id" = EntityId, Path, description = "The user"), HistoryRequest, MinSequence),
    responses(
        (status = 200, description = "Its events, oldest first: all of them, or as many as one answer has", body = HistoryEntry<UserEntry>),
        (status = 404, description = "There is no such user"),
    )
)]
pub(super) async fn history(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    min_sequence: MinSequence,
    asked: HistoryRequest,
) -> Result<History<UserEntry>, Problem> {
    api.user_list.at(min_sequence).await?;
    asked.answer(&api.users, &id).await?.ok_or_else(|| unknown(&id))
}

/// Changes a user's name or address
#[utoipa::path(
    patch,
    path = "/users/{id}",
    params(("id" = EntityId, Path, description = "The user"), IfMatch, RequestCause),
    request_body = UserChanges,
    responses(
        (status = 200, description = "The user as it is now", body = Versioned<UserBody>),
        (status = 404, description = "There is no such user"),
    )
)]
pub(super) async fn update(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    IfMatch(version): IfMatch,
    RequestCause(cause): RequestCause,
    Body(UserChanges { username, email }): Body<UserChanges>,
) -> Result<Versioned<UserBody>, Problem> {
    execute(&api, &id, version, &UserCommand::Update { username, email }, &cause).await
}

/// Activates, deactivates or suspends a user
#[utoipa::path(
    post,
    path = "/users/{id}/status",
    params(("id" = EntityId, Path, description = "The user"), IfMatch, RequestCause),
    request_body = NewStatus,
    responses(
        (status = 200, description = "The user as it is now", body = Versioned<UserBody>),
        (status = 404, description = "There is no such user"),
    )
)]
pub(super) async fn set_status(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    IfMatch(version): IfMatch,
    RequestCause(cause): RequestCause,
    Body(NewStatus { status }): Body<NewStatus>,
) -> Result<Versioned<UserBody>, Problem> {
    execute(&api, &id, version, &UserCommand::SetStatus(status), &cause).await
}

async fn execute(
    api: &Api,
    id: &EntityId,
    version: ExpectedVersion,
    command: &UserCommand,
    cause: &Cause,
) -> Result<Versioned<UserBody>, Problem> {
    let executed = api.users.execute_at(id, version, command, cause).await;
    let executed = executed.or_problem(|reason| refusal(id, &reason))?;
    let body = UserBody::of(&executed.state, executed.version).ok_or_else(|| unknown(id))?;
    Ok(Versioned::ok(executed.version, executed.sequence, body))
}

fn unknown(id: &EntityId) -> Problem {
    Problem::not_found(format!("There is no user {id}"))
}

fn refusal(id: &EntityId, reason: &UserRejection) -> Problem {
    match reason {
        UserRejection::Unknown => unknown(id),
        UserRejection::AlreadyExists => {
            Problem::new(StatusCode::CONFLICT, "user-exists", "The user exists already")
                .detail(reason.to_string())
        }
        UserRejection::Username | UserRejection::Email(_) | UserRejection::NothingToUpdate => {
            Problem::invalid(reason.to_string())
        }
    }
}
