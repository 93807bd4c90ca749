//! A read model: complete up to its position, each event once, whatever is killed, deleted, damaged or replaced.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jetkit::http::MinSequence;
use jetkit::projection::{ReadError, Tables, rusqlite};
use jetkit::testing::eventually;
use jetkit::{Event, EventLog, EventSet, Projection, ReadModel, Recorded, provision};
use tempfile::TempDir;

use crate::toy::{Lamp, LampCommand, LampEvent, LampFitted, LampLit, SOON, catalog, cause, id, lit, server};

/// Every event, in the order in which they were taken in.
pub(crate) struct Usage<const VERSION: u32>;

const USAGE: &str = "
CREATE TABLE seen (place INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, lamp TEXT NOT NULL);
CREATE TABLE lit (lamp TEXT PRIMARY KEY, times INTEGER NOT NULL) WITHOUT ROWID;
";

impl<const VERSION: u32> Projection for Usage<VERSION> {
    const NAME: &'static str = "usage";
    const VERSION: u32 = VERSION;
    const SCHEMA: &'static str = USAGE;
    type Event = Recorded<LampEvent>;

    fn apply(tables: &Tables<'_>, event: &Recorded<LampEvent>) -> anyhow::Result<()> {
        if let LampEvent::Lit(lit) = &event.event {
            // What is written before the failure must not stay.
            tables.run(
                "INSERT INTO lit VALUES (?1, 1) ON CONFLICT DO UPDATE SET times = times + 1",
                [&lit.lamp_id],
            )?;
            anyhow::ensure!(lit.by != "nobody", "nobody lights no lamp");
            assert!(lit.by != "a ghost", "afraid of ghosts");
        }
        let lamp = event.entity_id();
        tables.run("INSERT INTO seen (sequence, lamp) VALUES (?1, ?2)", (event.sequence, lamp))?;
        Ok(())
    }
}

jetkit::events! {
    enum OnlyFitted { Fitted(LampFitted) }
}

/// How many watts each lamp has.
struct Watts;

impl Projection for Watts {
    const NAME: &'static str = "watts";
    const SCHEMA: &'static str =
        "CREATE TABLE watts (lamp TEXT PRIMARY KEY, watts INTEGER NOT NULL) WITHOUT ROWID";
    type Event = Recorded<OnlyFitted>;

    fn apply(tables: &Tables<'_>, event: &Recorded<OnlyFitted>) -> anyhow::Result<()> {
        let OnlyFitted::Fitted(fitted) = &event.event;
        tables.run("INSERT INTO watts VALUES (?1, ?2)", (&fitted.lamp_id, fitted.watts))?;
        Ok(())
    }
}

pub(crate) async fn fit(log: &EventLog, lamp: &str, watts: u32) -> u64 {
    let command = LampCommand::Fit { lamp_id: id(lamp), watts };
    log.store::<Lamp>().execute(&id(lamp), &command, &cause()).await.unwrap().sequence
}

pub(crate) async fn light(log: &EventLog, lamp: &str, by: &str) -> u64 {
    let command = LampCommand::Light { lamp_id: id(lamp), by: by.into() };
    log.store::<Lamp>().execute(&id(lamp), &command, &cause()).await.unwrap().sequence
}

/// Everything that was taken in, in order.
pub(crate) async fn seen<P: Projection>(model: &ReadModel<P>) -> Vec<u64> {
    let read =
        |tables: &Tables<'_>| tables.all("SELECT sequence FROM seen ORDER BY place", [], |row| row.get(0));
    model.read(read).await.unwrap().value
}

pub(crate) async fn times(model: &ReadModel<Usage<1>>, lamp: &'static str) -> u64 {
    let read = move |tables: &Tables<'_>| {
        tables.first("SELECT times FROM lit WHERE lamp = ?1", [lamp], |row| row.get(0))
    };
    model.read(read).await.unwrap().value.unwrap_or(0)
}

