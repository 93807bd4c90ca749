//! The rules of a payment: it happens once, and what was taken for a cancelled order is given back.

use common::payment::{
    PaymentEvent, PaymentMethodKind, PaymentOutcome, PaymentProcessed, PaymentRefunded, PaymentVoided,
};
use common::text::is_line;
use jetkit::{Aggregate, EntityId};

/// The longest word of another producer: its payment method, its reason for a failure, its reference.
const MAX_WORD_CHARS: usize = 100;

/// A payment, as the sum of its events.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Payment {
    processed: Option<PaymentProcessed>,
    refunded: bool,
    voided: bool,
}

/// What can be asked of a payment.
#[derive(Debug, Clone)]
pub enum PaymentCommand {
    /// Record how it went.
    Record(PaymentProcessed),
    /// Its order is cancelled: give it back if it was taken, and take nothing later if not.
    Cancel {
        /// The payment.
        payment_id: EntityId,
        /// Its order.
        order_id: EntityId,
    },
}

/// Why a payment says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PaymentRejection {
    /// The order was cancelled before.
    #[error("the order was cancelled: nothing may be taken for it")]
    Voided,
    /// It went otherwise, as recorded before.
    #[error("another result is recorded for this payment")]
    AlreadyRecorded,
    /// Money is taken or not, but not less than nothing.
    #[error("the amount of a payment must not be negative")]
    NegativeAmount,
    /// Pages and statistics show another producer's words as they are.
    #[error(
        "a payment's method, failure and reference are 1 to {MAX_WORD_CHARS} characters each, on one line, with something to see"
    )]
    Word,
}

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PaymentStatus {
    /// The money was taken.
    Success,
    /// Nothing was taken.
    Failed,
    /// The money was taken and given back.
    Refunded,
    /// Nothing was taken, and nothing will be.
    Voided,
}

impl Payment {
    /// Where it stands; `None` if nothing happened to it yet.
    pub fn status(&self) -> Option<PaymentStatus> {
        match &self.processed {
            Some(_) if self.refunded => Some(PaymentStatus::Refunded),
            Some(processed) if processed.status == PaymentOutcome::Success => Some(PaymentStatus::Success),
            Some(_) => Some(PaymentStatus::Failed),
            None if self.voided => Some(PaymentStatus::Voided),
            None => None,
        }
    }

    /// How it went, if it was tried.
    pub fn processed(&self) -> Option<&PaymentProcessed> {
        self.processed.as_ref()
    }
}

impl Aggregate for Payment {
    const ENTITY: &'static str = "payment";
    const STATE_VERSION: u32 = 2;
    type Event = PaymentEvent;
    type Command = PaymentCommand;
    type Rejection = PaymentRejection;

    fn decide(&self, command: &PaymentCommand) -> Result<Vec<PaymentEvent>, PaymentRejection> {
        match command {
            PaymentCommand::Record(payment) => match &self.processed {
                Some(recorded) if recorded == payment => Ok(vec![]),
                Some(_) => Err(PaymentRejection::AlreadyRecorded),
                None if payment.amount.minor() < 0 => Err(PaymentRejection::NegativeAmount),
                None if !has_short_words(payment) => Err(PaymentRejection::Word),
                // Taken outside, whatever is known here: it is recorded, so that it can be given back.
                None if self.voided && !is_external(payment) => Err(PaymentRejection::Voided),
                None => Ok(vec![payment.clone().into()]),
            },
            PaymentCommand::Cancel { payment_id, order_id } => {
                let (payment_id, order_id) = (payment_id.clone(), order_id.clone());
                match &self.processed {
                    // Another producer gave a payment for another order this id.
                    Some(other) if other.order_id != order_id => Ok(vec![]),
                    Some(taken) if taken.status == PaymentOutcome::Success && !self.refunded => {
                        Ok(vec![PaymentRefunded { payment_id, order_id, amount: taken.amount }.into()])
                    }
                    None if !self.voided => Ok(vec![PaymentVoided { payment_id, order_id }.into()]),
                    Some(_) | None => Ok(vec![]),
                }
            }
        }
    }

    fn apply(&mut self, event: &PaymentEvent) {
        match event {
            PaymentEvent::Processed(processed) => self.processed = Some(processed.clone()),
            PaymentEvent::Refunded(_) => self.refunded = true,
            PaymentEvent::Voided(_) => self.voided = true,
        }
    }
}

/// Whether another producer made it.
pub(crate) fn is_external(payment: &PaymentProcessed) -> bool {
    matches!(payment.payment_method, PaymentMethodKind::External { .. })
}

