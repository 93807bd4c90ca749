//! The rules of an order's bill. It decides what comes first: a payment by another producer, or the order's cancellation.
//! Whoever comes second sees the other, and gives the money back.

use std::collections::BTreeSet;

use common::bill::{BillClosed, BillEvent, BillPaidOutside};
use jetkit::{Aggregate, EntityId};

/// An order's bill, as the sum of its events.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Bill {
    paid_outside: BTreeSet<EntityId>,
    closed: bool,
}

/// What can be asked of a bill.
#[derive(Debug, Clone)]
pub enum BillCommand {
    /// Another producer took money for the order. Once it is closed, there is nothing to note: see [`Bill::is_closed`].
    NotePayment {
        /// The order.
        order_id: EntityId,
        /// The payment.
        payment_id: EntityId,
    },
    /// The order is cancelled.
    Close {
        /// The order.
        order_id: EntityId,
    },
}

impl Bill {
    /// The payments by other producers that came before it was closed.
    pub fn paid_outside(&self) -> impl Iterator<Item = &EntityId> {
        self.paid_outside.iter()
    }

    /// Whether the order is cancelled: nothing may be kept of what is taken for it.
    pub fn is_closed(&self) -> bool {
        self.closed
    }
}

impl Aggregate for Bill {
    const ENTITY: &'static str = "bill";
    type Event = BillEvent;
    type Command = BillCommand;
    type Rejection = std::convert::Infallible;

    fn decide(&self, command: &BillCommand) -> Result<Vec<BillEvent>, Self::Rejection> {
        Ok(match command.clone() {
            _ if self.closed => vec![],
            BillCommand::NotePayment { payment_id, .. } if self.paid_outside.contains(&payment_id) => vec![],
            BillCommand::NotePayment { order_id, payment_id } => {
                vec![BillPaidOutside { order_id, payment_id }.into()]
            }
            BillCommand::Close { order_id } => vec![BillClosed { order_id }.into()],
        })
    }

    fn apply(&mut self, event: &BillEvent) {
        match event {
            BillEvent::PaidOutside(paid) => {
                self.paid_outside.insert(paid.payment_id.clone());
            }
            BillEvent::Closed(_) => self.closed = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jetkit::testing::{aggregate_laws, given};
    use proptest::prelude::*;

    fn id(text: &str) -> EntityId {
        EntityId::new(text).unwrap()
    }

    fn note(payment: &str) -> BillCommand {
        BillCommand::NotePayment { order_id: id("o-1"), payment_id: id(payment) }
    }

    fn close() -> BillCommand {
        BillCommand::Close { order_id: id("o-1") }
    }

    fn paid(payment: &str) -> BillEvent {
        BillPaidOutside { order_id: id("o-1"), payment_id: id(payment) }.into()
    }

    fn closed() -> BillEvent {
        BillClosed { order_id: id("o-1") }.into()
    }

    #[test]
    fn a_payment_is_noted_once() {
        given::<Bill>([]).when(&note("p-1")).then([paid("p-1")]);
        given::<Bill>([paid("p-1")]).when(&note("p-1")).then_nothing();
        given::<Bill>([paid("p-1")]).when(&note("p-2")).then([paid("p-2")]);
    }

    #[test]
    fn a_closed_bill_stays_as_it_is() {
        given::<Bill>([paid("p-1")]).when(&close()).then([closed()]);
        given::<Bill>([closed()]).when(&close()).then_nothing();
        given::<Bill>([closed()]).when(&note("p-1")).then_nothing();
    }

    proptest! {
        #[test]
        fn a_payment_is_noted_or_meets_a_closed_bill(choices in proptest::collection::vec(0_u8..4, 0..20)) {
            let commands = choices.iter().map(|choice| match choice {
                0 => close(),
                n => note(&format!("p-{n}")),
            });
            let (bill, log) = aggregate_laws(commands, |_: &Bill| {});
            let closed = log.iter().position(|event| *event == closed());
            prop_assert_eq!(bill.is_closed(), closed.is_some());
            prop_assert!(closed.is_none_or(|place| place == log.len() - 1));
            prop_assert_eq!(bill.paid_outside().count(), log.len() - usize::from(bill.is_closed()));
        }
    }
}
