//! Tells customers by mail what becomes of their orders.

use std::sync::Arc;

use clap::Args;
use consumer_email::eml::EmlFiles;
use consumer_email::http::Api;
use consumer_email::letter::Sender;
use consumer_email::mail_list::MailList;
use consumer_email::mailer::Mailer;
use consumer_email::smtp::{Smtp, SmtpUrl};
use consumer_email::transport::MailTransport;
use jetkit::Service;
use jetkit::http::HttpApi as _;

/// Settings of consumer-email.
#[derive(Debug, Args)]
struct Settings {
    /// The SMTP server, such as smtp://localhost:1025 or smtps://user:password@mail.example.com. Without it, mails are
    /// written as .eml files to `mails` under the data directory
    #[arg(long, env = "SMTP_URL", hide_env_values = true)]
    smtp_url: Option<SmtpUrl>,

    /// Who the mails are from
    #[arg(long, env = "MAIL_FROM", default_value = "The Shop <shop@example.com>")]
    mail_from: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let about = jetkit::about!(port = 8085);
    let (mut service, settings) = Service::start::<Settings>(about, common::catalog()).await?;
    let mails = service.read_model::<MailList>()?;
    let transport: Arc<dyn MailTransport> = match &settings.smtp_url {
        Some(url) => Arc::new(Smtp::new(url)),
        None => Arc::new(EmlFiles::new(service.data_dir()?.join("mails"))?),
    };
    let sender = Sender::new(&settings.mail_from)?;
    let mailer = Mailer::new(service.log().clone(), sender, transport);
    service.consume(consumer_email::consumer(mailer));
    service.serve(Api { mails }.routes());
    service.run().await
}
