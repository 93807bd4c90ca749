//! Waiting times that differ from one to the next, so that many who failed together do not come back together.

use std::time::Duration;

/// The same, shortened at random by up to half.
pub(crate) fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(0.5 + fastrand::f64() / 2.0)
}
