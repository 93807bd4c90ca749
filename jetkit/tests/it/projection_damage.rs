//! A read model whose files others lay hands on: it goes on serving, and what it says stays true.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use jetkit::projection::{ReadError, Tables, rusqlite};
use jetkit::testing::eventually;
use jetkit::{Health, ReadModel};
use tempfile::TempDir;

use crate::projection::{Usage, close, fit, light, seen};
use crate::toy::{SOON, server};

#[tokio::test]
async fn a_build_that_cannot_begin_is_tried_again_while_the_old_file_serves() {
    let (_server, _client, log) = server().await;
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    fit(&log, "a", 60).await;
    let health = Health::new();
    let model = ReadModel::<Usage<1>>::follow_reporting(&log, &data, health.check("model"));
    model.caught_up().await;
    // There is no directory, and none can be made.
    std::fs::rename(&data, dir.path().join("moved away")).unwrap();
    std::fs::write(&data, "in the way").unwrap();
    reports(&health, |detail| detail.contains("cannot be built")).await;
    assert!(health.report().ready);
    let sequence = light(&log, "a", "me").await;
    model.at_least(sequence, SOON).await.unwrap();
    assert_eq!(seen(&model).await, (1..=sequence).collect::<Vec<_>>());

    std::fs::remove_file(&data).unwrap();
    let file = data.join("usage.v1.sqlite");
    eventually(SOON, || async { file.exists().then_some(()) }).await;
    reports(&health, |detail| !detail.contains("buil")).await;
    let sequence = light(&log, "a", "me").await;
    model.at_least(sequence, SOON).await.unwrap();
    assert_eq!(seen(&model).await, (1..=sequence).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_file_taken_away_at_the_moment_when_it_takes_over_is_built_again() {
    let (_server, _client, log) = server().await;
    let dir = TempDir::new().unwrap();
    fit(&log, "a", 60).await;
    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    model.caught_up().await;
    // Whenever it is there, it goes: also between taking its name and being opened by readers.
    let (file, gone) = (dir.path().join("usage.v1.sqlite"), Arc::new(AtomicU32::new(0)));
    let taking = {
        let (file, gone) = (file.clone(), gone.clone());
        tokio::task::spawn_blocking(move || {
            while gone.load(Ordering::Relaxed) < 3 {
                if std::fs::remove_file(&file).is_ok() {
                    gone.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    };
    taking.await.unwrap();
    let sequence = light(&log, "a", "me").await;
    let seen_all = eventually(SOON, || async {
        model.at_least(sequence, SOON).await.ok()?;
        let seen =
            model.read(|tables| tables.all("SELECT sequence FROM seen", [], |row| row.get::<_, u64>(0)));
        seen.await.ok()
    });
    assert_eq!(seen_all.await.value, (1..=sequence).collect::<Vec<_>>());
    eventually(SOON, || async { file.exists().then_some(()) }).await;
}

/// Waits until the read model says so of itself.
async fn reports(health: &Health, said: impl Fn(&str) -> bool) {
    eventually(SOON, || async { said(&health.report().checks["model"].detail).then_some(()) }).await;
}

#[tokio::test]
async fn a_file_overwritten_while_it_is_read_is_rebuilt_and_readers_may_try_again() {
    let (_server, _client, log) = server().await;
    let dir = TempDir::new().unwrap();
    fit(&log, "a", 60).await;
    let sequence = light(&log, "a", "me").await;
    // All of it is in the file that is built: what comes later would be read from beside it.
    let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
    model.at_least(sequence, SOON).await.unwrap();
    let path = dir.path().join("usage.v1.sqlite");
    let before = std::fs::metadata(&path).unwrap();
    // In place, so that what is open is what is overwritten.
    std::fs::write(&path, vec![0xa5; usize::try_from(before.len()).unwrap()]).unwrap();
    let read = |tables: &Tables<'_>| tables.all("SELECT sequence FROM seen", [], |row| row.get::<_, u64>(0));
    let first = model.read(read).await;
    assert!(matches!(first, Err(ReadError::Starting)), "{first:?}");
    let healed = eventually(SOON, || async {
        match model.read(read).await {
            Err(ReadError::Starting) => None,
            read => Some(read),
        }
    });
    assert_eq!(healed.await.unwrap().value, (1..=sequence).collect::<Vec<_>>());
    assert_ne!(std::fs::metadata(&path).unwrap().ino(), before.ino());
}

/// Flips bytes of a file from an earlier run. What they mean is lost, and SQLite does not always notice.
#[tokio::test]
async fn a_value_that_can_no_longer_be_read_has_the_file_rebuilt() {
    let (_server, _client, log) = server().await;
    fit(&log, "a", 60).await;
    for lit in ["x'ff'", "x'616cff'", "NULL"] {
        let dir = TempDir::new().unwrap();
        let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
        model.at_least(light(&log, "a", "me").await, SOON).await.unwrap();
        close(model, &dir).await;
        let db = rusqlite::Connection::open(dir.path().join("usage.v1.sqlite")).unwrap();
        db.execute_batch(
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '')",
        )
        .unwrap();
        drop(db);
        let db = rusqlite::Connection::open(dir.path().join("usage.v1.sqlite")).unwrap();
        db.execute(&format!("UPDATE seen SET lamp = CAST({lit} AS TEXT)"), []).unwrap();
        drop(db);

        let model = ReadModel::<Usage<1>>::follow(&log, dir.path());
        let read =
            |tables: &Tables<'_>| tables.all("SELECT lamp FROM seen", [], |row| row.get::<_, String>(0));
        let lamps = eventually(SOON, || async { model.read(read).await.ok() }).await.value;
        assert!(lamps.iter().all(|lamp| lamp == "a"), "{lamps:?}");
    }
}

#[tokio::test]
async fn a_reader_that_expects_another_value_than_is_written_rebuilds_nothing() {
    let (_server, _client, log) = server().await;
    let dir = TempDir::new().unwrap();
    fit(&log, "a", 60).await;
    let health = Health::new();
    let model = ReadModel::<Usage<1>>::follow_reporting(&log, dir.path(), health.check("model"));
    model.caught_up().await;
    let path = dir.path().join("usage.v1.sqlite");
    let before = std::fs::metadata(&path).unwrap().ino();
    let wrong = |tables: &Tables<'_>| tables.all("SELECT lamp FROM seen", [], |row| row.get::<_, u64>(0));
    assert!(matches!(model.read(wrong).await, Err(ReadError::Failed(_))));
    // Between two reports it decides whether to build.
    for _ in 0..2 {
        let at = format!("at {},", light(&log, "a", "me").await);
        reports(&health, |detail| detail.starts_with(&at)).await;
    }
    assert!(!health.report().checks["model"].detail.contains("building"));
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), before);
}
