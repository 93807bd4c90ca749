//! Dead letters: the poison, and nothing else.

use jetkit::FailureClass;

use super::{Check, Ledger};
use crate::demo::{ListedLetter, StoredLetter};

/// Where the poison must end: its owner gives it up.
const POISON_SUBJECT: &str = "dlq.events.order-service.order.placed";

pub(super) fn check(ledger: &Ledger) -> Check {
    let mut check = Check::new("dead letters");
    let since = ledger.before.dead_letters;
    let mut stored: Vec<_> = ledger.stored_letters.iter().filter(|letter| letter.sequence > since).collect();
    let mut listed: Vec<_> =
        ledger.listed_letters.iter().filter(|letter| letter.dlq_sequence > since).collect();
    for poison in &ledger.traffic.poison {
        let text = String::from_utf8_lossy(poison);
        let Some(place) = stored.iter().position(|letter| is_poison(letter, poison)) else {
            check.wrong.push(format!("the poison is not in the stream DLQ on {POISON_SUBJECT}: {text}"));
            continue;
        };
        let letter = stored.remove(place);
        match listed.iter().position(|entry| is_listed(entry, letter)) {
            Some(place) => drop(listed.remove(place)),
            None => check.wrong.push(format!("consumer-dlq does not list the poison: {text}")),
        }
    }
    for StoredLetter { sequence, subject, letter } in stored {
        let why = match letter {
            Ok(letter) => format!("{}: {}", letter.class, letter.errors.join(": ")),
            Err(why) => why.clone(),
        };
        check.wrong.push(format!("the stream DLQ also holds {subject} ({sequence}): {why}"));
    }
    for ListedLetter { id, class, error, .. } in listed {
        check.wrong.push(format!("consumer-dlq also lists {id}: {class}: {error}"));
    }
    check.seen = format!("{} poison message(s), and nothing else", ledger.traffic.poison.len());
    check
}

/// Byte for byte.
fn is_poison(letter: &StoredLetter, poison: &[u8]) -> bool {
    letter.subject == POISON_SUBJECT
        && letter.letter.as_ref().is_ok_and(|letter| {
            letter.class == FailureClass::Undecodable && letter.original.payload.as_ref() == poison
        })
}

fn is_listed(entry: &ListedLetter, letter: &StoredLetter) -> bool {
    entry.dlq_sequence == letter.sequence
        && letter.letter.as_ref().is_ok_and(|letter| letter.id() == entry.id)
}
