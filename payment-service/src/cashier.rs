//! The cashier: takes the money for an order whose goods are reserved, and gives it back when the order is cancelled.
//!
//! Money moves before the payment is recorded, and the two can be torn apart: by a crash, or by the order being
//! cancelled in between. Three things make that safe:
//! - taking and giving back are idempotent by the payment's id, so every step may be repeated;
//! - the payment is recorded under optimistic concurrency, so either the record or the cancellation comes first, and
//!   whoever comes second sees it;
//! - whoever finds money taken for a payment that did not succeed gives it back.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use common::order::{CardToken, OrderCancelled, OrderPlaced, PaymentMethod};
use common::payment::{PaymentMethodKind, PaymentOutcome, PaymentProcessed};
use common::stock::StockReserved;
use futures::future::BoxFuture;
use jetkit::{
    Cause, EntityId, EventLog, EventStore, ExecuteError, Handler, HandlerError, HandlerResult, Recorded,
    RejectRefusal,
};

use crate::account::{Account, AccountCommand, AccountRejection};
use crate::bill::{Bill, BillCommand};
use crate::gateway::{Charge, Charged, GatewayError, PaymentGateway};
use crate::payment::{Payment, PaymentCommand, PaymentStatus, is_external};
use crate::silence::Silence;

/// How long the gateway may take to answer by default. Past it the outcome is unknown, and the same call
/// is made again.
const GATEWAY_ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// Reacts to reservations and cancellations.
#[derive(Clone)]
pub struct Cashier {
    log: EventLog,
    accounts: EventStore<Account>,
    bills: EventStore<Bill>,
    payments: EventStore<Payment>,
    gateway: Arc<dyn PaymentGateway>,
    gateway_answers_within: Duration,
    silence: Arc<Silence>,
}

/// What the gateway is called in metrics and on pages.
const GATEWAY: &str = "card gateway";

impl Cashier {
    /// A cashier at that gateway.
    pub fn new(
        log: EventLog,
        accounts: EventStore<Account>,
        bills: EventStore<Bill>,
        payments: EventStore<Payment>,
        gateway: Arc<dyn PaymentGateway>,
    ) -> Self {
        let (gateway_answers_within, silence) = (GATEWAY_ANSWERS_WITHIN, Arc::default());
        Self { log, accounts, bills, payments, gateway, gateway_answers_within, silence }
    }

    /// The same, with another limit on how long the gateway may take.
    #[must_use]
    pub fn gateway_answers_within(self, limit: Duration) -> Self {
        Self { gateway_answers_within: limit, ..self }
    }

    async fn order(&self, order_id: &EntityId) -> anyhow::Result<Recorded<OrderPlaced>> {
        // What was reserved or cancelled was placed before; if it can't be seen yet, it will be.
        let order = self.log.read(order_id, 1).await?;
        order.ok_or_else(|| anyhow!("order {order_id} can't be found on the log"))
    }

    /// Tries to take the money: how it went is what is to be recorded.
    async fn take(
        &self,
        order: &OrderPlaced,
        cause: &Cause,
    ) -> Result<Option<PaymentProcessed>, HandlerError> {
        let result = |payment_method, status| PaymentProcessed {
            payment_id: order.order_id.clone(),
            order_id: order.order_id.clone(),
            amount: order.total,
            payment_method,
            status,
            failure: None,
            reference: None,
        };
        match &order.payment_method {
            PaymentMethod::External {} => Ok(None),
            PaymentMethod::Account { account_id } => {
                let method = PaymentMethodKind::Account { account_id: account_id.clone() };
                let command = AccountCommand::Pay { payment_id: order.order_id.clone(), amount: order.total };
                match self.accounts.execute(account_id, &command, cause).await {
                    Ok(_) => Ok(Some(result(method, PaymentOutcome::Success))),
                    Err(ExecuteError::Rejected(reason)) => {
                        let failure = Some(failure_code(&reason).to_owned());
                        Ok(Some(PaymentProcessed { failure, ..result(method, PaymentOutcome::Failed) }))
                    }
                    Err(failure) => Err(failure.into()),
                }
            }
            PaymentMethod::Card { token } => Ok(Some(match self.charge(order, token).await? {
                Charged::Approved { reference } => PaymentProcessed {
                    reference: Some(reference),
                    ..result(PaymentMethodKind::Card, PaymentOutcome::Success)
                },
                Charged::Declined { code } => PaymentProcessed {
                    failure: Some(code.to_owned()),
                    ..result(PaymentMethodKind::Card, PaymentOutcome::Failed)
                },
            })),
        }
    }

