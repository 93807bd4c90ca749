//! The streams of a deployment: their names, and what they hold at most.

use std::time::Duration;

/// The stream that holds every domain event. Renaming it orphans every durable and every dead letter.
pub const EVENTS: &str = "EVENTS";

/// The stream of timers that are set, and of those that are due.
pub const TIMERS: &str = "TIMERS";

/// The stream of dead letters, of the requests to try them again, and of their dismissals.
pub const DLQ: &str = "DLQ";

/// The key-value bucket of snapshots. It may be deleted at any time: see [`crate::Aggregate::STATE_VERSION`].
pub const SNAPSHOTS: &str = "SNAPSHOTS";

/// The stream that keeps what the server says about consumers that gave up on a message.
pub const ADVISORIES: &str = "ADVISORIES";

/// How long the server remembers message ids. A publisher's retries must end well before.
pub const DUPLICATE_WINDOW: Duration = Duration::from_mins(2);

/// The largest event, headers and envelope included.
pub const MAX_EVENT_BYTES: i32 = 256 * 1024;

/// The largest dead letter: a message of the largest size that a server takes by default, in JSON with its headers.
pub(crate) const MAX_DEAD_LETTER_BYTES: i32 = 1024 * 1024;
