//! Upkeep as the broker runs it: its options from the settings, and what its reports mean to an operator.

use crate::config::Settings;
use crate::signals::Event;
use ringmill_upkeep::{Outcome, Report, Upkeep, UpkeepOptions};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// After a start the cores recover, destage and serve first.
const FIRST_ROUND_AFTER: Duration = Duration::from_secs(300);
/// Long enough for retention to have finished with a file it was cutting.
const SECOND_LOOK_AFTER: Duration = Duration::from_secs(10);

/// Starts the upkeep thread; `None`, with a warning, where there can be none.
pub fn start(data: &Path, settings: &Settings, events: Sender<Event>) -> Option<Upkeep> {
    let options = UpkeepOptions {
        topics: data.join("topics"),
        cpus: settings.upkeep_cpus.clone().unwrap_or_default(),
        bytes_per_second: settings.scrub_bytes_per_second,
        round_every: Duration::from_millis(settings.scrub_interval_ms.unsigned_abs()),
        first_round_after: FIRST_ROUND_AFTER,
        second_look_after: SECOND_LOOK_AFTER,
        on_report: Box::new(move |report| {
            // The main thread is gone only when the process ends.
            let _ = events.send(Event::Scrubbed(report));
        }),
    };
    match ringmill_upkeep::spawn(options) {
        Ok(upkeep) => Some(upkeep),
        Err(error) => {
            tracing::warn!("sealed segments are not scrubbed: no thread for it ({error})");
            None
        }
    }
}

/// Says what a report means. Upkeep has logged why it rests, once; that is not repeated for every segment.
pub fn heard(report: &Report) {
    let path = report.request.path.display();
    let partition = &report.request.partition;
    match &report.outcome {
        Outcome::Damaged { at, offset, what } => tracing::error!(
            partition,
            path = %path,
            at,
            offset = offset.0,
            "a sealed segment of {partition} is damaged at byte {at}, offset {offset}: {what}. Consumers will meet an error there; \
             restore {path} from a copy while the broker is stopped, or let retention remove it. `ringmill log verify` shows more."
        ),
        Outcome::Unreadable { error } => tracing::error!(
            partition,
            path = %path,
            "a sealed segment of {partition} cannot be read: {error}. Look at the kernel log for the device; copy the data off it."
        ),
        Outcome::OldFormat { at } => {
            tracing::info!(partition, path = %path, at, "a segment holds batches older than magic 2; they have no CRC to check");
        }
        Outcome::Clean { bytes, batches } => {
            tracing::debug!(partition, path = %path, bytes, batches, "scrubbed")
        }
        Outcome::Gone | Outcome::Resting { .. } => {}
    }
}
