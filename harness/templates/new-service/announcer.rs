//! What the service does when something happened to {{ plan.words }}.

use common::{{ plan.entity }}::{{ plan.first().rust_type }};
use jetkit::{Handler, HandlerResult, Recorded};
use tracing::info;

/// Says in the log what happened. What it works with (a client, a store) goes into its fields.
///
/// `?` on an error means: try again later. `.or_reject()?` means: this will never work, give it to the dead letters. An
/// event may come twice, so an effect outside needs a key of its own: `event.cause().derive(…)`.
#[derive(Debug, Clone, Copy)]
pub struct Announcer;

impl Handler<{{ plan.first().rust_type }}> for Announcer {
    async fn handle(&self, event: Recorded<{{ plan.first().rust_type }}>) -> HandlerResult {
        info!(
            event.id = %event.meta.id,
            entity.id = %event.{{ plan.entity }}_id,
            quantity = event.quantity,
            "{{ plan.first().event_type }}"
        );
        Ok(())
    }
}
