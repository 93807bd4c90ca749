//! The rules of a user.

use common::email::{AddressFlaw, wire_form};
use common::text::is_line;
use common::user::{UserCreated, UserEvent, UserStatus, UserStatusChanged, UserUpdated};
use jetkit::{Aggregate, EntityId};

/// A user, as the sum of its events.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct User {
    profile: Option<Profile>,
}

/// What is known about a user who exists.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Profile {
    /// The user.
    pub user_id: EntityId,
    /// The name shown.
    pub username: String,
    /// Where mails go.
    pub email: String,
    /// What the user may do.
    pub status: UserStatus,
}

/// What can be asked of a user.
#[derive(Debug, Clone)]
pub enum UserCommand {
    /// Create it.
    Create {
        /// The user.
        user_id: EntityId,
        /// 1 to 64 characters.
        username: String,
        /// An e-mail address.
        email: String,
    },
    /// Change what is given.
    Update {
        /// The new name.
        username: Option<String>,
        /// The new address.
        email: Option<String>,
    },
    /// Allow or stop ordering.
    SetStatus(UserStatus),
}

/// Why a user says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserRejection {
    /// It was never created.
    #[error("there is no such user")]
    Unknown,
    /// It was created before.
    #[error("the user exists already")]
    AlreadyExists,
    /// A name is needed.
    #[error("a username is 1 to {MAX_USERNAME_CHARS} characters on one line, with something to see")]
    Username,
    /// An address is needed.
    #[error("the email is refused: {0}")]
    Email(AddressFlaw),
    /// An update needs something to change.
    #[error("an update needs a username or an email")]
    NothingToUpdate,
}

/// Why a customer can't order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CustomerRejection {
    /// No user, and no address to write to.
    #[error("the customer is not a user: a customer_email is needed")]
    UnknownWithoutEmail,
    /// A user who may not order.
    #[error("the customer may not order: the user is {0:?}")]
    NotActive(UserStatus),
}

const MAX_USERNAME_CHARS: usize = 64;

impl User {
    /// What is known about it; `None` if it was never created.
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }

    /// Whether this customer may order, and where mails about the order go: to the address given with the order, else to
    /// the user's own. A customer who is not a user orders as a guest, with an address.
    pub fn may_order(&self, email: Option<String>) -> Result<String, CustomerRejection> {
        match (&self.profile, email) {
            (Some(Profile { status: status @ (UserStatus::Inactive | UserStatus::Suspended), .. }), _) => {
                Err(CustomerRejection::NotActive(*status))
            }
            (_, Some(email)) => Ok(email),
            (Some(profile), None) => Ok(profile.email.clone()),
            (None, None) => Err(CustomerRejection::UnknownWithoutEmail),
        }
    }
}

impl Aggregate for User {
    const ENTITY: &'static str = "user";
    type Event = UserEvent;
    type Command = UserCommand;
    type Rejection = UserRejection;

    fn decide(&self, command: &UserCommand) -> Result<Vec<UserEvent>, UserRejection> {
        match (command, &self.profile) {
            (UserCommand::Create { .. }, Some(_)) => Err(UserRejection::AlreadyExists),
            (UserCommand::Create { user_id, username, email }, None) => {
                check_username(username)?;
                check_email(email)?;
                let (user_id, username, email) = (user_id.clone(), username.clone(), email.clone());
                Ok(vec![UserCreated { user_id, username, email }.into()])
            }
            (_, None) => Err(UserRejection::Unknown),
            (UserCommand::Update { username: None, email: None }, Some(_)) => {
                Err(UserRejection::NothingToUpdate)
            }
            (UserCommand::Update { username, email }, Some(profile)) => {
                username.as_ref().map_or(Ok(()), |username| check_username(username))?;
                email.as_ref().map_or(Ok(()), |email| check_email(email))?;
                let username = username.clone().filter(|username| *username != profile.username);
                let email = email.clone().filter(|email| *email != profile.email);
                if username.is_none() && email.is_none() {
                    return Ok(vec![]);
                }
                Ok(vec![UserUpdated { user_id: profile.user_id.clone(), username, email }.into()])
            }
            (UserCommand::SetStatus(status), Some(profile)) if *status == profile.status => Ok(vec![]),
            (UserCommand::SetStatus(status), Some(profile)) => {
                Ok(vec![UserStatusChanged { user_id: profile.user_id.clone(), status: *status }.into()])
            }
        }
    }

    fn apply(&mut self, event: &UserEvent) {
        match (event, &mut self.profile) {
            (UserEvent::Created(created), profile) => {
                *profile = Some(Profile {
                    user_id: created.user_id.clone(),
                    username: created.username.clone(),
                    email: created.email.clone(),
                    status: UserStatus::Active,
                });
            }
            (UserEvent::Updated(updated), Some(profile)) => {
                profile.username = updated.username.as_ref().unwrap_or(&profile.username).clone();
                profile.email = updated.email.as_ref().unwrap_or(&profile.email).clone();
            }
            (UserEvent::StatusChanged(changed), Some(profile)) => profile.status = changed.status,
            (UserEvent::Updated(_) | UserEvent::StatusChanged(_), None) => {}
        }
    }
}

fn check_username(username: &str) -> Result<(), UserRejection> {
    if is_line(username, MAX_USERNAME_CHARS) { Ok(()) } else { Err(UserRejection::Username) }
}

