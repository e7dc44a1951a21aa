//! A core's log: the core log that acks wait for, the tail ring that serves the newest data, destaging into
//! Kafka-format segments, cold reads, checkpoints and recovery.
//!
//! One [`Log`] per core, used by its thread only, synchronous: calls change state and queue operations on a
//! [`Backend`](ringmill_reactor::Backend); completions come back through [`Log::complete`]; what the core must know
//! comes out of [`Log::next_event`]. Formats are drawn in `FORMAT.md`.

pub mod adopt;
mod block_cache;
mod carry;
mod checkpointing;
mod cold;
pub mod compact;
mod compaction;
mod core_log;
mod damage;
mod destage;
pub mod epochs;
pub mod examine;
mod fatal;
pub mod folder;
pub mod format;
pub mod index;
mod inline;
pub mod inspect;
mod jobs;
mod log;
mod open_files;
pub mod options;
pub mod partition;
mod partitions;
pub mod producer;
mod read;
pub mod recovery;
mod retention;
pub mod segment;
mod tail;
#[cfg(test)]
mod testing;
mod time;
pub mod token;
mod view;

pub use compaction::{Answer, CompactJob};
pub use fatal::Fatal;
pub use log::{AckAt, AppendError, Appended, Log, LogEvent, Slot};
pub use options::{Faults, FlushMethod, LogOptions};
pub use producer::ProducerView;
pub use read::{ReadError, ReadOutcome, ReadRequest};
pub use recovery::{RecoveryError, RecoveryReport};
pub use time::TimeFound;
pub use view::{LogMetrics, PartitionView, WithoutRoom};