/// What a file holds that nobody has open: its position, and what was taken in.
fn on_disk(path: &Path) -> (u64, Vec<u64>) {
    let db = rusqlite::Connection::open(path).unwrap();
    let position = db.query_row("SELECT sequence FROM eventkit_position", [], |row| row.get(0)).unwrap();
    let mut seen = db.prepare("SELECT sequence FROM seen ORDER BY place").unwrap();
    let seen = seen.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    (position, seen)
}

fn files(dir: &TempDir) -> BTreeSet<String> {
    let names =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".sqlite") || name.contains("building")).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Lets go of a read model, and waits until its files may be opened again.
pub(crate) async fn close<P: Projection>(model: ReadModel<P>, dir: &TempDir) {
    drop(model);
    let lock = std::fs::File::open(dir.path().join(format!("{}.lock", P::NAME))).unwrap();
    eventually(SOON, || async { lock.try_lock().ok() }).await;
}

#[tokio::test]
async fn a_writer_reads_what_it_wrote_without_asking_for_it() {
    let (_server, _client, log) = server().await;
    let dir = TempDir::new().unwrap();
    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    fit(&log, "a", 60).await;
    for count in 1..50 {
        let sequence = light(&log, "a", "me").await;
        assert_eq!(times(model.at(MinSequence(None)).await.unwrap(), "a").await, count);
        assert!(model.watermark() >= sequence);
    }
    let published = log.publisher().publish(&lit("b", "me"), &cause()).await.unwrap();
    assert_eq!(times(model.at(MinSequence(None)).await.unwrap(), "b").await, 1);
    assert!(model.watermark() >= published.sequence);
}

#[tokio::test]
async fn another_writers_events_are_seen_from_the_position_that_is_asked_for() {
    let (_server, client, log) = server().await;
    let dir = TempDir::new().unwrap();
    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    let other = EventLog::new(client, "/other");
    fit(&other, "a", 60).await;
    for count in 1..20 {
        let sequence = light(&other, "a", "me").await;
        let read = model.at(MinSequence(Some(sequence))).await.unwrap();
        assert_eq!(times(read, "a").await, count);
        assert!(read.read(|_| Ok(())).await.unwrap().sequence >= sequence);
    }
}

#[tokio::test]
async fn a_position_held_by_an_event_that_the_projection_does_not_follow_is_reached() {
    let (_server, _client, log) = server().await;
    let dir = TempDir::new().unwrap();
    let model = ReadModel::<Watts>::follow(&log, dir.path());
    fit(&log, "a", 60).await;
    let sequence = light(&log, "a", "me").await;
    model.at_least(sequence, SOON).await.unwrap();
    let watts =
        model.read(|tables| tables.first("SELECT watts FROM watts", [], |row| row.get(0))).await.unwrap();
    assert_eq!((watts.value, watts.sequence), (Some(60), sequence));
}

#[tokio::test]
async fn a_position_that_is_not_there_yet_is_waited_for_and_then_refused() {
    let (_server, _client, log) = server().await;
    let dir = TempDir::new().unwrap();
    let sequence = fit(&log, "a", 60).await;
    let model = ReadModel::<Watts>::follow(&log, dir.path());
    model.caught_up().await;
    let behind = model.at_least(sequence + 1, Duration::from_millis(100)).await.unwrap_err();
    assert_eq!((behind.wanted, behind.at), (sequence + 1, sequence));
}

