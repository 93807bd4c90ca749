//! The life of a read model: its file is opened and kept up to date; where there is none that will do, or it goes, one is
//! built beside, and takes over when it has caught up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_nats::Client;
use metrics::gauge;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::Projection;
use super::file::{Files, Position, Unusable, remove_database};
use super::model::Served;
use super::pool::Origin;
use super::track::{Track, TrackEnd};
use crate::health::CheckHandle;

/// How often to see whether the file is still there, and to say how far it is.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long to wait before building again what could not be built.
const BUILD_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Keeps a read model for as long as it is polled. Ends with an error only.
pub(crate) async fn keep<P: Projection>(
    served: Arc<Served>,
    client: Client,
    directory: PathBuf,
    check: CheckHandle,
) -> anyhow::Result<()> {
    let files = Files::of::<P>(directory);
    let _ours = files.lock().await?;
    files.tidy()?;
    let build_after = Instant::now();
    let (serving, building, build_trouble) = (None, None, None);
    let mut keeper =
        Keeper::<P> { files, client, served, check, serving, building, build_after, build_trouble };
    keeper.open_best()?;
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut caught_up = keeper.served.caught_up.subscribe();
    loop {
        if keeper.wants_a_build() {
            keeper.build()?;
        }
        tokio::select! {
            end = ended(&mut keeper.serving) => keeper.serving_ended(end).await?,
            built = built(&mut keeper.building) => match built {
                Ok(()) => keeper.take_over().await?,
                Err(end) => keeper.building_ended(end).await,
            },
            _ = look.tick() => keeper.report(),
            Ok(()) = caught_up.changed() => keeper.report(),
        }
    }
}

async fn ended<P: Projection>(track: &mut Option<Track<P>>) -> TrackEnd {
    match track {
        Some(track) => track.ended().await,
        None => std::future::pending().await,
    }
}

/// Waits until what is being built has caught up, or has ended before.
async fn built<P: Projection>(track: &mut Option<Track<P>>) -> Result<(), TrackEnd> {
    let Some(track) = track else { return std::future::pending().await };
    let progress = track.progress.clone();
    tokio::select! {
        () = progress.wait_for_the_end() => Ok(()),
        end = track.ended() => Err(end),
    }
}

struct Keeper<P: Projection> {
    files: Files,
    client: Client,
    served: Arc<Served>,
    check: CheckHandle,
    /// What readers read. [`None`] if there is nothing, or nothing that can be kept up to date.
    serving: Option<Track<P>>,
    /// What will take over.
    building: Option<Track<P>>,
    /// Not before this.
    build_after: Instant,
    /// Why the last attempt did not even begin.
    build_trouble: Option<String>,
}

