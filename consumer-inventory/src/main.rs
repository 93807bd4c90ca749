//! Reserves stock for orders that are placed, gives it back when they are cancelled, sends it out when they ship.

use consumer_inventory::http::Api;
use consumer_inventory::stock::Stock;
use consumer_inventory::stock_list::StockList;
use consumer_inventory::storekeeper::Storekeeper;
use jetkit::http::HttpApi as _;
use jetkit::{NoSettings, Service};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let about = jetkit::about!(port = 8083);
    let (mut service, _) = Service::start::<NoSettings>(about, common::catalog()).await?;
    let stock = service.read_model::<StockList>()?;
    let warehouses = service.log().store::<Stock>();
    let storekeeper = Storekeeper::new(warehouses.clone())?;
    service.load_first(&warehouses, storekeeper.warehouse());
    service.consume(consumer_inventory::consumer(storekeeper.clone()));
    service.serve(Api { storekeeper, stock }.routes());
    service.query("stock.get", "/stock");
    service.run().await
}
