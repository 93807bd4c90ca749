//! [`ServiceInfo`]: who a binary is.

/// Who a binary is. [`about!`](crate::about) makes one.
#[derive(Debug, Clone, Copy)]
pub struct ServiceInfo {
    /// Its name: in logs, on the connection, in the source of its events, as the directory of its data.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// One line for `--help`.
    pub description: &'static str,
    /// The port that it listens on unless told otherwise.
    pub port: u16,
}

/// The [`ServiceInfo`] of the crate that calls it: `about!()`, or `about!(port = 8081)`. The port is 8080 if not given.
#[macro_export]
macro_rules! about {
    () => {
        $crate::about!(port = 8080)
    };
    (port = $port:expr) => {
        $crate::ServiceInfo {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            description: env!("CARGO_PKG_DESCRIPTION"),
            port: $port,
        }
    };
}