#[tokio::test]
async fn an_event_that_cannot_be_taken_in_is_parked_with_the_reason_and_the_rest_goes_on() {
    let (_server, client, log) = server().await;
    let dir = TempDir::new().unwrap();
    fit(&log, "a", 60).await;
    let js = async_nats::jetstream::new(client);
    let no_lamp = r#"{"specversion":"1.0","id":"x","type":"lamp.lit","data":5}"#;
    for (version, poison) in [(1, "not an event"), (2, no_lamp), (3, "")] {
        let subject = format!("{}.poison.{version}", LampLit::TYPE);
        js.publish(subject, poison.into()).await.unwrap().await.unwrap();
    }
    for by in ["me", "nobody", "me", "a ghost", "me"] {
        light(&log, "a", by).await;
    }
    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    let last = light(&log, "a", "nobody").await;
    model.at_least(last, SOON).await.unwrap();
    assert_eq!(seen(&model).await, [1, 5, 7, 9]);
    assert_eq!(times(&model, "a").await, 3, "what was parked has no effect at all");
    let parked = "SELECT sequence, subject, error FROM eventkit_parked ORDER BY sequence";
    let parked = model.read(|tables| {
        tables.all(parked, [], |row| {
            Ok((row.get::<_, u64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })
    });
    let parked = parked.await.unwrap().value;
    assert_eq!(parked.iter().map(|(sequence, ..)| *sequence).collect::<Vec<_>>(), [2, 3, 4, 6, 8, 10]);
    assert_eq!(parked[0].1, "lamp.lit.poison.1");
    assert_eq!(parked[3].2, "nobody lights no lamp");
    assert_eq!(parked[4].2, "panicked: afraid of ghosts");

    // It stays parked, and is not taken in again.
    close(model, &dir).await;
    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    let last = light(&log, "a", "me").await;
    model.at_least(last, SOON).await.unwrap();
    assert_eq!(seen(&model).await, [1, 5, 7, 9, last]);
}

#[tokio::test]
async fn a_read_model_outlives_its_server_and_sees_each_event_once() {
    let (mut server, _client, log) = server().await;
    let dir = TempDir::new().unwrap();
    fit(&log, "a", 60).await;
    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    model.caught_up().await;
    server.kill();
    assert_eq!(seen(&model).await, [1], "reads do not need the server");
    let impatient = tokio::spawn({
        let model = model.clone();
        async move { model.at_least(2, SOON).await }
    });
    server.restart().await;
    let log = EventLog::new(server.client().await, "/test");
    let sequence = light(&log, "a", "me").await;
    model.at_least(sequence, SOON).await.unwrap();
    impatient.await.unwrap().unwrap();
    assert_eq!(seen(&model).await, [1, sequence]);
}

#[tokio::test]
async fn no_event_that_becomes_visible_late_is_skipped() {
    let (_server, _client, log) = server().await;
    let dir = TempDir::new().unwrap();
    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    let publishers: Vec<_> = (0..16).map(|_| log.publisher()).collect();
    let writing: FuturesUnordered<_> =
        (0..16 * 150)
            .map(|n: usize| {
                let publisher = publishers[n % 16].clone();
                async move {
                    publisher.publish(&lit(&format!("l{}", n % 40), "me"), &cause()).await.unwrap().sequence
                }
            })
            .collect();
    let written: BTreeSet<u64> = writing.collect().await;
    model.at_least(*written.last().unwrap(), SOON).await.unwrap();
    assert_eq!(seen(&model).await, written.into_iter().collect::<Vec<_>>(), "each once, in the log's order");
}

/// The process that is killed in the next test: it takes events in until then.
#[tokio::test]
async fn child_that_is_killed_while_it_writes() {
    let Ok(url) = std::env::var("EVENTKIT_TEST_CHILD_OF") else { return };
    let dir = PathBuf::from(std::env::var_os("EVENTKIT_TEST_DIR").unwrap());
    let client = async_nats::connect(url).await.unwrap();
    let _model = ReadModel::<Usage<1>>::follow(&EventLog::new(client, "/child"), dir);
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_process_killed_at_any_moment_leaves_position_and_effects_together() {
    let (server, _client, log) = server().await;
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("usage.v1.sqlite");
    // There is a file to go on with, and not only a build that starts from nothing each time.
    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    fit(&log, "a", 60).await;
    model.at_least(1, SOON).await.unwrap();
    close(model, &dir).await;

    let publisher = log.publisher();
    let mut written: Vec<u64> = vec![1];
    for kill in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "projection::child_that_is_killed_while_it_writes", "--nocapture"]);
        child.env("EVENTKIT_TEST_CHILD_OF", server.url()).env("EVENTKIT_TEST_DIR", dir.path());
        let mut child = child.stdout(std::process::Stdio::null()).spawn().unwrap();
        let before = *written.last().unwrap();
        let mut writing: FuturesUnordered<_> = (0..400)
            .map(|n| {
                let (publisher, lamp) = (publisher.clone(), format!("l{}", n % 7));
                async move { publisher.publish(&lit(&lamp, "me"), &cause()).await.unwrap().sequence }
            })
            .collect();
        // Killed at another point of its work each time, while more is being written.
        let mut killed = false;
        while let Some(sequence) = writing.next().await {
            written.push(sequence);
            if !killed && written.len() % 400 > kill * 30 {
                let progress = || async {
                    let db = rusqlite::Connection::open_with_flags(
                        &path,
                        rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
                    );
                    let at = db
                        .ok()?
                        .query_row("SELECT sequence FROM eventkit_position", [], |row| row.get::<_, u64>(0));
                    (at.ok()? > before).then_some(())
                };
                eventually(SOON, progress).await;
                child.kill().unwrap();
                killed = true;
            }
        }
        drop(child.kill());
        child.wait().unwrap();
        written.sort_unstable();
        let (position, seen) = on_disk(&path);
        let expected: Vec<u64> = written.iter().copied().filter(|sequence| *sequence <= position).collect();
        assert_eq!(seen, expected, "after kill {kill}");
    }
    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    model.at_least(*written.last().unwrap(), SOON).await.unwrap();
    assert_eq!(seen(&model).await, written);
}

