//! Counts what the shop does, from its log, and shows it.

use consumer_analytics::http::Api;
use consumer_analytics::shop_metrics::ShopMetrics;
use jetkit::http::HttpApi as _;
use jetkit::{NoSettings, Service};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let about = jetkit::about!(port = 8084);
    let (mut service, _) = Service::start::<NoSettings>(about, common::catalog()).await?;
    let metrics = service.read_model::<ShopMetrics>()?;
    service.serve(Api { metrics }.routes());
    service.run().await
}
