//! Identity: an event of another producer is known by its source, id, type and entity, and never by its id alone.

use async_nats::Client;
use async_nats::jetstream::message::PublishMessage;
use jetkit::testing::eventually;
use jetkit::{
    Cause, EventLog, EventStore, ExecuteError, FailureClass, Handler, HandlerError, HandlerResult, Recorded,
    RejectRefusal, StoreError, Timers,
};
use serde_json::{Value, json};

use crate::consumer::{dead_letters, quick, run, settled};
use crate::toy::{self, Lamp, LampCommand, LampFitted, LampLit, Notes, SOON, cause, id, lit};

const OURS: &str = "0190a5c0-7d1c-7c2e-94f1-7c0b9a570f35";

/// Another producer's event.
fn foreign(event_id: &str, source: &str, event_type: &str, lamp: &str) -> Value {
    json!({
        "specversion": "1.0", "id": event_id, "source": source, "type": event_type,
        "time": "2026-01-01T00:00:00Z", "data": {"lamp_id": lamp, "by": "ann", "watts": 40},
    })
}

async fn publish(client: &Client, subject: &str, body: &Value) {
    let js = async_nats::jetstream::new(client.clone());
    js.publish(subject.to_owned(), body.to_string().into()).await.unwrap().await.unwrap();
}

fn light(lamp: &str, by: &str) -> LampCommand {
    LampCommand::Light { lamp_id: id(lamp), by: by.to_owned() }
}

async fn fit(store: &EventStore<Lamp>, lamp: &str) {
    let command = LampCommand::Fit { lamp_id: id(lamp), watts: 60 };
    store.execute(&id(lamp), &command, &cause()).await.unwrap();
}

/// Has each kind of effect: on an entity that all events share, on the log, later, and outside.
struct Reactor {
    log: EventLog,
    lamps: EventStore<Lamp>,
    timers: Timers,
    outside: Notes,
}

impl Reactor {
    async fn react(&self, lamp: &str, cause: &Cause) -> HandlerResult {
        self.lamps.execute(&id("shared"), &light("shared", "somebody"), cause).await.reject_refusal()?;
        self.log.publisher().publish(&lit("seen", lamp), cause).await?;
        self.outside.add(cause.derive("outside").as_str());
        let timer = lit(cause.derive("timer").as_str(), "later");
        Ok(self.timers.set(std::time::Duration::from_hours(1), &timer, cause).await?)
    }
}

impl Handler<LampLit> for Reactor {
    async fn handle(&self, event: Recorded<LampLit>) -> HandlerResult {
        match event.lamp_id.as_str() {
            "shared" | "seen" => Ok(()),
            lamp => self.react(lamp, &event.cause()).await,
        }
    }
}

impl Handler<LampFitted> for Reactor {
    async fn handle(&self, event: Recorded<LampFitted>) -> HandlerResult {
        match event.lamp_id.as_str() {
            "shared" => Ok(()),
            lamp => self.react(lamp, &event.cause()).await,
        }
    }
}

#[tokio::test]
async fn foreign_events_of_one_id_have_each_their_effects_in_every_combination() {
    let (_server, client, log) = toy::server().await;
    let lamps = log.store::<Lamp>();
    fit(&lamps, "shared").await;
    let outside = Notes::default();
    let reactor = std::sync::Arc::new(Reactor {
        log: log.clone(),
        lamps: lamps.clone(),
        timers: log.timers("c"),
        outside: outside.clone(),
    });
    let consumer = quick("c").on::<LampLit>(reactor.clone()).on::<LampFitted>(reactor);
    let running = run(consumer.on_timer::<LampLit>(crate::consumer::note(&Notes::default())), &client);
    let mut events = Vec::new();
    // An id of its own, one that looks like ours, and one that names a cause.
    for (event_id, causation) in [("e-1", ""), (OURS, ""), ("e-2", OURS)] {
        for source in ["", "/one", "/two"] {
            for event_type in ["lamp.lit", "lamp.fitted"] {
                for lamp in ["a", "b"] {
                    let mut event = foreign(event_id, source, event_type, lamp);
                    event["causationid"] = causation.into();
                    event["dataversion"] = if event_type == "lamp.lit" { 1 } else { 2 }.into();
                    events.push((format!("{event_type}.{lamp}.0"), event));
                }
            }
        }
    }
    // Each comes twice; the repeat is sent again by its producer, at another time.
    for time in ["2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"] {
        for (subject, event) in &mut events {
            event["time"] = time.into();
            publish(&client, subject, event).await;
        }
    }
    let lit = || async { lamps.load(&id("shared")).await.unwrap().state.lit };
    let expected = events.len();
    eventually(SOON, || async { (lit().await as usize >= expected).then_some(()) }).await;
    settled(&client, "c").await;
    assert_eq!(lit().await as usize, expected, "one for each event, and none for its repeat");
    assert_eq!(outside.all().len(), expected);
    let mut distinct = outside.all();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), expected, "what is done outside has a key for each event");
    let js = async_nats::jetstream::new(client.clone());
    let on = |stream: &'static str, filter: &'static str| {
        let js = js.clone();
        async move {
            let info = js.get_stream(stream).await.unwrap();
            let subjects = info.info_with_subjects(filter).await.unwrap();
            futures::TryStreamExt::try_fold(subjects, 0, |sum, (_, count)| async move { Ok(sum + count) })
                .await
                .unwrap()
        }
    };
    assert_eq!(on("EVENTS", "lamp.lit.seen.0").await, expected, "what is published is stored for each event");
    assert_eq!(on("TIMERS", "timer.set.c.>").await, expected);
    assert_eq!(js.get_stream("DLQ").await.unwrap().cached_info().state.messages, 0);

    // The same event does not come with something else to say: nobody can tell which is meant.
    let (subject, mut event) = events[0].clone();
    event["data"]["by"] = "eve".into();
    for _ in 0..2 {
        publish(&client, &subject, &event).await;
    }
    let letter = dead_letters(&client, 1).await.remove(0);
    assert_eq!((letter.class, letter.attempts), (FailureClass::Rejected, 0));
    assert!(letter.errors[0].contains("said something else"), "{:?}", letter.errors);
    settled(&client, "c").await;
    assert_eq!(js.get_stream("DLQ").await.unwrap().cached_info().state.messages, 1, "once");
    assert_eq!(lit().await as usize, expected);
    running.stop().await;
}