#[tokio::test]
async fn a_file_deleted_while_it_serves_is_rebuilt_beside_it() {
    let (_server, _client, log) = server().await;
    let dir = TempDir::new().unwrap();
    fit(&log, "a", 60).await;
    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    model.caught_up().await;
    // As the `rebuild` command does it, and as a person would.
    for everything in [false, true] {
        let sequence = light(&log, "a", "me").await;
        model.at_least(sequence, SOON).await.unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name == "usage.v1.sqlite" || (everything && name.starts_with("usage.v1")) {
                std::fs::remove_file(&path).unwrap();
            }
        }
        let before = seen(&model).await;
        assert_eq!(before.last(), Some(&sequence), "the old one serves");
        let file = dir.path().join("usage.v1.sqlite");
        eventually(SOON, || async {
            let sequence = light(&log, "a", "me").await;
            model.at_least(sequence, SOON).await.unwrap();
            let seen = seen(&model).await;
            assert_eq!(seen, (1..=sequence).collect::<Vec<_>>(), "no read goes back or misses anything");
            file.exists().then_some(())
        })
        .await;
        assert_eq!(files(&dir), names(&["usage.v1.sqlite"]));
    }
    close(model, &dir).await;
    let (position, seen) = on_disk(&dir.path().join("usage.v1.sqlite"));
    assert_eq!(seen, (1..=position).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_new_version_is_built_beside_the_old_one_which_then_goes() {
    let (_server, _client, log) = server().await;
    let dir = TempDir::new().unwrap();
    fit(&log, "a", 60).await;
    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    model.caught_up().await;
    close(model, &dir).await;
    assert_eq!(files(&dir), names(&["usage.v1.sqlite"]));

    let sequence = light(&log, "a", "me").await;
    let model = ReadModel::<Usage<2>>::follow(&log, dir.path());
    model.at_least(sequence, SOON).await.unwrap();
    assert_eq!(seen(&model).await, [1, 2]);
    eventually(SOON, || async { (files(&dir) == names(&["usage.v2.sqlite"])).then_some(()) }).await;
    close(model, &dir).await;

    // Back to the old program: its file is gone, the newer one stays for the program that may come again.
    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    model.at_least(sequence, SOON).await.unwrap();
    assert_eq!(seen(&model).await, [1, 2]);
    assert_eq!(files(&dir), names(&["usage.v1.sqlite", "usage.v2.sqlite"]));
}

/// The same tables as `Usage`'s, with a fold that waits where a build begins.
struct Mended;

static GO_ON: AtomicBool = AtomicBool::new(false);

impl Projection for Mended {
    const NAME: &'static str = "usage";
    const VERSION: u32 = 3;
    const SAME_TABLES_SINCE: u32 = 1;
    const SCHEMA: &'static str = USAGE;
    type Event = Recorded<LampEvent>;

    fn apply(tables: &Tables<'_>, event: &Recorded<LampEvent>) -> anyhow::Result<()> {
        while event.sequence == 1 && !GO_ON.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        tables.run("INSERT INTO seen (sequence, lamp) VALUES (?1, 'mended')", [event.sequence])?;
        Ok(())
    }
}

#[tokio::test]
async fn an_older_version_with_the_same_tables_serves_until_the_new_one_has_caught_up() {
    let (_server, _client, log) = server().await;
    let dir = TempDir::new().unwrap();
    fit(&log, "a", 60).await;
    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    model.caught_up().await;
    close(model, &dir).await;

    let model = ReadModel::<Mended>::follow(&log, dir.path());
    let lamps = async || {
        let read =
            |tables: &Tables<'_>| tables.all("SELECT lamp FROM seen ORDER BY place", [], |row| row.get(0));
        let lamps: Vec<String> = model.read(read).await.unwrap().value;
        lamps
    };
    let sequence = light(&log, "a", "me").await;
    model.at_least(sequence, SOON).await.unwrap();
    assert_eq!(lamps().await, ["a", "mended"], "the old file is kept up to date");
    GO_ON.store(true, Ordering::SeqCst);
    eventually(SOON, || async { (lamps().await == ["mended", "mended"]).then_some(()) }).await;
    eventually(SOON, || async { (files(&dir) == names(&["usage.v3.sqlite"])).then_some(()) }).await;
}

#[tokio::test]
async fn a_file_that_is_no_read_model_is_thrown_away() {
    let (_server, _client, log) = server().await;
    let dir = TempDir::new().unwrap();
    fit(&log, "a", 60).await;
    let path = dir.path().join("usage.v1.sqlite");
    let garbage = || std::fs::write(&path, "not a database at all".repeat(1000)).unwrap();
    let empty = || std::fs::write(&path, "").unwrap();
    let other_tables = || {
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute("UPDATE eventkit_position SET tables = 'of another program'", []).unwrap();
    };
    let no_position = || {
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute("DELETE FROM eventkit_position", []).unwrap();
    };
    let damage: [&dyn Fn(); 5] = [&garbage, &other_tables, &empty, &no_position, &garbage];
    for damage in damage {
        damage();
        let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
        model.at_least(1, SOON).await.unwrap();
        assert_eq!(seen(&model).await, [1]);
        close(model, &dir).await;
    }
}

#[tokio::test]
async fn a_file_damaged_while_it_serves_is_rebuilt() {
    let (_server, _client, log) = server().await;
    let dir = TempDir::new().unwrap();
    for lamp in 0..2000 {
        log.publisher().publish(&lit(&format!("l{lamp}"), "me"), &cause()).await.unwrap();
    }
    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    model.at_least(2000, SOON).await.unwrap();
    close(model, &dir).await;
    // The first page, which says what there is, is as it was; the others are not.
    let path = dir.path().join("usage.v1.sqlite");
    let mut bytes = std::fs::read(&path).unwrap();
    let untouched = 3 * 4096;
    bytes[untouched..].fill(0xab);
    std::fs::write(&path, bytes).unwrap();

    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    eventually(SOON, || async {
        light_at_will(&log).await;
        let read = |tables: &Tables<'_>| {
            tables.all("SELECT sequence FROM seen ORDER BY place", [], |row| row.get(0))
        };
        let seen: Vec<u64> = model.read(read).await.ok()?.value;
        (seen.len() > 2000 && seen == (1..=seen.len() as u64).collect::<Vec<_>>()).then_some(())
    })
    .await;
}

