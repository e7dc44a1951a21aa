//! Upkeep: bulk jobs on files nobody writes, one thread, out of the cores' way.
//!
//! Owns the scrub: sealed segments are read with `O_DIRECT` and the CRC of every batch is checked, a round at an interval
//! and single files on request; and the passes of log compaction that cores ask for. Guarantees that a job stays under its
//! rate limit and low priority, and that it changes no file that is served: what should follow from a finding is decided by
//! who receives the [`Report`], and compacted segments are written beside the old ones, for the core to put in place. Never needed by start-up or retention:
//! where glommio cannot run (it asks for 512 KiB of lockable memory and io_uring), jobs are answered with
//! [`Outcome::Resting`] and the thread says why, once.
//!
//! [`check`] decides whether bytes are a sound segment, without I/O; [`walk`] finds sealed segments; [`scrub`] reads them
//! on a glommio executor that exists only while there is work; [`thread`] waits for jobs and rounds.

pub mod check;
mod compact;
pub mod walk;

mod scrub;
mod thread;

pub use thread::{Upkeep, UpkeepOptions, UpkeepStats, spawn};

use ringmill_types::Offset;
use std::path::PathBuf;

/// A sealed segment to be read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubRequest {
    /// The `.log` file.
    pub path: PathBuf,
    /// Folder name, `TOPIC-N`: who the segment belongs to, for reports.
    pub partition: String,
    /// The offset in the file's name: the first batch may not lie below it.
    pub base_offset: Offset,
    /// None of its offsets reaches this one: the base of the segment behind it. A batch's base offset is outside its CRC.
    pub bound: Offset,
}

/// What a job found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub request: ScrubRequest,
    pub outcome: Outcome,
}

/// How a scrub of one segment ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every batch is whole and matches its CRC.
    Clean { bytes: u64, batches: u64 },
    /// Read twice with the same result: the bytes on the device are not what was written.
    Damaged { at: u64, offset: Offset, what: check::Damage },
    /// Batches in a format older than magic 2, which have no CRC32C: not checked from there on.
    OldFormat { at: u64 },
    /// The file went away meanwhile: retention or a deleted topic.
    Gone,
    /// The device would not give the bytes: offline for readers too.
    Unreadable { error: String },
    /// Not done: upkeep cannot run here, or was stopped.
    Resting { why: String },
}