    async fn charge(&self, order: &OrderPlaced, token: &CardToken) -> Result<Charged, HandlerError> {
        let (payment_id, token) = (order.order_id.clone(), token.clone());
        let charge = Charge { payment_id, amount: order.total, token };
        self.answer(&charge.payment_id, self.gateway.charge(&charge)).await
    }

    /// Waits for the gateway's answer about a payment, and tells an outage from what is wrong with one card.
    async fn answer<T>(
        &self,
        payment_id: &EntityId,
        call: BoxFuture<'_, Result<T, GatewayError>>,
    ) -> Result<T, HandlerError> {
        let answer = tokio::time::timeout(self.gateway_answers_within, call).await;
        let failure = match answer.unwrap_or(Err(GatewayError::TimedOut)) {
            Ok(answer) => {
                self.silence.broken();
                return Ok(answer);
            }
            Err(failure) => failure,
        };
        let is_down = match failure {
            GatewayError::Unavailable => true,
            GatewayError::TimedOut => self.silence.met_by(payment_id),
            GatewayError::BankUnavailable => {
                self.silence.broken();
                false
            }
        };
        Err(if is_down { HandlerError::unavailable(GATEWAY, failure) } else { failure.into() })
    }

    /// Gives back whatever was taken for an order; nothing if nothing was. May be repeated.
    async fn give_back(&self, order: &OrderPlaced, cause: &Cause) -> HandlerResult {
        let payment_id = order.order_id.clone();
        match &order.payment_method {
            PaymentMethod::External {} => {}
            PaymentMethod::Account { account_id } => {
                let cause = cause.clone().step("give back");
                let give_back = AccountCommand::GiveBack { payment_id };
                self.accounts.execute(account_id, &give_back, &cause).await.reject_refusal()?;
            }
            PaymentMethod::Card { .. } => {
                self.answer(&payment_id, self.gateway.refund(&payment_id)).await?;
            }
        }
        Ok(())
    }
}

impl Handler<StockReserved> for Cashier {
    async fn handle(&self, reserved: Recorded<StockReserved>) -> HandlerResult {
        let (order_id, cause) = (&reserved.order_id, reserved.cause());
        let order = self.order(order_id).await?;
        let mut payment = self.payments.load(order_id).await?.state;
        if payment.status().is_none() {
            let Some(result) = self.take(&order, &cause).await? else { return Ok(()) };
            match self.payments.execute(order_id, &PaymentCommand::Record(result), &cause).await {
                Ok(_) => return Ok(()),
                // Cancelled in the meantime, or decided by another attempt.
                Err(ExecuteError::Rejected(_)) => payment = self.payments.load(order_id).await?.state,
                Err(failure) => return Err(failure.into()),
            }
        }
        let is_ours = order.payment_method != PaymentMethod::External {};
        if is_ours && payment.processed().is_some_and(is_external) {
            self.give_back(&order, &cause).await?;
            let taken = anyhow!(
                "another producer has a payment under the id {order_id}: the order cannot be charged"
            );
            return Err(HandlerError::reject(taken));
        }
        match payment.status() {
            Some(PaymentStatus::Success) => Ok(()),
            _ => self.give_back(&order, &cause).await,
        }
    }
}

impl Handler<OrderCancelled> for Cashier {
    async fn handle(&self, cancelled: Recorded<OrderCancelled>) -> HandlerResult {
        let (order_id, cause) = (&cancelled.order_id, cancelled.cause());
        let cancel = |payment_id: &EntityId| PaymentCommand::Cancel {
            payment_id: payment_id.clone(),
            order_id: order_id.clone(),
        };
        let own = self.payments.execute(order_id, &cancel(order_id), &cause).await.reject_refusal()?;
        if own.state.status() != Some(PaymentStatus::Failed) {
            self.give_back(&self.order(order_id).await?.event, &cause).await?;
        }
        // Another producer's payment that is not on the bill yet finds it closed.
        let close = BillCommand::Close { order_id: order_id.clone() };
        let bill = self.bills.execute(order_id, &close, &cause).await?.state;
        for payment_id in bill.paid_outside() {
            let cause = cause.clone().step("paid outside");
            self.payments.execute(payment_id, &cancel(payment_id), &cause).await.reject_refusal()?;
        }
        Ok(())
    }
}

fn failure_code(reason: &AccountRejection) -> &'static str {
    match reason {
        AccountRejection::NotOpen => "account_not_open",
        AccountRejection::InsufficientFunds { .. } => "insufficient_funds",
        AccountRejection::CurrencyMismatch { .. } => "currency_mismatch",
        AccountRejection::NotPositive
        | AccountRejection::TooLarge
        | AccountRejection::AlreadyOpen
        | AccountRejection::Owner
        | AccountRejection::NegativeBalance => "invalid_amount",
    }
}
