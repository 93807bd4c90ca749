//! What a read of a read model is as an HTTP answer.

use std::time::Duration;

use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use crate::projection::{Behind, ReadError, Seen};

impl<T: IntoResponse> IntoResponse for Seen<T> {
    fn into_response(self) -> Response {
        let mut response = self.value.into_response();
        response.headers_mut().insert(HeaderName::from_static("event-sequence"), self.sequence.into());
        response
    }
}

impl From<Behind> for Problem {
    fn from(behind: Behind) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "behind", "This read model has not come that far yet")
            .detail(behind.to_string())
            .retry_after(Duration::from_secs(1))
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Starting => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "starting", "The service is starting")
                    .retry_after(Duration::from_secs(1))
            }
            ReadError::Busy | ReadError::TooSlow => Self::unavailable(error),
            ReadError::Cursor(reason) => Self::bad_request(reason.to_string()),
            ReadError::Failed(_) => Self::internal(error),
        }
    }
}
