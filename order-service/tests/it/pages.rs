//! Lists read from end to end by their cursors, over HTTP, while the shop goes on.

use jetkit::ReadModel;
use jetkit::testing::Answer;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::test_service::{TestService, routes};

fn ids(page: &Answer) -> Vec<String> {
    let items = page.body["items"].as_array().unwrap_or_else(|| panic!("{}", page.text));
    items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

/// The address in `Link: <…>; rel="next"`, which is the same as `next`.
fn next(page: &Answer) -> Option<String> {
    let link = page.header("link");
    assert_eq!(link.is_empty(), page.body["next"].is_null(), "{link} {}", page.text);
    let address = link.strip_prefix('<')?.strip_suffix("; rel=\"next\"")?.strip_suffix('>')?;
    let cursor = page.body["next"].as_str().unwrap();
    assert!(address.ends_with(&format!("cursor={cursor}")), "{address}");
    Some(address.to_owned())
}

async fn cancel(service: &TestService, order_id: &str) -> String {
    let cancelled = service.http.post(&format!("/orders/{order_id}/cancel"), json!({"reason": "no"})).await;
    assert_eq!(cancelled.status, 200);
    cancelled.header("event-sequence").to_owned()
}

#[tokio::test]
async fn orders_that_keep_their_status_are_seen_once_while_others_come_and_go() {
    let service = TestService::start().await;
    for n in 1..=9 {
        service.place(&format!("o-{n}")).await;
    }
    let (mut seen, mut page) = (Vec::new(), Some("/orders?status=Placed&per_page=2&page=1".to_owned()));
    let mut leaving = ["o-1", "o-2", "o-6", "o-9"].into_iter();
    while let Some(address) = page {
        let answer = service.http.get(&address).await;
        seen.extend(ids(&answer));
        page = next(&answer);
        // By pages counted off from the beginning, o-3 and o-4 would be passed over.
        if let Some(order_id) = leaving.next() {
            cancel(&service, order_id).await;
            service.place(&format!("new-{order_id}")).await;
        }
    }
    for order_id in ["o-3", "o-4", "o-5", "o-7", "o-8"] {
        assert_eq!(seen.iter().filter(|id| *id == order_id).count(), 1, "{order_id} in {seen:?}");
    }
}

#[tokio::test]
async fn a_cursor_is_good_on_another_replica_that_has_built_everything_again() {
    let service = TestService::start().await;
    for n in 1..=5 {
        service.place(&format!("o-{n}")).await;
    }
    let first = service.http.get("/orders?customer_id=guest-1&per_page=2").await;
    assert_eq!(ids(&first), ["o-1", "o-2"]);
    let sequence = cancel(&service, "o-3").await;

    let dir = TempDir::new().unwrap();
    let replica =
        routes(&service.harness.log, dir.path(), ReadModel::follow(&service.harness.log, dir.path()));
    let rest = replica.get(&format!("{}&min_sequence={sequence}", next(&first).unwrap())).await;
    assert_eq!(ids(&rest), ["o-3", "o-4"]);
    assert_eq!((&rest.body["page"], &rest.body["total"]), (&Value::Null, &json!(5)));
    assert_eq!(ids(&service.http.get(&next(&rest).unwrap()).await), ["o-5"]);
}

#[tokio::test]
async fn a_cursor_of_another_list_or_with_other_filters_or_a_page_is_refused() {
    let service = TestService::start().await;
    for n in 1..=3 {
        service.place(&format!("o-{n}")).await;
        let user = json!({"username": format!("ann-{n}"), "email": format!("ann-{n}@example.com")});
        assert_eq!(service.http.post("/users", &user).await.status, 201);
    }
    let first = service.http.get("/orders?status=Placed&per_page=1").await;
    let cursor = first.body["next"].as_str().unwrap().to_owned();
    assert!(cursor.len() <= 200, "{cursor}");
    let refused = async |path: &str| {
        let refused = service.http.get(path).await;
        refused.assert_problem(400, "bad-request");
        refused.body["detail"].as_str().unwrap().to_owned()
    };
    for path in [
        format!("/orders?cursor={cursor}"),
        format!("/orders?status=Shipped&cursor={cursor}"),
        format!("/orders?status=Placed&customer_id=guest-1&cursor={cursor}"),
        format!("/users?cursor={cursor}"),
        format!("/orders?status=Placed&cursor={}", &cursor[1..]),
        format!("/orders?status=Placed&cursor={cursor}{cursor}{cursor}{cursor}"),
        "/orders?status=Placed&cursor=".to_owned(),
        "/orders?status=Placed&cursor=2".to_owned(),
        "/orders?status=Placed&cursor=%00%ff".to_owned(),
    ] {
        assert!(refused(&path).await.contains("`next` of an earlier answer"), "{path}");
    }
    let both = refused(&format!("/orders?status=Placed&page=1&cursor={cursor}")).await;
    assert!(both.starts_with("Give page or cursor"), "{both}");
    refused(&format!("/orders?status=Placed&cursor={cursor}&cursor={cursor}")).await;
    // Another size of the page and a position to wait for are no filters.
    let path = format!("/orders?status=Placed&per_page=2&min_sequence=0&cursor={cursor}");
    assert_eq!(ids(&service.http.get(&path).await), ["o-2", "o-3"]);
}

#[tokio::test]
async fn users_are_seen_once_while_a_search_stops_matching_some() {
    let service = TestService::start().await;
    let mut users = Vec::new();
    for n in 1..=5 {
        let user = json!({"username": format!("ann-{n}"), "email": format!("ann-{n}@example.com")});
        users.push(service.http.post("/users", &user).await.body["id"].as_str().unwrap().to_owned());
    }
    let first = service.http.get("/users?search=ann-&per_page=2").await;
    let renamed = json!({"username": "bob", "email": "bob@example.com"});
    let path = format!("/users/{}", users[0]);
    let moved = service.http.send(axum::http::Method::PATCH, &path, &[], &renamed).await;
    assert_eq!(moved.status, 200);
    let second = service.http.get(&next(&first).unwrap()).await;
    let third = service.http.get(&next(&second).unwrap()).await;
    assert_eq!([ids(&first), ids(&second), ids(&third)].concat(), users);
    assert_eq!(next(&third), None);
}
