//! `/users`.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use common::user::{UserEvent, UserStatus};
use eventkit::http::{
    Body, HistoryEntry, IfMatch, MinSequence, OrProblem, Page, PageQuery, Path, Problem, Query, RequestCause,
    Written,
};
use eventkit::{Cause, EntityId, Seen};
use serde::{Deserialize, Serialize};

use super::Api;
use crate::user::{Profile, User, UserCommand, UserRejection};
use crate::user_list::UserSummary;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUser {
    username: String,
    email: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserChanges {
    username: Option<String>,
    email: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewStatus {
    status: UserStatus,
}

#[derive(Debug, Deserialize)]
pub(super) struct Filter {
    status: Option<UserStatus>,
    #[serde(default)]
    search: String,
}

/// A user as a client sees it.
#[derive(Debug, Serialize)]
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

/// One event of a user's history.
#[derive(Debug, Serialize)]
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

pub(super) async fn create(
    State(api): State<Api>,
    cause: RequestCause,
    Body(NewUser { username, email }): Body<NewUser>,
) -> Result<impl IntoResponse, Problem> {
    let user_id = cause.derive_entity_id();
    let command = UserCommand::Create { user_id: user_id.clone(), username, email };
    let created = execute(&api, &user_id, None, &command, &cause.0).await?;
    let location = [(header::LOCATION, format!("/users/{user_id}"))];
    Ok((location, Written { status: StatusCode::CREATED, ..created }))
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    min_sequence: MinSequence,
) -> Result<Written<UserBody>, Problem> {
    let wanted = id.clone();
    let users = api.user_list.at(min_sequence).await?;
    let user = users.read(move |tables| UserSummary::find(tables, &wanted)).await?;
    let Seen { value: user, sequence } = user.found().ok_or_else(|| unknown(&id))?;
    Ok(Written { status: StatusCode::OK, version: user.version, sequence, body: user.into() })
}

pub(super) async fn list(
    State(api): State<Api>,
    Query(filter): Query<Filter>,
    page: PageQuery,
    min_sequence: MinSequence,
) -> Result<Seen<Page<UserBody>>, Problem> {
    let Filter { status, search } = filter;
    let users = api.user_list.at(min_sequence).await?;
    let found = users.read(move |tables| UserSummary::list(tables, status, &search, page)).await?;
    Ok(found.map(|page| page.map(UserBody::from)))
}

pub(super) async fn history(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    min_sequence: MinSequence,
) -> Result<Json<Vec<HistoryEntry<UserEntry>>>, Problem> {
    api.user_list.at(min_sequence).await?;
    let history = api.users.history(&id).await?;
    if history.is_empty() {
        return Err(unknown(&id));
    }
    Ok(Json(history.into_iter().map(HistoryEntry::from).collect()))
}

pub(super) async fn update(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    IfMatch(version): IfMatch,
    RequestCause(cause): RequestCause,
    Body(UserChanges { username, email }): Body<UserChanges>,
) -> Result<Written<UserBody>, Problem> {
    execute(&api, &id, version, &UserCommand::Update { username, email }, &cause).await
}

pub(super) async fn set_status(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    IfMatch(version): IfMatch,
    RequestCause(cause): RequestCause,
    Body(NewStatus { status }): Body<NewStatus>,
) -> Result<Written<UserBody>, Problem> {
    execute(&api, &id, version, &UserCommand::SetStatus(status), &cause).await
}

async fn execute(
    api: &Api,
    id: &EntityId,
    version: Option<u64>,
    command: &UserCommand,
    cause: &Cause,
) -> Result<Written<UserBody>, Problem> {
    let executed = match version {
        None => api.users.execute(id, command, cause).await,
        Some(version) => api.users.execute_at(id, version, command, cause).await,
    };
    let executed = executed.or_problem(|reason| refusal(id, &reason))?;
    let body = UserBody::of(&executed.state, executed.version).ok_or_else(|| unknown(id))?;
    Ok(Written { status: StatusCode::OK, version: executed.version, sequence: executed.sequence, body })
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
        UserRejection::Username | UserRejection::Email | UserRejection::NothingToUpdate => {
            Problem::invalid(reason.to_string())
        }
    }
}
