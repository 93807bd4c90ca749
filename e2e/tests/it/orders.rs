//! Nothing goes wrong.

use e2e::RunningShop;
use xtask::demo::{Progress, Traffic};

#[tokio::test]
async fn orders_on_every_path_add_up() {
    let running = RunningShop::start().await.unwrap();
    let traffic = Traffic::drive(&running.shop, 40, 8, &Progress::silent()).await.unwrap();
    running.audited(traffic).await.unwrap();
}
