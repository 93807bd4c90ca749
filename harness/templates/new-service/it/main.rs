//! Tests of {{ plan.member.package }} on a real nats-server. Those of its rules are in `src/{{ plan.entity }}.rs`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod consumer;
mod openapi;
mod routes;

use jetkit::EventLog;
use jetkit::http::HttpApi as _;
use jetkit::testing::{NatsServer, Routes};
use jetkit::{ReadModel, provision};
use {{ plan.library }}::http::Api;
use tempfile::TempDir;

/// The service without sockets, on a server of its own.
struct Harness {
    _server: NatsServer,
    _dir: TempDir,
    log: EventLog,
    http: Routes,
}

impl Harness {
    async fn start() -> Self {
        let server = NatsServer::start().await;
        let client = server.client().await;
        provision::streams(&client, &common::catalog(), 1).await.unwrap();
        let log = EventLog::new(client, "/{{ plan.member.package }}");
        let dir = TempDir::new().unwrap();
        let list = ReadModel::follow(&log, dir.path());
        let http = Routes::new(Api { store: log.store(), list }.routes());
        Self { _server: server, _dir: dir, log, http }
    }
}
