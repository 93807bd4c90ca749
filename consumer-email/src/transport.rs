//! The seam that an operator swaps: how a mail leaves.

use std::future::Future;
use std::pin::Pin;

use crate::letter::Letter;

/// Takes mails away. `Ok` means that the mail is somebody else's responsibility now.
pub trait MailTransport: Send + Sync {
    /// Sends one mail. Sending the same one again must be harmless or carry the same `Message-ID`.
    fn send<'a>(&'a self, letter: &'a Letter) -> Sending<'a>;
}

/// The future of [`MailTransport::send`].
pub type Sending<'a> = Pin<Box<dyn Future<Output = Result<(), SendError>> + Send + 'a>>;

/// Why a mail did not leave.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It will never be taken: the server said so, or it cannot be written as a mail.
    #[error("the mail was refused for good")]
    Refused(#[source] anyhow::Error),
    /// This one may be taken later: greylisting, a full mailbox.
    #[error("the mail was not taken for now")]
    Postponed(#[source] anyhow::Error),
    /// No mail leaves now.
    #[error("mails cannot be sent now")]
    Unavailable {
        /// What is down, in a word.
        dependency: &'static str,
        /// How that was noticed.
        source: anyhow::Error,
    },
    /// It may have left: the answer is lost.
    #[error("it is not known whether the mail was sent")]
    Unknown(#[source] anyhow::Error),
}
