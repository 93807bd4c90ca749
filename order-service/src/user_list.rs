//! What readers see of users: a list to filter and search, folded from the log.

use std::collections::{BTreeMap, HashMap};

use common::user::{UserEvent, UserStatus};
use eventkit::{Aggregate, EntityId, EventSet, Projection, Recorded};

use crate::user::User;

/// Every user, in the order of creation.
#[derive(Debug, Default)]
pub struct UserList {
    users: BTreeMap<u64, UserSummary>,
    place_of: HashMap<EntityId, u64>,
}

/// One user.
#[derive(Debug, Default)]
pub struct UserSummary {
    /// Its state.
    pub user: User,
    /// How many events that is.
    pub version: u64,
}

impl UserList {
    /// The users of that status whose name or address contains `search`, whatever the case.
    pub fn find(&self, status: Option<UserStatus>, search: &str) -> impl Iterator<Item = &UserSummary> {
        let search = search.to_lowercase();
        self.users.values().filter(move |summary| {
            summary.user.profile().is_some_and(|profile| {
                let contains = |text: &str| text.to_lowercase().contains(&search);
                status.is_none_or(|status| status == profile.status)
                    && (contains(&profile.username) || contains(&profile.email))
            })
        })
    }
}

impl Projection for UserList {
    type Event = UserEvent;

    fn apply(&mut self, event: &Recorded<UserEvent>) {
        let place = *self.place_of.entry(event.entity_id().clone()).or_insert(event.sequence);
        let summary = self.users.entry(place).or_default();
        summary.user.apply(&event.event);
        summary.version = event.version;
    }
}