fn check_email(email: &str) -> Result<(), UserRejection> {
    wire_form(email).map(drop).map_err(UserRejection::Email)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jetkit::testing::{aggregate_laws, given};
    use proptest::prelude::*;

    fn id() -> EntityId {
        EntityId::new("u-1").unwrap()
    }

    fn created() -> UserEvent {
        UserCreated { user_id: id(), username: "alice".to_owned(), email: "alice@example.com".to_owned() }
            .into()
    }

    fn status(status: UserStatus) -> UserEvent {
        UserStatusChanged { user_id: id(), status }.into()
    }

    fn create(username: &str, email: &str) -> UserCommand {
        UserCommand::Create { user_id: id(), username: username.to_owned(), email: email.to_owned() }
    }

    fn update(username: Option<&str>, email: Option<&str>) -> UserCommand {
        UserCommand::Update { username: username.map(str::to_owned), email: email.map(str::to_owned) }
    }

    #[test]
    fn a_user_is_created_once() {
        let command = create("alice", "alice@example.com");
        given::<User>([]).when(&command).then([created()]);
        given::<User>([created()]).when(&command).then_rejected(UserRejection::AlreadyExists);
    }

    #[test]
    fn a_user_has_a_name_and_an_address() {
        given::<User>([]).when(&create(" ", "a@example.com")).then_rejected(UserRejection::Username);
        given::<User>([]).when(&create("a\nb", "a@example.com")).then_rejected(UserRejection::Username);
        given::<User>([])
            .when(&create(&"x".repeat(65), "a@example.com"))
            .then_rejected(UserRejection::Username);
        given::<User>([])
            .when(&create("alice", "alice"))
            .then_rejected(UserRejection::Email(AddressFlaw::Shape));
    }

    #[test]
    fn an_update_records_what_changes() {
        given::<User>([created()])
            .when(&update(Some("bob"), Some("alice@example.com")))
            .then([UserUpdated { user_id: id(), username: Some("bob".to_owned()), email: None }.into()]);
        given::<User>([created()]).when(&update(Some("alice"), None)).then_nothing();
        given::<User>([created()]).when(&update(None, None)).then_rejected(UserRejection::NothingToUpdate);
        given::<User>([created()])
            .when(&update(None, Some("nowhere")))
            .then_rejected(UserRejection::Email(AddressFlaw::Shape));
        given::<User>([]).when(&update(Some("bob"), None)).then_rejected(UserRejection::Unknown);
    }

    #[test]
    fn a_status_changes_once() {
        let suspend = UserCommand::SetStatus(UserStatus::Suspended);
        given::<User>([created()]).when(&suspend).then([status(UserStatus::Suspended)]);
        given::<User>([created(), status(UserStatus::Suspended)]).when(&suspend).then_nothing();
        given::<User>([]).when(&suspend).then_rejected(UserRejection::Unknown);
    }

    #[test]
    fn only_an_active_user_may_order() {
        let user = |events: &[UserEvent]| {
            let mut user = User::default();
            for event in events {
                user.apply(event);
            }
            user
        };
        let email = || Some("other@example.com".to_owned());
        assert_eq!(user(&[created()]).may_order(None).unwrap(), "alice@example.com");
        assert_eq!(user(&[created()]).may_order(email()).unwrap(), "other@example.com");
        for unfit in [UserStatus::Suspended, UserStatus::Inactive] {
            let refusal = user(&[created(), status(unfit)]).may_order(email());
            assert_eq!(refusal, Err(CustomerRejection::NotActive(unfit)));
        }
        let back = user(&[created(), status(UserStatus::Suspended), status(UserStatus::Active)]);
        assert!(back.may_order(None).is_ok());
    }

    #[test]
    fn a_guest_orders_with_an_address() {
        assert_eq!(User::default().may_order(Some("g@example.com".to_owned())).unwrap(), "g@example.com");
        assert_eq!(User::default().may_order(None), Err(CustomerRejection::UnknownWithoutEmail));
    }

    fn any_command() -> impl Strategy<Value = UserCommand> {
        let name = || proptest::sample::select(vec!["alice", "bob", " ", "a\nb"]);
        let email = || proptest::sample::select(vec!["alice@example.com", "bob@example.com", "nowhere"]);
        let all = vec![UserStatus::Active, UserStatus::Inactive, UserStatus::Suspended];
        prop_oneof![
            (name(), email()).prop_map(|(name, email)| create(name, email)),
            (proptest::option::of(name()), proptest::option::of(email()))
                .prop_map(|(name, email)| update(name, email)),
            proptest::sample::select(all).prop_map(UserCommand::SetStatus),
        ]
    }

    proptest! {
        #[test]
        fn a_user_always_has_a_name_and_an_address_and_every_event_changes_something(
            commands in proptest::collection::vec(any_command(), 0..40)
        ) {
            let (_, log) = aggregate_laws(commands, |user: &User| {
                let legal = |profile: &Profile| {
                    check_username(&profile.username).is_ok() && check_email(&profile.email).is_ok()
                };
                assert!(user.profile().is_none_or(legal), "{user:?}");
            });
            let mut user = User::default();
            for event in &log {
                let before = user.clone();
                user.apply(event);
                prop_assert_ne!(&before, &user, "{:?} changed nothing", event);
            }
        }
    }
}
