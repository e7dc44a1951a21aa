//! What the cluster has decided: topics, their partitions and configs, ids given out.
//!
//! Decisions are records. A [`Journal`] makes records durable; an [`Image`] is what they add up to. The two are kept
//! apart, so that a replicated journal can take the place of the file without touching anything else. Nothing here
//! knows of sockets, requests or cores' threads.

pub mod image;
pub mod journal;
pub mod records;

pub use image::{Image, Topic};
pub use journal::{FileJournal, Journal, JournalError};
pub use records::{PartitionRecord, Record, RecordError};
