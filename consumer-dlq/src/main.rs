//! Keeps dead letters, shows them, and sends them back to the consumer that failed.

use std::sync::Arc;

use consumer_dlq::archive::Archive;
use consumer_dlq::dead_letters::DeadLetters;
use consumer_dlq::http::Api;
use jetkit::http::HttpApi as _;
use jetkit::{NoSettings, Service};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let about = jetkit::about!(port = 8086);
    let (mut service, _) = Service::start::<NoSettings>(about, common::catalog()).await?;
    let letters = service.read_model::<DeadLetters>()?;
    let archive = Archive::new(service.client().clone(), letters);
    service.serve(Api { archive, catalog: Arc::new(common::catalog()) }.routes());
    service.run().await
}
