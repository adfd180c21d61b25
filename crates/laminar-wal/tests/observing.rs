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
use std::time::Duration;

use laminar_wal::{CheckpointDetails, CoreWalWriter, Recovery, Storage, Wal, WalError, WalOptions};
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
        let pending = wal.begin_checkpoint(1).unwrap();
        pending.arrival().arrive(&mut writer).unwrap();
        disk.advance(Duration::from_millis(1500)); // the application makes its snapshot
        pending.complete(CheckpointDetails::default()).unwrap();
        drop(wal.begin_checkpoint(2).unwrap()); // given up
        disk.inject(Fault::on(OperationKind::Write));
        writer.append_put(b"key", b"value").unwrap();
        assert!(matches!(writer.sync(), Err(WalError::Poisoned { .. })));
    });

    // With the checkpoint's barrier.
    assert_eq!(seen.counter("laminar_wal_entries_total"), 2001);
    assert_eq!(seen.counter("laminar_wal_commits_total"), 21);
    assert_eq!(seen.histogram("laminar_wal_commit_entries"), (21, 2001.0));
    assert_eq!(seen.histogram("laminar_wal_commit_seconds").0, 21);
    let (batches, batch_bytes) = seen.histogram("laminar_wal_batch_bytes");
    assert!(batches >= 20, "{batches} batches");
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let bytes = seen.counter("laminar_wal_bytes_total") as f64;
    assert!((bytes - batch_bytes).abs() < 0.5 && bytes > 2000.0 * 500.0);
    assert!(seen.counter("laminar_wal_rotations_total") >= 3);
    assert!(seen.counter("laminar_wal_segments_prepared_total") >= 4);
    assert!(seen.counter("laminar_wal_stalls_total") >= 1);
    assert_eq!(seen.counter("laminar_wal_checkpoints_total"), 1);
    let (checkpoints, seconds) = seen.histogram("laminar_wal_checkpoint_seconds");
    assert!(checkpoints == 1 && (1.5..2.0).contains(&seconds), "{seconds} s");
    assert!(seen.counter("laminar_wal_segments_released_total") >= 3);
    assert_eq!(seen.counter("laminar_wal_poisoned_total"), 1);
    for name in seen.names() {
        assert!(OPERATIONS_MD.contains(&format!("`{name}`")), "{name} is not in operations.md");
    }
    for line in OPERATIONS_MD.lines().filter(|line| line.starts_with("| `laminar_wal_")) {
        let name = line.split('`').nth(1).unwrap();
        assert!(seen.names().any(|seen| seen == name), "{name} is documented but not counted");
    }
}

/// A gauge that is set at one end alone drifts away, and nobody believes it any more.
#[test]
fn live_segments_and_bytes_are_those_of_the_disk_usage_whatever_becomes_of_segments() {
    let disk = SimStorage::new(3);
    let in_a_recorder = |work: &dyn Fn(&Wal)| {
        let mut usage = None;
        let seen = Metrics::of(|| {
            let (wal, _) = open(&disk);
            work(&wal);
            disk.run_jobs();
            usage = Some(wal.disk_usage().unwrap().cores[0]);
            wal.close().unwrap();
        });
        let usage = usage.unwrap();
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let expected = [usage.live_segments as f64, usage.live_bytes as f64];
        let gauges = ["laminar_wal_live_segments", "laminar_wal_live_bytes"];
        assert_eq!(gauges.map(|name| seen.gauges[name]), expected);
        usage.live_segments
    };
    let filled = in_a_recorder(&|wal| fill(&mut wal.writer(0).unwrap()));
    assert!(filled >= 4, "{filled} segments");
    assert_eq!(in_a_recorder(&|_| ()), filled, "found by an opening");
    assert_eq!(
        in_a_recorder(&|wal| {
            let pending = wal.begin_checkpoint(1).unwrap();
            pending.complete(CheckpointDetails::default()).unwrap();
        }),
        1,
        "given back"
    );
    in_a_recorder(&|wal| {
        let mut writer = wal.writer(0).unwrap();
        let position = writer.position();
        fill(&mut writer);
        writer.truncate(position).unwrap();
    });
    in_a_recorder(&|wal| wal.writer(0).unwrap().reset().unwrap());
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

#[test]
fn a_checkpoint_that_counts_is_an_event_and_so_is_what_it_gives_back() {
    let events = Events::default();
    tracing::subscriber::with_default(events.clone(), || {
        let (wal, _) = open(&SimStorage::new(4));
        fill(&mut wal.writer(0).unwrap());
        drop(wal.begin_checkpoint(6).unwrap());
        let pending = wal.begin_checkpoint(7).unwrap();
        pending.complete(CheckpointDetails::default()).unwrap();
    });
    let seen = events.seen.lock().unwrap().clone();
    let of = |level, what: &str| -> Vec<String> {
        let found = seen.iter().filter(|(at, text)| *at == level && text.contains(what));
        found.map(|(_, text)| text.clone()).collect()
    };
    let complete = of(Level::INFO, "checkpoint complete");
    assert_eq!(complete.len(), 1, "{complete:?}");
    assert!(complete[0].contains("id=7 epoch=1 took="), "{complete:?}");
    let released = of(Level::DEBUG, "segments given back");
    assert!(released.len() == 1 && released[0].contains("core=0 segments="), "{released:?}");
}

fn fill(writer: &mut CoreWalWriter) {
    for n in 0..2000_u64 {
        writer.append_put(&n.to_le_bytes(), &[7; 500]).unwrap();
    }
    writer.sync().unwrap();
}

fn open(disk: &SimStorage) -> (Wal, Recovery) {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    WalOptions::on_storage(storage).segment_bytes(256 * 1024).batch_bytes(16 * 1024).open().unwrap()
}

/// What a recorder saw: counters added up over their labels, gauges as they were in the end,
/// histograms as count and sum.
struct Metrics {
    gauges: BTreeMap<String, f64>,
    counters: BTreeMap<String, u64>,
    histograms: BTreeMap<String, (usize, f64)>,
}

impl Metrics {
    fn of(work: impl FnOnce()) -> Self {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, work);
        let mut seen = Self {
            gauges: BTreeMap::new(),
            counters: BTreeMap::new(),
            histograms: BTreeMap::new(),
        };
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            let name = key.key().name().to_owned();
            let mut labels = key.key().labels();
            let is_of_core_0 = labels.any(|label| label.key() == "core" && label.value() == "0");
            assert_eq!(is_of_core_0, !name.starts_with("laminar_wal_checkpoint"), "{name}");
            match value {
                DebugValue::Counter(count) => *seen.counters.entry(name).or_default() += count,
                DebugValue::Histogram(values) => {
                    let (count, sum) = seen.histograms.entry(name).or_default();
                    *count += values.len();
                    *sum += values.iter().map(|value| value.into_inner()).sum::<f64>();
                }
                DebugValue::Gauge(value) => {
                    seen.gauges.insert(name, value.into_inner());
                }
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
        self.counters.keys().chain(self.gauges.keys()).chain(self.histograms.keys())
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
