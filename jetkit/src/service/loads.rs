//! Aggregates that are in memory before the first event comes.

use std::time::Duration;

use tracing::{info, warn};

use crate::health::CheckHandle;
use crate::jitter::jittered;
use crate::{Aggregate, EntityId, EventStore};

/// How long to wait after a failure. What was read before it is kept.
const PAUSE: Duration = Duration::from_secs(1);

/// Loads one, however long that takes and however often the server goes away, and reports how far it has come.
pub(super) async fn load<A: Aggregate>(store: EventStore<A>, id: EntityId, check: CheckHandle) {
    check.set_ready(false, "loading");
    loop {
        let told = check.clone();
        let progress = move |version: u64| told.set_ready(false, format!("loading: {version} events so far"));
        match store.warm_up_telling(&id, progress).await {
            Ok(()) => break,
            Err(error) => {
                warn!(entity = A::ENTITY, entity.id = %id, %error, "loading was interrupted; going on");
                check.set_ready(false, format!("loading was interrupted, going on: {error}"));
                tokio::time::sleep(jittered(PAUSE)).await;
            }
        }
    }
    info!(entity = A::ENTITY, entity.id = %id, "loaded");
    check.set_ready(true, "loaded");
}
