//! A server that is too old is met at the start, or by a reconnect.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const REFUSAL: &str = "nats-server 2.9.10 is too old: toy needs 2.12 or newer";

/// Not a broker: only the greeting of one, and an answer to the first ping.
async fn greet(mut client: TcpStream) {
    let info = br#"INFO {"server_id":"x","version":"2.9.10","max_payload":1048576}"#;
    client.write_all(&[info, &b"\r\nPONG\r\n"[..]].concat()).await.unwrap();
    client.read_to_end(&mut Vec::new()).await.unwrap();
}

#[tokio::test]
async fn an_old_server_is_refused_in_plain_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { greet(listener.accept().await.unwrap().0).await });
    assert_eq!(launch(settings(&url, 10)).await.unwrap_err().to_string(), REFUSAL);
}

#[tokio::test]
async fn a_service_that_reconnects_to_an_old_server_stops_and_says_why() {
    let mut nats = NatsServer::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let (new, is_old) = (nats.address(), Arc::new(AtomicBool::new(false)));
    let old = Arc::clone(&is_old);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            if old.load(Ordering::SeqCst) {
                tokio::spawn(greet(client));
            } else if let Ok(mut server) = TcpStream::connect(new).await {
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
            }
        }
    });
    let toy = Running::start_with(settings(&url, 10), |_| {}).await;
    toy.becomes_ready().await;
    is_old.store(true, Ordering::SeqCst);
    nats.kill();
    assert_eq!(toy.end().await.unwrap_err().to_string(), REFUSAL);
}