impl<P: Projection> Keeper<P> {
    /// Opens the best file that will do, and throws away those that are of no use.
    fn open_best(&mut self) -> anyhow::Result<()> {
        for path in self.files.candidates() {
            match self.files.open(&path) {
                Ok((connection, position)) => {
                    match self.served.pool.open(&path, Origin::Before) {
                        // Taken away at this very moment.
                        Err(_) if !path.exists() => continue,
                        opened => opened.with_context(|| format!("opening {}", path.display()))?,
                    }
                    self.serving = Some(self.track((connection, path, position), true)?);
                    return Ok(());
                }
                Err(Unusable::Discard(reason)) => {
                    let file = path.display();
                    warn!(projection.name = P::NAME, %file, reason, "a read model's file is thrown away and built anew");
                    remove_database(&path).with_context(|| format!("removing {}", path.display()))?;
                }
                Err(Unusable::Failed(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn track(
        &self,
        file: (rusqlite::Connection, PathBuf, Position),
        serving: bool,
    ) -> anyhow::Result<Track<P>> {
        Track::start(&self.files, &self.client, file, &self.served, serving)
    }

    /// Whether there is no file of this version, or the one that there was is gone or damaged.
    fn wants_a_build(&self) -> bool {
        let good = |serving: &Track<P>| {
            serving.path() == self.files.current() && serving.is_there() && !self.served.pool.is_damaged()
        };
        self.building.is_none()
            && Instant::now() >= self.build_after
            && !self.serving.as_ref().is_some_and(good)
    }

    /// Begins a build. Where that cannot be (a full disk), what readers read goes on, and it is tried again; an error if
    /// they have nothing.
    fn build(&mut self) -> anyhow::Result<()> {
        let begun = self
            .files
            .create()
            .and_then(|(connection, path)| self.track((connection, path, Position::default()), false));
        match begun {
            Ok(building) => {
                info!(
                    projection.name = P::NAME,
                    projection.version = P::VERSION,
                    "building a read model from the log"
                );
                self.building = Some(building);
                self.build_trouble = None;
            }
            Err(error) if !self.served.is_caught_up() => return Err(error),
            Err(error) => {
                let error = format!("{error:#}");
                warn!(projection.name = P::NAME, error, "a read model cannot be built; trying again");
                self.build_trouble = Some(error);
                self.build_after = Instant::now() + BUILD_AGAIN_AFTER;
            }
        }
        Ok(())
    }

    /// The file that serves cannot be kept up to date. It goes on serving as it is until there is a better one, unless it
    /// never was up to date.
    async fn serving_ended(&mut self, end: TrackEnd) -> anyhow::Result<()> {
        let reason = match end {
            TrackEnd::LogReplaced => {
                self.served.written.forget();
                "the log is not the one that it was built from".to_owned()
            }
            TrackEnd::Damaged(error) => error.to_string(),
            TrackEnd::Failed(error) => return Err(error),
        };
        warn!(projection.name = P::NAME, reason, "a read model is thrown away and built anew");
        let Some(serving) = self.serving.take() else { return Ok(()) };
        let path = serving.path().to_owned();
        serving.stop().await;
        if !self.served.is_caught_up() {
            let _closed = self.served.pool.close().await;
            remove_database(&path).with_context(|| format!("removing {}", path.display()))?;
        }
        Ok(())
    }

    async fn building_ended(&mut self, end: TrackEnd) {
        warn!(projection.name = P::NAME, reason = ?end, "building a read model was interrupted; trying again");
        if let Some(building) = self.building.take() {
            let path = building.path().to_owned();
            building.stop().await;
            // What cannot be removed now is removed at the next start.
            drop(remove_database(&path));
        }
        self.build_after = Instant::now() + BUILD_AGAIN_AFTER;
    }

    /// What was built takes the place of what served. Reads wait for a moment; none sees less than one before it.
    async fn take_over(&mut self) -> anyhow::Result<()> {
        let Some(mut built) = self.building.take() else { return Ok(()) };
        if let Some(old) = self.serving.take() {
            let progress = old.progress.clone();
            old.stop().await;
            if let Err(end) = built.reach(progress.position()).await {
                self.building = Some(built);
                self.building_ended(end).await;
                return Ok(());
            }
        }
        let path = self.files.current();
        let closed = self.served.pool.close().await;
        let settled = async {
            built.settle(&path).await?;
            built.progress.serve();
            let opened = self.served.pool.open(&path, Origin::BuiltNow);
            opened.with_context(|| format!("opening {}", path.display()))
        };
        let settled = settled.await;
        drop(closed);
        if let Err(error) = settled {
            // Somebody has taken the file away at this very moment (`rebuild` does), or the disk is full.
            let error = format!("{error:#}");
            warn!(projection.name = P::NAME, error, "a read model was built and is gone; building it again");
            built.stop().await;
            self.build_trouble = Some(error);
            self.build_after = Instant::now() + BUILD_AGAIN_AFTER;
            return Ok(());
        }
        info!(
            projection.name = P::NAME,
            projection.version = P::VERSION,
            "the read model is built, and serves"
        );
        self.serving = Some(built);
        self.files.remove_older()?;
        self.report();
        Ok(())
    }

    /// Says how far it is, to metrics and to readiness.
    fn report(&self) {
        let building = self.building.as_ref().map(|building| {
            let (taken, left) = (building.progress.has_applied(), building.progress.lag());
            let wrong =
                building.progress.what_is_wrong().map(|wrong| format!("; {wrong}")).unwrap_or_default();
            format!("building version {}: {taken} events taken in, {left} to come{wrong}", P::VERSION)
        });
        let trouble = self.build_trouble.as_ref().map(|trouble| format!("cannot be built: {trouble}"));
        let building = building.or(trouble);
        let Some(serving) = &self.serving else {
            let detail = building.unwrap_or_else(|| "waiting to be built".to_owned());
            self.check.set_ready(false, detail);
            return;
        };
        let progress = &serving.progress;
        let (watermark, lag, parked) = (progress.position(), progress.lag(), progress.parked());
        set("jetkit_projection_watermark", P::NAME, watermark);
        set("jetkit_projection_lag", P::NAME, lag);
        set("jetkit_projection_parked", P::NAME, parked);
        let parked = (parked > 0).then(|| format!("{parked} parked, see its table eventkit_parked"));
        let wrong = progress.what_is_wrong();
        let at = format!("at {watermark}, {lag} events behind");
        let detail: Vec<String> = [Some(at), parked, wrong.clone(), building].into_iter().flatten().collect();
        let detail = detail.join("; ");
        self.check.set_ready(self.served.is_caught_up() && wrong.is_none(), detail);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; sequences stay below 2^53")]
fn set(metric: &'static str, projection: &'static str, value: u64) {
    gauge!(metric, "projection" => projection).set(value as f64);
}
