//! A mail server that says too much: it costs a bounded number of bytes, and the mail is tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use consumer_email::letter::{Letter, News};
use consumer_email::smtp::Smtp;
use consumer_email::transport::{MailTransport as _, SendError};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::{id, order, sender};

/// More than the buffers of both sockets hold.
const MUCH: usize = 32 * 1024 * 1024;

struct Talker {
    url: String,
    sent: Arc<AtomicUsize>,
    _talking: AbortOnDropHandle<()>,
}

/// Says `first`, then `more` for ever, whatever it is told.
async fn talker(first: &'static str, more: String) -> Talker {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let talking = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        client.write_all(first.as_bytes()).await.unwrap();
        let more = more.repeat(256);
        while client.write_all(more.as_bytes()).await.is_ok() {
            counted.fetch_add(more.len(), Ordering::Relaxed);
        }
    });
    Talker { url, sent, _talking: AbortOnDropHandle::new(talking) }
}

async fn send(url: &str) -> Result<(), SendError> {
    let order = order("o-1");
    let to = "alice@example.org".parse().unwrap();
    let letter =
        Letter::compose(&sender(), to, &id("m-1"), "<m-1@example.com>", &order, News::Placed).unwrap();
    Smtp::new(&url.parse().unwrap()).send(&letter).await
}

#[tokio::test]
async fn a_server_that_never_ends_its_line_or_its_answer_costs_bounded_memory() {
    let line = |code: &str| format!("{code}-{}\r\n", "z".repeat(400));
    for (first, more) in [
        ("220 ", "x".to_owned()),
        ("", line("220")),
        ("220 test\r\n250-", "y".to_owned()),
        ("220 test\r\n", line("250")),
    ] {
        let talker = talker(first, more.clone()).await;
        let refused = send(&format!("smtp://{}", talker.url)).await.unwrap_err();
        assert!(matches!(refused, SendError::Unavailable { .. }), "{refused:?}");
        let sent = talker.sent.load(Ordering::Relaxed);
        assert!(sent < MUCH, "it took {sent} bytes of {first:?} and {more:?}");
    }
}

#[tokio::test]
async fn a_server_without_the_tls_that_is_wanted_is_sent_no_mail() {
    for (scheme, query) in [("smtps", ""), ("smtp", "?tls=required")] {
        let server = crate::smtp_server::SmtpServer::start().await;
        let url = format!("{scheme}://{}{query}", server.address());
        let refused = send(&url).await.unwrap_err();
        assert!(matches!(refused, SendError::Unavailable { .. }), "{url}: {refused:?}");
        assert_eq!(server.received(), []);
    }
    let server = crate::smtp_server::SmtpServer::start().await;
    send(&format!("smtp://{}?tls=opportunistic", server.address())).await.unwrap();
    assert_eq!(server.received().len(), 1);
}
