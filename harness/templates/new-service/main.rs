//! Keeps the history of {{ plan.words }}. Everything is wired here.

use jetkit::http::HttpApi as _;
use jetkit::{NoSettings, Service};
use {{ plan.library }}::announcer::Announcer;
use {{ plan.library }}::http::Api;
use {{ plan.library }}::{{ plan.entity }}::{{ plan.aggregate }};
use {{ plan.library }}::{{ plan.entity }}_list::{{ plan.aggregate }}List;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let about = jetkit::about!(port = {{ plan.member.port }});
    let (mut service, _) = Service::start::<NoSettings>(about, common::catalog()).await?;
    let store = service.log().store::<{{ plan.aggregate }}>();
    let list = service.read_model::<{{ plan.aggregate }}List>()?;
    service.consume({{ plan.library }}::consumer(Announcer));
    service.serve(Api { store, list }.routes());
    service.query("{{ plan.entity }}.get", "/{{ plan.path }}");
    service.run().await
}