struct Adopter(EventStore<Lamp>);

impl Handler<LampLit> for Adopter {
    async fn handle(&self, event: Recorded<LampLit>) -> HandlerResult {
        let cause = Cause::adopting(&event);
        self.0
            .execute(&event.lamp_id, &light(event.lamp_id.as_str(), &event.by), &cause)
            .await
            .reject_refusal()?;
        Ok(())
    }
}

/// Where, under which id, and whose: what was recorded of lamps that were lit.
async fn recorded(lamps: &EventStore<Lamp>) -> Vec<String> {
    let mut recorded = Vec::new();
    for lamp in ["a", "b"] {
        let history = lamps.history_from(&id(lamp), 2).await.unwrap();
        recorded
            .extend(history.iter().map(|event| format!("{lamp} {} {}", event.meta.id, event.meta.source)));
    }
    recorded.sort();
    recorded
}

#[tokio::test]
async fn adopted_events_of_one_id_are_each_recorded_under_their_own_source() {
    let (_server, client, log) = toy::server().await;
    let lamps = log.store::<Lamp>();
    fit(&lamps, "a").await;
    fit(&lamps, "b").await;
    let running = run(quick("owner").adopt::<LampLit>(Adopter(lamps.clone())), &client);
    let events: Vec<_> = ["/one", "/two"]
        .into_iter()
        .flat_map(|source| ["a", "b"].map(|lamp| foreign("e-1", source, "lamp.lit", lamp)))
        .collect();
    for subject in ["lamp.lit", "lamp.lit"] {
        for event in &events {
            publish(&client, subject, event).await;
        }
    }
    let all = ["a e-1 /one", "a e-1 /two", "b e-1 /one", "b e-1 /two"];
    eventually(SOON, || async { (recorded(&lamps).await.len() >= all.len()).then_some(()) }).await;
    settled(&client, "owner").await;
    assert_eq!(recorded(&lamps).await, all);

    // Whoever never heard of the first ones knows them by what is recorded.
    let fresh = Adopter(EventLog::new(client.clone(), "/test").store());
    for event in &events {
        fresh.handle(read(event)).await.unwrap();
    }
    assert_eq!(recorded(&lamps).await, all);
    let mut other = read(&events[0]);
    other.event.by = "eve".to_owned();
    let refused = fresh.handle(other).await;
    let Err(HandlerError::Reject(error)) = refused else { panic!("{refused:?}") };
    assert!(
        matches!(
            error.downcast_ref(),
            Some(ExecuteError::<toy::LampRejection>::Store(StoreError::CauseReused { .. }))
        ),
        "{error:#}"
    );
    running.stop().await;
}

/// As a consumer reads it.
fn read(event: &Value) -> Recorded<LampLit> {
    let body = event.to_string();
    let envelope = jetkit::Envelope::decode(body.as_bytes()).unwrap();
    let meta = envelope.metadata().unwrap();
    Recorded { event: envelope.event().unwrap(), stored_at: meta.time, meta, version: 0, sequence: 1 }
}

