//! Kafka's record batch, magic 2: a borrowed view of its 61-byte header, and the checks a broker owes a producer.
//!
//! No I/O, no unsafe, and no allocation but in the caller's buffer when a batch is written. Bytes come from sockets and disks, so nothing here indexes without a check and
//! nothing is asserted about them. Layout: KIP-98 and `org.apache.kafka.common.record.DefaultRecordBatch`.

pub mod batch;
pub mod produced;
pub mod records;
pub mod rules;
pub mod validate;
pub mod write;

pub use batch::{BatchHeader, Compression, HEADER_BYTES, LOG_OVERHEAD_BYTES};
pub use produced::{Produced, Refusal, validate_produced, validate_unpacked};
pub use records::{Records, RecordsError};
pub use rules::{BadRecords, RecordRules, TimeRule, bad_records};
pub use validate::{BatchError, Batches, validate_batch};
