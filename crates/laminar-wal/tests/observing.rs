//! What operators see: the metrics and events that `docs/operations.md` names, with the features
//! `metrics` and `tracing`.

#![cfg(all(feature = "metrics", feature = "tracing"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};

use laminar_wal::{Storage, WalError, WalOptions};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};
use wal_sim::{Fault, OperationKind, SimStorage};

const OPERATIONS_MD: &str = include_str!("../../../docs/operations.md");

#[test]
fn every_metric_is_counted_and_documented_and_no_other() {
    let seen = Metrics::of(|| {
        let disk = SimStorage::new(1);
        let (wal, _) = open(&disk);
        let mut writer = wal.writer(0).unwrap();
        for n in 0..2000_u64 {
            writer.append_put(&n.to_le_bytes(), &[7; 500]).unwrap();
            if n % 100 == 50 {
                // Full buffers are written, and become durable by a later commit.
                disk.run_jobs();
            }
            if n % 100 == 99 {
                writer.sync().unwrap();
            }
        }
        disk.run_jobs();
        disk.inject(Fault::on(OperationKind::Write));
        writer.append_put(b"key", b"value").unwrap();
        assert!(matches!(writer.sync(), Err(WalError::Poisoned { .. })));
    });

    assert_eq!(seen.counter("laminar_wal_entries_total"), 2000);
    assert_eq!(seen.counter("laminar_wal_commits_total"), 20);
    assert_eq!(seen.histogram("laminar_wal_commit_entries"), (20, 2000.0));
    assert_eq!(seen.histogram("laminar_wal_commit_seconds").0, 20);
    let (batches, batch_bytes) = seen.histogram("laminar_wal_batch_bytes");
    assert!(batches >= 20, "{batches} batches");
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let bytes = seen.counter("laminar_wal_bytes_total") as f64;
    assert!((bytes - batch_bytes).abs() < 0.5 && bytes > 2000.0 * 500.0);
    assert!(seen.counter("laminar_wal_rotations_total") >= 3);
    assert!(seen.counter("laminar_wal_segments_prepared_total") >= 4);
    assert!(seen.counter("laminar_wal_stalls_total") >= 1);
    assert_eq!(seen.counter("laminar_wal_poisoned_total"), 1);
    for name in seen.names() {
        assert!(OPERATIONS_MD.contains(&format!("`{name}`")), "{name} is not in operations.md");
    }
    for line in OPERATIONS_MD.lines().filter(|line| line.starts_with("| `laminar_wal_")) {
        let name = line.split('`').nth(1).unwrap();
        assert!(seen.names().any(|seen| seen == name), "{name} is documented but not counted");
    }
}

#[test]
fn a_poisoned_log_is_an_error_event_that_names_the_core_and_the_cause() {
    let events = Events::default();
    tracing::subscriber::with_default(events.clone(), || {
        let disk = SimStorage::new(2);
        let (wal, _) = open(&disk);
        let mut writer = wal.writer(0).unwrap();
        writer.append_put(b"key", b"value").unwrap();
        writer.sync().unwrap();
        disk.inject(Fault::on(OperationKind::Write));
        writer.append_put(b"key", b"value").unwrap();
        writer.sync().unwrap_err();
    });
    let seen = events.seen.lock().unwrap().clone();
    let errors: Vec<&String> =
        seen.iter().filter(|(level, _)| *level == Level::ERROR).map(|(_, text)| text).collect();
    assert_eq!(errors.len(), 1, "{seen:?}");
    assert!(errors[0].contains("core=0"), "{errors:?}");
    assert!(errors[0].contains(".wal"), "the cause names the file: {errors:?}");
    assert!(seen.iter().any(|(_, text)| text.contains("entries durable")), "{seen:?}");
    assert!(seen.iter().any(|(_, text)| text.contains("segment ready")), "{seen:?}");
}

fn open(disk: &SimStorage) -> (laminar_wal::Wal, laminar_wal::Recovery) {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    WalOptions::on_storage(storage).segment_bytes(256 * 1024).batch_bytes(16 * 1024).open().unwrap()
}

/// What a recorder saw: counters added up over their labels, histograms as count and sum.
struct Metrics {
    counters: BTreeMap<String, u64>,
    histograms: BTreeMap<String, (usize, f64)>,
}

impl Metrics {
    fn of(work: impl FnOnce()) -> Self {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, work);
        let mut seen = Self { counters: BTreeMap::new(), histograms: BTreeMap::new() };
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            assert!(key.key().labels().any(|label| label.key() == "core" && label.value() == "0"));
            let name = key.key().name().to_owned();
            match value {
                DebugValue::Counter(count) => *seen.counters.entry(name).or_default() += count,
                DebugValue::Histogram(values) => {
                    let (count, sum) = seen.histograms.entry(name).or_default();
                    *count += values.len();
                    *sum += values.iter().map(|value| value.into_inner()).sum::<f64>();
                }
                DebugValue::Gauge(_) => panic!("there are no gauges"),
            }
        }
        seen
    }

    fn counter(&self, name: &str) -> u64 {
        *self.counters.get(name).unwrap_or_else(|| panic!("{name} was not counted"))
    }

    fn histogram(&self, name: &str) -> (usize, f64) {
        *self.histograms.get(name).unwrap_or_else(|| panic!("{name} was not recorded"))
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.counters.keys().chain(self.histograms.keys())
    }
}

/// A subscriber that keeps every event as text.
#[derive(Clone, Default)]
struct Events {
    seen: Arc<Mutex<Vec<(Level, String)>>>,
}

impl Subscriber for Events {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        self.seen.lock().unwrap().push((*event.metadata().level(), text.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}