fn has_short_words(payment: &PaymentProcessed) -> bool {
    let words =
        [Some(payment.payment_method.label()), payment.failure.as_deref(), payment.reference.as_deref()];
    words.into_iter().flatten().all(|word| is_line(word, MAX_WORD_CHARS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::money::{Currency, Money};
    use jetkit::testing::{aggregate_laws, given};
    use proptest::prelude::*;

    fn id(text: &str) -> EntityId {
        EntityId::new(text).unwrap()
    }

    fn processed(status: PaymentOutcome, payment_method: PaymentMethodKind) -> PaymentProcessed {
        PaymentProcessed {
            payment_id: id("o-1"),
            order_id: id("o-1"),
            amount: Money::new(500, Currency::USD).unwrap(),
            payment_method,
            status,
            failure: None,
            reference: None,
        }
    }

    fn card(status: PaymentOutcome) -> PaymentProcessed {
        processed(status, PaymentMethodKind::Card)
    }

    fn outside(status: PaymentOutcome) -> PaymentProcessed {
        processed(status, PaymentMethodKind::External { method: "credit_card".to_owned() })
    }

    fn cancel() -> PaymentCommand {
        PaymentCommand::Cancel { payment_id: id("o-1"), order_id: id("o-1") }
    }

    fn voided() -> PaymentEvent {
        PaymentVoided { payment_id: id("o-1"), order_id: id("o-1") }.into()
    }

    fn refunded() -> PaymentEvent {
        let amount = Money::new(500, Currency::USD).unwrap();
        PaymentRefunded { payment_id: id("o-1"), order_id: id("o-1"), amount }.into()
    }

    use PaymentOutcome::{Failed, Success};

    #[test]
    fn a_payment_is_recorded_once() {
        let record = PaymentCommand::Record(card(Success));
        given::<Payment>([]).when(&record).then([card(Success).into()]);
        given::<Payment>([card(Success).into()]).when(&record).then_nothing();
        given::<Payment>([card(Failed).into()])
            .when(&record)
            .then_rejected(PaymentRejection::AlreadyRecorded);
    }

    #[test]
    fn an_order_cancelled_before_it_was_charged_is_never_charged() {
        given::<Payment>([]).when(&cancel()).then([voided()]);
        given::<Payment>([voided()]).when(&cancel()).then_nothing();
        given::<Payment>([voided()])
            .when(&PaymentCommand::Record(card(Success)))
            .then_rejected(PaymentRejection::Voided);
    }

    #[test]
    fn what_was_taken_for_a_cancelled_order_is_given_back_once() {
        given::<Payment>([card(Success).into()]).when(&cancel()).then([refunded()]);
        given::<Payment>([card(Success).into(), refunded()]).when(&cancel()).then_nothing();
    }

    #[test]
    fn a_payment_for_another_order_is_not_given_back() {
        let other = PaymentProcessed { order_id: id("o-2"), ..outside(Success) };
        given::<Payment>([other.into()]).when(&cancel()).then_nothing();
    }

    #[test]
    fn a_failed_payment_leaves_nothing_to_give_back() {
        for failed in [card(Failed), outside(Failed)] {
            given::<Payment>([failed.into()]).when(&cancel()).then_nothing();
        }
    }

    #[test]
    fn what_is_taken_outside_is_recorded_and_given_back() {
        given::<Payment>([voided()])
            .when(&PaymentCommand::Record(outside(Success)))
            .then([outside(Success).into()]);
        given::<Payment>([voided(), outside(Success).into()]).when(&cancel()).then([refunded()]);
    }

    #[test]
    fn a_payment_of_less_than_nothing_is_refused() {
        let negative =
            PaymentProcessed { amount: Money::new(-1, Currency::USD).unwrap(), ..outside(Success) };
        given::<Payment>([])
            .when(&PaymentCommand::Record(negative))
            .then_rejected(PaymentRejection::NegativeAmount);
    }

    #[test]
    fn words_from_outside_are_short() {
        let external = |method: &str| {
            let payment_method = PaymentMethodKind::External { method: method.to_owned() };
            processed(Failed, payment_method)
        };
        for word in ["", " ", "a\nb", &"é".repeat(101)] {
            for payment in [
                external(word),
                PaymentProcessed { failure: Some(word.to_owned()), ..external("cash") },
                PaymentProcessed { reference: Some(word.to_owned()), ..external("cash") },
            ] {
                given::<Payment>([])
                    .when(&PaymentCommand::Record(payment))
                    .then_rejected(PaymentRejection::Word);
            }
        }
        let longest = || Some("é".repeat(100));
        let longest =
            PaymentProcessed { failure: longest(), reference: longest(), ..external(&"é".repeat(100)) };
        given::<Payment>([]).when(&PaymentCommand::Record(longest.clone())).then([longest.into()]);
    }

    proptest! {
        #[test]
        fn a_cancelled_order_keeps_no_money(choices in proptest::collection::vec(0_u8..5, 0..20)) {
            let commands = choices.iter().map(|choice| match choice {
                0 => PaymentCommand::Record(card(Success)),
                1 => PaymentCommand::Record(card(Failed)),
                2 => PaymentCommand::Record(outside(Success)),
                3 => PaymentCommand::Record(outside(Failed)),
                _ => cancel(),
            });
            let (_, log) = aggregate_laws(commands.chain([cancel()]), |_: &Payment| {});
            let taken = log.iter().filter(|e| matches!(e, PaymentEvent::Processed(p) if p.status == Success)).count();
            let given_back = log.iter().filter(|e| matches!(e, PaymentEvent::Refunded(_))).count();
            prop_assert_eq!(taken, given_back);
            prop_assert!(taken <= 1);
        }
    }
}
