//! What happens to a user.

use jetkit::{EntityId, Event};
use serde::{Deserialize, Serialize};

/// A user was created, and is active.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserCreated {
    /// The user.
    pub user_id: EntityId,
    /// The name shown.
    pub username: String,
    /// Where mails go.
    pub email: String,
}

impl Event for UserCreated {
    const TYPE: &'static str = "user.created";

    fn entity_id(&self) -> &EntityId {
        &self.user_id
    }
}

/// A user's name or address changed. What is absent did not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserUpdated {
    /// The user.
    pub user_id: EntityId,
    /// The new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The new address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

impl Event for UserUpdated {
    const TYPE: &'static str = "user.updated";

    fn entity_id(&self) -> &EntityId {
        &self.user_id
    }
}

/// A user may now order, or no longer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserStatusChanged {
    /// The user.
    pub user_id: EntityId,
    /// From now on.
    pub status: UserStatus,
}

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub enum UserStatus {
    /// Everything.
    #[default]
    Active,
    /// Not order: the user left.
    Inactive,
    /// Not order: the shop says so.
    Suspended,
}

impl Event for UserStatusChanged {
    const TYPE: &'static str = "user.status_changed";

    fn entity_id(&self) -> &EntityId {
        &self.user_id
    }
}

jetkit::events! {
    /// What can happen to a user.
    pub enum UserEvent {
        Created(UserCreated),
        Updated(UserUpdated),
        StatusChanged(UserStatusChanged),
    }
}
