//! Upkeep as the broker runs it: its options from the settings, and what its reports mean to an operator.

use crate::config::Settings;
use crate::signals::Event;
use ringmill_control::SegmentDamage;
use ringmill_control::metrics_text::{Passes, Scrub, ScrubSource};
use ringmill_log::CompactJob;
use ringmill_upkeep::{Outcome, Report, Upkeep, UpkeepOptions};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

/// After a start the cores recover, destage and serve first.
const FIRST_ROUND_AFTER: Duration = Duration::from_secs(300);
/// Long enough for retention to have finished with a file it was cutting.
const SECOND_LOOK_AFTER: Duration = Duration::from_secs(10);

/// Starts the upkeep thread; `None`, with a warning, where there can be none.
pub fn start(
    data: &Path,
    settings: &Settings,
    passes: Receiver<CompactJob>,
    events: Sender<Event>,
) -> Option<Upkeep> {
    let round_every = Duration::from_millis(settings.scrub_interval_ms.unsigned_abs());
    let options = UpkeepOptions {
        topics: data.join("topics"),
        cpus: settings.upkeep_cpus.clone().unwrap_or_default(),
        passes,
        compact_bytes_per_second: settings.log_cleaner_bytes_per_second,
        bytes_per_second: settings.scrub_bytes_per_second,
        round_every,
        first_round_after: FIRST_ROUND_AFTER.min(round_every),
        second_look_after: SECOND_LOOK_AFTER.min(round_every),
        on_report: Box::new(move |report| {
            // The main thread is gone only when the process ends.
            let _ = events.send(Event::Scrubbed(report));
        }),
    };
    match ringmill_upkeep::spawn(options) {
        Ok(upkeep) => Some(upkeep),
        Err(error) => {
            tracing::warn!("sealed segments are neither scrubbed nor compacted: no thread for it ({error})");
            None
        }
    }
}

/// Upkeep's counters, as `/metrics` asks for them.
pub fn numbers(upkeep: &Upkeep, settings: &Settings) -> ScrubSource {
    let (stats, limit_bytes_per_second) = (upkeep.stats(), settings.scrub_bytes_per_second);
    let pass_limit_bytes_per_second = settings.log_cleaner_bytes_per_second;
    Arc::new(move || Scrub {
        read_bytes: stats.bytes_read.load(Relaxed),
        limit_bytes_per_second,
        segments_clean: stats.segments_clean.load(Relaxed),
        segments_damaged: stats.segments_damaged.load(Relaxed),
        segments_unreadable: stats.segments_unreadable.load(Relaxed),
        rounds: stats.rounds.load(Relaxed),
        in_round: stats.in_round.load(Relaxed),
        last_round_unix_ms: stats.last_round_unix_ms.load(Relaxed),
        last_round_ms: stats.last_round_ms.load(Relaxed),
        resting: stats.resting.load(Relaxed),
        passes: Passes {
            io_bytes: stats.compacted_bytes.load(Relaxed),
            limit_bytes_per_second: pass_limit_bytes_per_second,
            done: stats.passes.load(Relaxed),
            failed: stats.passes_failed.load(Relaxed),
            last_failed_unix_ms: stats.last_pass_failed_unix_ms.load(Relaxed),
        },
    })
}

/// What follows from a report. Damage is for the core that owns the partition, which logs what it does about it; why
/// upkeep rests was logged by upkeep, once.
pub fn heard(report: Report) -> Option<SegmentDamage> {
    let path = report.request.path.display();
    let partition = &report.request.partition;
    let what = match &report.outcome {
        Outcome::Damaged { at, offset, what } => {
            format!("is damaged at byte {at}, offset {offset}: {what}")
        }
        Outcome::Unreadable { error } => {
            format!("cannot be read: {error} (the kernel log says more about the device)")
        }
        Outcome::OldFormat { at } => {
            tracing::info!(partition, path = %path, at, "a segment holds batches older than magic 2; they have no CRC to check");
            return None;
        }
        Outcome::Clean { bytes, batches } => {
            tracing::debug!(partition, path = %path, bytes, batches, "scrubbed");
            return None;
        }
        Outcome::Gone | Outcome::Resting { .. } => return None,
    };
    Some(SegmentDamage { folder: report.request.partition, base: report.request.base_offset, what })
}