async fn light_at_will(log: &EventLog) {
    log.publisher().publish(&lit("x", "me"), &cause()).await.unwrap();
}

#[tokio::test]
async fn a_log_that_was_replaced_is_read_from_its_beginning() {
    let dir = TempDir::new().unwrap();
    let (_first, _client, log) = server().await;
    for _ in 0..5 {
        log.publisher().publish(&lit("old", "me"), &cause()).await.unwrap();
    }
    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    model.at_least(5, SOON).await.unwrap();
    close(model, &dir).await;

    // Shorter than what the file knows; then longer.
    for length in [2, 9] {
        let (_server, client, log) = server().await;
        let lamp = format!("new{length}");
        for _ in 0..length {
            log.publisher().publish(&lit(&lamp, "me"), &cause()).await.unwrap();
        }
        let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
        model.caught_up().await;
        let read = |tables: &Tables<'_>| {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            tables.all("SELECT lamp, count(*) FROM seen GROUP BY lamp", [], row)
        };
        let lamps: Vec<(String, u64)> = model.read(read).await.unwrap().value;
        assert_eq!(lamps, [(lamp, length)]);

        // The same under a service that runs: somebody deletes the stream, and it is made anew.
        let js = async_nats::jetstream::new(client.clone());
        js.delete_stream("EVENTS").await.unwrap();
        provision::streams(&client, &catalog(), 1).await.unwrap();
        log.publisher().publish(&lit("newest", "me"), &cause()).await.unwrap();
        eventually(SOON, || async {
            let lamps: Vec<(String, u64)> = model.read(read).await.unwrap().value;
            (lamps == [("newest".to_owned(), 1)]).then_some(())
        })
        .await;
        close(model, &dir).await;
    }
}

