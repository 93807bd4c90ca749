//! A toy domain, so that the kit's tests know nothing of the shop: lamps that are fitted, lit and broken.

use std::sync::{Arc, Mutex};

use async_nats::Client;
use jetkit::testing::{Harness, NatsServer};
pub(crate) use jetkit::testing::{SOON, cause, id};
use jetkit::{Aggregate, Catalog, EntityId, Event, EventLog, UpcastError, Upcaster};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LampFitted {
    pub(crate) lamp_id: EntityId,
    pub(crate) watts: u32,
}

impl Event for LampFitted {
    const TYPE: &'static str = "lamp.fitted";
    const UPCASTERS: &'static [Upcaster] = &[power_in_watts];

    fn entity_id(&self) -> &EntityId {
        &self.lamp_id
    }
}

/// Version 1, the first generation, had the power as text.
fn power_in_watts(mut data: Value) -> Result<Value, UpcastError> {
    let watts: u32 = data["power"]
        .as_str()
        .and_then(|power| power.strip_suffix(" W"))
        .and_then(|watts| watts.parse().ok())
        .ok_or_else(|| UpcastError::new("no power in watts"))?;
    data["watts"] = watts.into();
    Ok(data)
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LampLit {
    pub(crate) lamp_id: EntityId,
    pub(crate) by: String,
}

impl Event for LampLit {
    const TYPE: &'static str = "lamp.lit";

    fn entity_id(&self) -> &EntityId {
        &self.lamp_id
    }
}

jetkit::events! {
    pub(crate) enum LampEvent { Fitted(LampFitted), Lit(LampLit) }
}

/// A lamp may be lit so often, then it refuses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lamp {
    pub(crate) watts: u32,
    pub(crate) lit: u32,
}

pub(crate) const LIFETIME: u32 = 3000;

#[derive(Debug)]
pub(crate) enum LampCommand {
    Fit {
        lamp_id: EntityId,
        watts: u32,
    },
    Light {
        lamp_id: EntityId,
        by: String,
    },
    /// Two events in one decision.
    FitAndLight {
        lamp_id: EntityId,
    },
    /// Not unless it is below this count.
    LightBelow {
        lamp_id: EntityId,
        count: u32,
    },
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum LampRejection {
    #[error("no lamp is fitted")]
    NotFitted,
    #[error("a lamp is fitted already")]
    Fitted,
    #[error("the lamp is worn out")]
    WornOut,
}

impl Aggregate for Lamp {
    const ENTITY: &'static str = "lamp";
    type Event = LampEvent;
    type Command = LampCommand;
    type Rejection = LampRejection;

    fn decide(&self, command: &LampCommand) -> Result<Vec<LampEvent>, LampRejection> {
        let lit =
            |lamp_id: &EntityId, by: &str| LampLit { lamp_id: lamp_id.clone(), by: by.to_owned() }.into();
        match command {
            LampCommand::Fit { lamp_id, watts } if self.watts == 0 => {
                Ok(vec![LampFitted { lamp_id: lamp_id.clone(), watts: *watts }.into()])
            }
            LampCommand::Fit { watts, .. } if self.watts == *watts => Ok(vec![]),
            LampCommand::Fit { .. } | LampCommand::FitAndLight { .. } if self.watts > 0 => {
                Err(LampRejection::Fitted)
            }
            LampCommand::FitAndLight { lamp_id } => {
                Ok(vec![LampFitted { lamp_id: lamp_id.clone(), watts: 60 }.into(), lit(lamp_id, "fitter")])
            }
            _ if self.watts == 0 => Err(LampRejection::NotFitted),
            LampCommand::LightBelow { count, .. } if self.lit >= *count => Err(LampRejection::WornOut),
            LampCommand::Light { .. } if self.lit >= LIFETIME => Err(LampRejection::WornOut),
            LampCommand::Light { lamp_id, by } => Ok(vec![lit(lamp_id, by)]),
            LampCommand::LightBelow { lamp_id, .. } => Ok(vec![lit(lamp_id, "counter")]),
            LampCommand::Fit { .. } => Err(LampRejection::Fitted),
        }
    }

    fn apply(&mut self, event: &LampEvent) {
        match event {
            LampEvent::Fitted(fitted) => self.watts = fitted.watts,
            LampEvent::Lit(_) => self.lit += 1,
        }
    }
}

pub(crate) fn catalog() -> Catalog {
    Catalog::new().with::<LampFitted>().with::<LampLit>()
}

pub(crate) fn lit(lamp: &str, by: &str) -> LampLit {
    LampLit { lamp_id: id(lamp), by: by.to_owned() }
}

/// A server with the streams of the toy domain.
pub(crate) async fn server() -> (NatsServer, Client, EventLog) {
    on(NatsServer::start().await).await
}

/// This server with the streams of the toy domain.
pub(crate) async fn on(server: NatsServer) -> (NatsServer, Client, EventLog) {
    let Harness { server, client, log, .. } = Harness::on(server, &catalog()).await;
    (server, client, log)
}

/// What handlers write down, for a test to look at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    pub(crate) fn add(&self, note: impl Into<String>) {
        self.0.lock().unwrap().push(note.into());
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, note: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|n| *n == note).count()
    }

    /// Waits until there are so many.
    pub(crate) async fn reach(&self, count: usize) -> Vec<String> {
        jetkit::testing::eventually(SOON, || async {
            let all = self.all();
            (all.len() >= count).then_some(all)
        })
        .await
    }
}
