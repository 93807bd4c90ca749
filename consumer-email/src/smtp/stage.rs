//! How far a mail came before something went wrong, and whose fault that makes it.

use lettre::transport::smtp::Error;

use crate::transport::SendError;

/// What the server is called in metrics and on pages.
const SMTP: &str = "smtp";

/// How far a mail came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Connecting, greeting, encrypting, logging in.
    Connect,
    /// The sender: the same for every mail.
    Sender,
    /// The recipient, and leave to send the content.
    Recipient,
    /// The content, until the server has taken it.
    Content,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The server's: the next mail would not leave either.
    Server,
    /// The mail's, for good.
    Mail,
    /// The mail's, for now: greylisting, a full mailbox.
    MailForNow,
    /// Unknown: the mail may have left.
    Unknown,
}

/// Says that no mail leaves.
pub(super) fn down(source: impl Into<anyhow::Error>) -> SendError {
    SendError::Unavailable { dependency: SMTP, source: source.into() }
}

impl Stage {
    /// What a failure at this stage means (RFC 5321, 4.2.2; RFC 4954, 6). `code` is the server's reply, if there was one.
    fn fault(self, code: Option<u16>) -> Fault {
        match (self, code) {
            // What this mail asks for beyond others: its size, a parameter.
            (Self::Sender, Some(552 | 555)) => Fault::Mail,
            // By the codes it shuts down, or wants another login.
            (Self::Connect | Self::Sender, _)
            | (Self::Recipient, None)
            | (_, Some(421 | 432 | 454 | 530 | 534 | 535 | 538)) => Fault::Server,
            (Self::Recipient | Self::Content, Some(400..=499)) => Fault::MailForNow,
            (Self::Recipient | Self::Content, Some(_)) => Fault::Mail,
            (Self::Content, None) => Fault::Unknown,
        }
    }

    /// What a failure at this stage means for the mail.
    pub(super) fn failure(self, error: Error) -> SendError {
        let fault = self.fault(error.status().map(u16::from));
        let source = anyhow::Error::from(error);
        match fault {
            Fault::Server => down(source),
            Fault::Mail => SendError::Refused(source),
            Fault::MailForNow => SendError::Postponed(source),
            Fault::Unknown => SendError::Unknown(source),
        }
    }

    /// What silence at this stage means.
    pub(super) fn silence(self, late: tokio::time::error::Elapsed) -> SendError {
        match self.fault(None) {
            Fault::Server => down(late),
            Fault::Mail | Fault::MailForNow | Fault::Unknown => SendError::Unknown(late.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_the_server_is_not_one_of_the_mail() {
        use Stage::{Connect, Content, Recipient, Sender};
        type Case<'a> = (&'a [Stage], &'a [Option<u16>], Fault);
        let cases: &[Case<'_>] = &[
            (&[Connect], &[None, Some(421), Some(450), Some(535), Some(554)], Fault::Server),
            (&[Sender], &[None, Some(421), Some(451), Some(452), Some(530), Some(550)], Fault::Server),
            (&[Sender], &[Some(552), Some(555)], Fault::Mail),
            (&[Recipient], &[None], Fault::Server),
            (&[Recipient, Content], &[Some(421), Some(454), Some(530), Some(535)], Fault::Server),
            (&[Recipient, Content], &[Some(450), Some(451), Some(452)], Fault::MailForNow),
            (&[Recipient, Content], &[Some(550), Some(551), Some(553), Some(554)], Fault::Mail),
            (&[Content], &[None], Fault::Unknown),
        ];
        for (stages, codes, fault) in cases {
            for stage in *stages {
                for code in *codes {
                    assert_eq!(stage.fault(*code), *fault, "{stage:?} {code:?}");
                }
            }
        }
    }
}