#[tokio::test]
async fn few_reads_run_at_once_and_the_others_have_their_turn() {
    let (_server, _client, log) = server().await;
    let dir = TempDir::new().unwrap();
    fit(&log, "a", 60).await;
    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    model.at_least(1, SOON).await.unwrap();
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let reads = (0..200).map(|_| {
        let (running, most) = (running.clone(), most.clone());
        model.read(move |tables| {
            let now = running.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(now, Ordering::SeqCst);
            let count = tables.first("SELECT count(*) FROM seen", [], |row| row.get::<_, u64>(0));
            running.fetch_sub(1, Ordering::SeqCst);
            count
        })
    });
    for read in futures::future::join_all(reads).await {
        assert_eq!(read.unwrap().value, Some(1));
    }
    assert!((1..=4).contains(&most.load(Ordering::SeqCst)));
}

#[tokio::test]
async fn a_read_that_goes_wrong_or_panics_harms_no_other() {
    let (_server, _client, log) = server().await;
    let dir = TempDir::new().unwrap();
    fit(&log, "a", 60).await;
    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    model.at_least(1, SOON).await.unwrap();
    for _ in 0..10 {
        let wrong = model.read(|tables| tables.first("SELECT nothing FROM nowhere", [], |_| Ok(()))).await;
        assert!(matches!(wrong, Err(ReadError::Failed(_))), "{wrong:?}");
        let writes = model.read(|tables| tables.run("DELETE FROM seen", [])).await;
        assert!(matches!(writes, Err(ReadError::Failed(_))), "a reader cannot write: {writes:?}");
        let panics = model.read::<(), _>(|_| panic!("clumsy")).await;
        assert!(matches!(panics, Err(ReadError::Failed(_))));
    }
    let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n";
    let endless = model.read(move |tables| tables.first(endless, [], |row| row.get::<_, u64>(0))).await;
    assert!(matches!(endless, Err(ReadError::TooSlow)), "{endless:?}");
    assert_eq!(seen(&model).await, [1]);
}
