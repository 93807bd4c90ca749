//! Payments that another producer made: recorded here once, as they are.

use anyhow::anyhow;
use common::order::{OrderPlaced, PaymentMethod};
use common::payment::{PaymentMethodKind, PaymentOutcome, PaymentProcessed};
use jetkit::{Cause, EventLog, EventStore, Handler, HandlerError, HandlerResult, Recorded, RejectRefusal};

use crate::bill::{Bill, BillCommand};
use crate::payment::{Payment, PaymentCommand};

/// Records other producers' payments. A payment for an order that the shop charges itself is refused; one for an order
/// that is not known yet is tried again, because the order may follow.
#[derive(Debug, Clone)]
pub struct PaymentAdopter {
    log: EventLog,
    bills: EventStore<Bill>,
    payments: EventStore<Payment>,
}

impl PaymentAdopter {
    /// An adopter that records on that log.
    pub fn new(log: EventLog, bills: EventStore<Bill>, payments: EventStore<Payment>) -> Self {
        Self { log, bills, payments }
    }
}

impl Handler<PaymentProcessed> for PaymentAdopter {
    async fn handle(&self, paid: Recorded<PaymentProcessed>) -> HandlerResult {
        let order: Option<Recorded<OrderPlaced>> = self.log.read(&paid.order_id, 1).await?;
        // Whether the payment is wanted, its order tells. It may still be on its way.
        let order = order.ok_or_else(|| anyhow!("order {} is not known yet", paid.order_id))?;
        if order.payment_method != (PaymentMethod::External {}) {
            return Err(HandlerError::reject(anyhow!(
                "order {} is charged by the shop itself",
                paid.order_id
            )));
        }
        let payment_method = match &paid.payment_method {
            outside @ PaymentMethodKind::External { .. } => outside.clone(),
            // Whoever sends it can't make the shop give money back from its own accounts or cards.
            own => PaymentMethodKind::External { method: own.label().to_owned() },
        };
        let record = PaymentCommand::Record(PaymentProcessed { payment_method, ..paid.event.clone() });
        let adopting = Cause::adopting(&paid);
        self.payments.execute(&paid.payment_id, &record, &adopting).await.reject_refusal()?;

        if paid.status == PaymentOutcome::Failed {
            return Ok(());
        }
        let (payment_id, order_id, cause) = (paid.payment_id.clone(), paid.order_id.clone(), paid.cause());
        let note = BillCommand::NotePayment { payment_id: payment_id.clone(), order_id: order_id.clone() };
        if self.bills.execute(&paid.order_id, &note, &cause).await?.state.is_closed() {
            let cancel = PaymentCommand::Cancel { payment_id, order_id };
            let give_back = cause.step("give back");
            self.payments.execute(&paid.payment_id, &cancel, &give_back).await.reject_refusal()?;
        }
        Ok(())
    }
}
