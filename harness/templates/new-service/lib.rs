//! Keeps the history of {{ plan.words }}: [`{{ plan.entity }}`] has the rules, [`{{ plan.entity }}_list`] is what readers see,
//! [`http`] takes commands and questions, [`announcer`] reacts to what happens. `main.rs` wires them.

pub mod announcer;
pub mod http;
pub mod {{ plan.entity }};
pub mod {{ plan.entity }}_list;

use common::{{ plan.entity }}::{{ plan.first().rust_type }};
use jetkit::Consumer;

/// Returns the one consumer. Its name is the durable's: renaming it handles the whole log again.
pub fn consumer(announcer: announcer::Announcer) -> Consumer {
    Consumer::new("{{ plan.member.package }}").on::<{{ plan.first().rust_type }}>(announcer)
}
