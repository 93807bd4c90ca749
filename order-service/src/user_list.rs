//! What readers see of users: one by its id, a list to filter and search.

use common::user::{UserEvent, UserStatus};
use jetkit::http::{Page, PageQuery};
use jetkit::projection::{Conditions, List, Order, OutOfTurn, Row, Tables, Word, params, rusqlite};
use jetkit::{EntityId, EventSet, Projection, Recorded};

use crate::user::Profile;

/// Every user, in the order of creation.
#[derive(Debug)]
pub struct UserList;

/// One user.
#[derive(Debug, Clone, PartialEq)]
pub struct UserSummary {
    /// Who.
    pub profile: Profile,
    /// How many events that is.
    pub version: u64,
}

const COLUMNS: &str = "user_id, version, username, email, status";

impl UserSummary {
    /// One user.
    pub fn find(tables: &Tables<'_>, user_id: &EntityId) -> rusqlite::Result<Option<Self>> {
        tables.first(&format!("SELECT {COLUMNS} FROM users WHERE user_id = ?1"), [user_id], Self::read)
    }

    /// The users of that status whose name or address contains `search`, whatever the case.
    pub fn list(
        tables: &Tables<'_>,
        status: Option<UserStatus>,
        search: &str,
        page: &PageQuery,
    ) -> rusqlite::Result<Page<Self>> {
        let search = Some(search.to_lowercase()).filter(|search| !search.is_empty());
        let matching = Conditions::default().equal("status", status.map(Word)).contains("searched", search);
        let order = Order::Ascending("place");
        tables.page(List { columns: COLUMNS, from: "users", matching, order }, page, Self::read)
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let profile = Profile {
            user_id: row.get("user_id")?,
            username: row.get("username")?,
            email: row.get("email")?,
            status: row.get::<_, Word<_>>("status")?.0,
        };
        Ok(Self { profile, version: row.get("version")? })
    }
}

/// What a search looks into: name and address in lower case, with something between them that neither can hold.
fn searched(username: &str, email: &str) -> String {
    format!("{}\n{}", username.to_lowercase(), email.to_lowercase())
}

impl Projection for UserList {
    const NAME: &'static str = "users";
    const SCHEMA: &'static str = "
        CREATE TABLE users (
            place INTEGER PRIMARY KEY, -- of its first event on the log
            user_id TEXT NOT NULL UNIQUE,
            version INTEGER NOT NULL,
            username TEXT NOT NULL,
            email TEXT NOT NULL,
            status TEXT NOT NULL,
            searched TEXT NOT NULL
        );
        CREATE INDEX users_of_status ON users (status);
    ";
    type Event = Recorded<UserEvent>;

    fn apply(tables: &Tables<'_>, event: &Recorded<UserEvent>) -> anyhow::Result<()> {
        let (user_id, version) = (event.entity_id(), event.version);
        let rows = match &event.event {
            UserEvent::Created(created) => tables.run(
                "INSERT INTO users (place, user_id, version, username, email, status, searched)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE ?3 = 1",
                params![
                    event.sequence,
                    user_id,
                    version,
                    created.username,
                    created.email,
                    Word(UserStatus::default()),
                    searched(&created.username, &created.email),
                ],
            )?,
            UserEvent::Updated(updated) => {
                let Some(UserSummary { profile, .. }) = UserSummary::find(tables, user_id)? else {
                    return Ok(OutOfTurn::unless_changed(0, event)?);
                };
                let username = updated.username.as_ref().unwrap_or(&profile.username);
                let email = updated.email.as_ref().unwrap_or(&profile.email);
                tables.run(
                    "UPDATE users SET version = ?2, username = ?3, email = ?4, searched = ?5
                     WHERE user_id = ?1 AND version = ?2 - 1",
                    params![user_id, version, username, email, searched(username, email)],
                )?
            }
            UserEvent::StatusChanged(changed) => tables.run(
                "UPDATE users SET version = ?2, status = ?3 WHERE user_id = ?1 AND version = ?2 - 1",
                params![user_id, version, Word(changed.status)],
            )?,
        };
        Ok(OutOfTurn::unless_changed(rows, event)?)
    }
}
