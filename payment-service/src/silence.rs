//! Tells a gateway that is down from one card that gets no answer.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use jetkit::EntityId;

/// So many payments in a row without an answer, and it is the gateway. Fewer may be their cards'.
const PAYMENTS: usize = 3;

/// The payments that have got no answer since the gateway last gave one, to any.
#[derive(Debug, Default)]
pub struct Silence(Mutex<HashSet<EntityId>>);

impl Silence {
    /// The gateway has answered.
    pub fn broken(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A payment got no answer. Returns whether none gets one.
    pub fn met_by(&self, payment_id: &EntityId) -> bool {
        let mut silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if silent.len() < PAYMENTS {
            silent.insert(payment_id.clone());
        }
        silent.len() >= PAYMENTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_card_without_an_answer_is_no_outage_and_several_in_a_row_are() {
        let silence = Silence::default();
        let met_by = |id: &str| silence.met_by(&EntityId::new(id).unwrap());
        for _ in 0..10 {
            assert!(!met_by("o-1"), "the same card again");
        }
        assert!(!met_by("o-2"));
        assert!(met_by("o-3") && met_by("o-1"));
        silence.broken();
        assert!(!met_by("o-3"));
    }
}
