//! The story of one mail: what happened to an order, told to its customer once.

use std::sync::Arc;

use anyhow::Context;
use common::mail::{MailAttempted, MailEvent, MailKind, MailSent, MailSkipped};
use common::order::{OrderCancelled, OrderConfirmed, OrderPlaced, OrderShipped};
use common::payment::{PaymentOutcome, PaymentProcessed};
use jetkit::{
    Cause, EntityId, EventLog, EventStore, Handler, HandlerError, HandlerResult, OrReject, Recorded,
    RejectRefusal,
};
use tracing::{debug, warn};

use crate::letter::{Letter, News, Sender, address, one_line};
use crate::mail::{Mail, MailCommand, MailFacts};
use crate::transport::{MailTransport, SendError};

/// Writes to customers.
///
/// A mail is sent once, as far as SMTP allows: an attempt is recorded before sending and the success after it, and both
/// are keyed by the event that the mail tells about. What remains is a crash between the server's answer and the record:
/// then the mail goes out again, under the same `Message-ID`, by which mail programs tell it is the same.
///
/// An order without an address gets no mails. One whose address is invalid gets none either, which is recorded once, with
/// the news that it was placed: it is one fault, so it is one record and not a dead letter for each piece of news.
pub struct Mailer {
    log: EventLog,
    mails: EventStore<Mail>,
    sender: Sender,
    transport: Arc<dyn MailTransport>,
}

impl Mailer {
    /// A mailer that writes as `sender` and sends through `transport`.
    pub fn new(log: EventLog, sender: Sender, transport: Arc<dyn MailTransport>) -> Self {
        let mails = log.store();
        Self { log, mails, sender, transport }
    }

    /// Tells the customer of `order_id` the news that `cause` brought.
    async fn tell(&self, order_id: &EntityId, news: News<'_>, cause: &Cause) -> HandlerResult {
        let order = self
            .log
            .read::<OrderPlaced>(order_id, 1)
            .await
            .context("reading the order")?
            .with_context(|| format!("order {order_id} is not on the log (yet)"))?;
        self.write(&order, news, cause).await
    }

    async fn write(&self, order: &OrderPlaced, news: News<'_>, cause: &Cause) -> HandlerResult {
        let Some(to) = &order.customer_email else {
            return Ok(()); // nobody to write to
        };
        let kind = news.kind();
        let mail_id = self.mail_id(&order.order_id, kind, cause).await?;
        let address = match address(to) {
            Ok(address) => address,
            Err(flaw) if kind != MailKind::OrderPlaced => {
                // Recorded when it was placed.
                debug!(order.id = %order.order_id, reason = %flaw, ?kind, "no mail: the order's e-mail address is invalid");
                return Ok(());
            }
            Err(flaw) => {
                let (order_id, to) = (order.order_id.clone(), one_line(to));
                let skipped = MailSkipped { mail_id, order_id, kind, to, reason: flaw.to_string() };
                return self.skip(skipped, cause).await;
            }
        };
        let message_id = self.sender.message_id(&mail_id);
        let letter =
            Letter::compose(&self.sender, address, &mail_id, &message_id, order, news).or_reject()?;
        let facts = MailFacts { mail_id, order_id: order.order_id.clone(), kind, to: to.clone(), message_id };

        if matches!(self.attempt(&facts, cause).await?, Mail::Sent | Mail::Skipped) {
            return Ok(()); // by an earlier delivery of the same event
        }
        match self.transport.send(&letter).await {
            Ok(()) => {}
            Err(refused @ SendError::Refused(_)) => return Err(HandlerError::reject(refused)),
            Err(SendError::Unavailable { dependency, source }) => {
                return Err(HandlerError::unavailable(dependency, source));
            }
            Err(failure @ SendError::Postponed(_)) => return Err(HandlerError::postpone(failure)),
            Err(failure @ SendError::Unknown(_)) => Err(failure)?,
        }
        self.mark_sent(facts, cause).await
    }

    /// The id of the mail that tells this news. One that was begun while only the id of another producer's event counted
    /// keeps the id that it got then.
    async fn mail_id(
        &self,
        order_id: &EntityId,
        kind: MailKind,
        cause: &Cause,
    ) -> Result<EntityId, HandlerError> {
        if let Some(before) = cause.derive_by_id_alone("mail") {
            let before = EntityId::new(before).or_reject()?;
            let begun = self.mails.history(&before).await.context("looking for the mail")?;
            if begun.first().is_some_and(|mail| about(&mail.event) == (order_id, kind)) {
                return Ok(before);
            }
        }
        EntityId::new(cause.derive("mail")).or_reject()
    }

    async fn skip(&self, skipped: MailSkipped, cause: &Cause) -> HandlerResult {
        warn!(order.id = %skipped.order_id, reason = skipped.reason, "an order's e-mail address is invalid; it gets no mails");
        let mail_id = skipped.mail_id.clone();
        self.mails.execute(&mail_id, &MailCommand::Skip(skipped), cause).await.reject_refusal()?;
        Ok(())
    }

    /// Records that it is about to be sent, and says where the mail stands now.
    async fn attempt(&self, facts: &MailFacts, cause: &Cause) -> Result<Mail, HandlerError> {
        let attempt = MailCommand::Attempt(facts.clone());
        let stored = self.mails.execute(&facts.mail_id, &attempt, cause).await.reject_refusal()?;
        if !stored.repeated {
            return Ok(stored.state);
        }
        // The answer is that of the first attempt: whether the mail went out since, its history tells.
        Ok(self.mails.load(&facts.mail_id).await.context("reading the mail")?.state)
    }

    async fn mark_sent(&self, facts: MailFacts, cause: &Cause) -> HandlerResult {
        let (mail_id, sent) = (facts.mail_id.clone(), MailCommand::MarkSent(facts));
        self.mails.execute(&mail_id, &sent, &cause.clone().step("sent")).await.reject_refusal()?;
        Ok(())
    }
}

/// Which news of which order a mail tells.
fn about(mail: &MailEvent) -> (&EntityId, MailKind) {
    match mail {
        MailEvent::Attempted(MailAttempted { order_id, kind, .. })
        | MailEvent::Sent(MailSent { order_id, kind, .. })
        | MailEvent::Skipped(MailSkipped { order_id, kind, .. }) => (order_id, *kind),
    }
}

impl Handler<OrderPlaced> for Mailer {
    async fn handle(&self, order: Recorded<OrderPlaced>) -> HandlerResult {
        self.write(&order, News::Placed, &order.cause()).await
    }
}

impl Handler<OrderConfirmed> for Mailer {
    async fn handle(&self, order: Recorded<OrderConfirmed>) -> HandlerResult {
        self.tell(&order.order_id, News::Confirmed, &order.cause()).await
    }
}

impl Handler<OrderShipped> for Mailer {
    async fn handle(&self, order: Recorded<OrderShipped>) -> HandlerResult {
        self.tell(&order.order_id, News::Shipped(&order.event), &order.cause()).await
    }
}

impl Handler<OrderCancelled> for Mailer {
    async fn handle(&self, order: Recorded<OrderCancelled>) -> HandlerResult {
        self.tell(&order.order_id, News::Cancelled(&order.event), &order.cause()).await
    }
}

impl Handler<PaymentProcessed> for Mailer {
    async fn handle(&self, payment: Recorded<PaymentProcessed>) -> HandlerResult {
        match payment.status {
            PaymentOutcome::Success => Ok(()),
            PaymentOutcome::Failed => {
                self.tell(&payment.order_id, News::PaymentFailed(&payment.event), &payment.cause()).await
            }
        }
    }
}
