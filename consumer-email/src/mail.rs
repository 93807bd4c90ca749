//! The rules of one mail: an attempt is recorded before it is sent, and a mail that was sent is never sent again. One
//! that has nowhere to go is skipped, for good.

use common::mail::{MailAttempted, MailEvent, MailKind, MailSent, MailSkipped};
use jetkit::{Aggregate, EntityId};

/// One mail, known by an id that is derived from the event it tells about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Mail {
    /// Nobody tried yet.
    #[default]
    Unsent,
    /// Somebody tried; it may or may not have gone out.
    Attempted,
    /// The transport took it.
    Sent,
    /// It had nowhere to go.
    Skipped,
}

/// What a mail is: the same each time it is attempted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailFacts {
    /// The mail's id.
    pub mail_id: EntityId,
    /// The order it is about.
    pub order_id: EntityId,
    /// What it tells.
    pub kind: MailKind,
    /// To whom.
    pub to: String,
    /// Its `Message-ID`.
    pub message_id: String,
}

/// What can be asked of a mail.
#[derive(Debug, Clone)]
pub enum MailCommand {
    /// About to send it.
    Attempt(MailFacts),
    /// The transport took it.
    MarkSent(MailFacts),
    /// It has nowhere to go.
    Skip(MailSkipped),
}

/// Why a mail says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MailRejection {
    /// It cannot have been sent: nobody tried.
    #[error("a mail that was never attempted cannot have been sent")]
    NeverAttempted,
}

impl Aggregate for Mail {
    const ENTITY: &'static str = "mail";
    type Event = MailEvent;
    type Command = MailCommand;
    type Rejection = MailRejection;

    fn decide(&self, command: &MailCommand) -> Result<Vec<MailEvent>, MailRejection> {
        match (self, command) {
            (Self::Unsent, MailCommand::Attempt(facts)) => {
                let MailFacts { mail_id, order_id, kind, to, message_id } = facts.clone();
                Ok(vec![MailAttempted { mail_id, order_id, kind, to, message_id }.into()])
            }
            (Self::Attempted, MailCommand::MarkSent(facts)) => {
                let MailFacts { mail_id, order_id, kind, to, message_id } = facts.clone();
                Ok(vec![MailSent { mail_id, order_id, kind, to, message_id }.into()])
            }
            (Self::Unsent, MailCommand::Skip(skipped)) => Ok(vec![skipped.clone().into()]),
            (Self::Unsent | Self::Skipped, MailCommand::MarkSent(_)) => Err(MailRejection::NeverAttempted),
            (Self::Sent, MailCommand::MarkSent(_)) | (_, MailCommand::Attempt(_) | MailCommand::Skip(_)) => {
                Ok(vec![])
            }
        }
    }

    fn apply(&mut self, event: &MailEvent) {
        *self = match event {
            MailEvent::Attempted(_) => Self::Attempted,
            MailEvent::Sent(_) => Self::Sent,
            MailEvent::Skipped(_) => Self::Skipped,
        };
    }
}