#[tokio::test]
async fn dead_letters_of_one_event_id_are_each_redriven() {
    let (_server, client, _log) = toy::server().await;
    struct Later(Notes, std::sync::atomic::AtomicBool);
    impl Handler<LampLit> for std::sync::Arc<Later> {
        async fn handle(&self, event: Recorded<LampLit>) -> HandlerResult {
            if !self.1.load(std::sync::atomic::Ordering::Acquire) {
                return Err(HandlerError::reject(anyhow::anyhow!("not yet")));
            }
            self.0.add(format!("{} {}", event.lamp_id, event.meta.source));
            Ok(())
        }
    }
    let notes = Notes::default();
    let later = std::sync::Arc::new(Later(notes.clone(), false.into()));
    let running = run(quick("owner").adopt::<LampLit>(later.clone()), &client);
    for (source, lamp) in [("/one", "a"), ("/one", "b"), ("/two", "a")] {
        publish(&client, "lamp.lit", &foreign("e-1", source, "lamp.lit", lamp)).await;
    }
    let letters = dead_letters(&client, 3).await;
    later.1.store(true, std::sync::atomic::Ordering::Release);
    for letter in &letters {
        letter.redrive(&client, None).await.unwrap();
    }
    let mut handled = notes.reach(3).await;
    handled.sort();
    assert_eq!(handled, ["a /one", "a /two", "b /one"]);
    running.stop().await;
}

#[tokio::test]
async fn what_an_earlier_release_did_for_a_foreign_event_is_not_done_again() {
    let (_server, client, log) = toy::server().await;
    let lamps = log.store::<Lamp>();
    fit(&lamps, "shared").await;
    // As it was recorded while only the event's id counted.
    let [first, second] = ["a", "b"].map(|lamp| read(&foreign("e-1", "/one", "lamp.lit", lamp)).cause());
    let before = first.derive_by_id_alone("lamp shared 0").unwrap();
    let mut event = foreign(before.as_str(), "/test", "lamp.lit", "shared");
    event["causationid"] = "e-1".into();
    publish(&client, "lamp.lit.shared.2", &event).await;

    let again = lamps.execute(&id("shared"), &light("shared", "ann"), &first).await.unwrap();
    assert_eq!((again.version, again.repeated, again.events.len()), (2, true, 1));
    // Another event's command, by what it leads to.
    let other = lamps.execute(&id("shared"), &light("shared", "bob"), &second).await.unwrap();
    assert_eq!((other.version, other.repeated), (3, false));
    // Adopted while sources were not kept.
    let mut adopted = foreign("e-9", "/test", "lamp.lit", "shared");
    publish(&client, "lamp.lit.shared.4", &adopted).await;
    adopted["source"] = "/one".into();
    Adopter(log.store()).handle(read(&adopted)).await.unwrap();
    assert_eq!(log.store::<Lamp>().load(&id("shared")).await.unwrap().version, 4);
}

#[tokio::test]
async fn a_repeated_answer_holds_the_events_of_its_own_decision_only() {
    let (_server, _client, log) = toy::server().await;
    let lamps = log.store::<Lamp>();
    fit(&lamps, "shared").await;
    let causes = ["a", "b", "c"].map(|lamp| read(&foreign("e-1", "/one", "lamp.lit", lamp)).cause());
    for (repeated, store) in [(false, lamps.clone()), (true, lamps), (true, log.store())] {
        for (cause, version) in causes.iter().zip(2..) {
            let answer = store.execute(&id("shared"), &light("shared", "ann"), cause).await.unwrap();
            assert_eq!((answer.version, answer.events.len(), answer.repeated), (version, 1, repeated));
        }
    }
}

#[tokio::test]
async fn a_message_id_that_two_producers_share_keeps_no_event_of_ours_from_the_log() {
    let (_server, client, log) = toy::server().await;
    let js = async_nats::jetstream::new(client.clone());
    let send = async |event: &Value, subject: &'static str| {
        let message = PublishMessage::build().payload(event.to_string().into()).message_id("e-1");
        js.send_publish(subject, message).await.unwrap().await.unwrap()
    };
    let [one, two] = ["a", "b"].map(|lamp| foreign("e-1", "/one", "lamp.lit", lamp));
    let first = send(&one, "lamp.lit").await;
    // The server answers for the whole stream: the second is not stored, and only its producer can hear of it.
    let second = send(&two, "lamp.lit.b").await;
    assert_eq!((first.duplicate, second.duplicate, second.sequence), (false, true, first.sequence));

    let lamps = log.store::<Lamp>();
    for event in [&one, &two] {
        let event = read(event);
        fit(&lamps, event.lamp_id.as_str()).await;
        Adopter(lamps.clone()).handle(event.clone()).await.unwrap();
        // Outside the aggregate too, under the same id.
        let published = log.publisher().publish(&event.event, &Cause::adopting(&event)).await.unwrap();
        assert!(!published.duplicate);
    }
    assert_eq!(recorded(&lamps).await, ["a e-1 /one", "b e-1 /one"]);
}
