//! The golden files: whole wire documents, one per event type and version.

use std::fs;
use std::path::PathBuf;

use common::ShopEvent;
use jetkit::{Envelope, EventSet};
use serde_json::Value;

fn file(event_type: &str, version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{event_type}.v{version}.json"))
}

fn read(event_type: &str, version: u32) -> Vec<u8> {
    let path = file(event_type, version);
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; every version needs a golden file", path.display()))
}

#[test]
fn every_version_of_every_event_still_decodes() {
    for event in common::catalog().events() {
        for version in 1..=event.version {
            let body = read(event.event_type, version);
            let envelope = Envelope::decode(&body).unwrap();
            assert_eq!(envelope.event_type(), event.event_type);
            assert_eq!(envelope.data_version(), Some(version));
            envelope.metadata().unwrap();
            let decoded = ShopEvent::decode(&envelope).unwrap();
            assert_eq!(decoded.kind(), (event.event_type, event.version));
        }
    }
}

#[test]
fn what_is_written_today_is_what_the_golden_files_say() {
    for event in common::catalog().events() {
        let body = read(event.event_type, event.version);
        let envelope = Envelope::decode(&body).unwrap();
        let event = ShopEvent::decode(&envelope).unwrap();
        let written = event.encode(&envelope.metadata().unwrap()).unwrap();
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        assert_eq!(json(&written), json(&body));
    }
}

#[test]
fn no_golden_file_is_left_over() {
    let catalog = common::catalog();
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for entry in fs::read_dir(golden).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let (event_type, version) = name.strip_suffix(".json").unwrap().rsplit_once(".v").unwrap();
        let event = catalog.get(event_type).unwrap_or_else(|| panic!("{name} is of no known event"));
        assert!(version.parse::<u32>().unwrap() <= event.version, "{name} is from the future");
    }
}
