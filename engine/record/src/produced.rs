//! Whether what a producer sent for one partition may be appended, as Kafka 4.3 decides it before topic rules apply.
//!
//! Every case of `tests/golden/verdicts.txt` is a batch that a real broker was asked about; where the answers here
//! differ from its, the test says why.

use crate::batch::{BatchHeader, Compression, HEADER_BYTES, LOG_OVERHEAD_BYTES};
use crate::records::{Records, varint};
use crate::validate::{BatchError, validate_batch};
use ringmill_types::ErrorCode;
use std::fmt;

/// Kafka's smallest value of a batch's length field, from the oldest message format: below it, nothing can be said of
/// what follows.
const LENGTH_FIELD_MIN: i32 = 14;

/// Up to and including the magic byte.
const UP_TO_MAGIC_BYTES: usize = 17;

/// The first Produce version whose clients are known to read zstd.
const ZSTD_FROM_VERSION: i16 = 7;

/// Why records are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Null, empty, or less than one whole batch.
    NoBatch,
    /// The length field is below what any batch takes.
    Length(i32),
    /// More than one batch, or bytes behind it.
    NotOneBatch,
    /// zstd from a client of a Produce version before 7.
    ZstdTooEarly,
    /// Producers count from 0; the broker gives offsets.
    BaseOffset(i64),
    /// Control records are the broker's own.
    Control,
    /// Compressed records that cannot be read, or whose offsets are not 0, 1, 2 …
    Offsets,
    /// A compressed payload that does not unpack.
    Unpack,
    /// A compressed payload that unpacks to more than anybody could look through.
    UnpackedTooLarge,
    /// Records that the packer does not take, though they unpacked: for want of memory, which may pass.
    Pack,
    /// What [`validate_batch`] found.
    Batch(BatchError),
}

impl Refusal {
    /// The code on the wire.
    pub fn code(self) -> ErrorCode {
        match self {
            Refusal::NoBatch
            | Refusal::NotOneBatch
            | Refusal::BaseOffset(_)
            | Refusal::Control
            | Refusal::Offsets => ErrorCode::InvalidRecord,
            Refusal::Length(_) | Refusal::Unpack => ErrorCode::CorruptMessage,
            Refusal::UnpackedTooLarge => ErrorCode::MessageTooLarge,
            Refusal::ZstdTooEarly => ErrorCode::UnsupportedCompressionType,
            Refusal::Pack => ErrorCode::KafkaStorageError,
            Refusal::Batch(error) => match error {
                BatchError::Truncated | BatchError::UnknownMagic(_) | BatchError::Crc => {
                    ErrorCode::CorruptMessage
                }
                BatchError::OldFormat(_) => ErrorCode::UnsupportedForMessageFormat,
                BatchError::Count | BatchError::Compression | BatchError::Attributes => {
                    ErrorCode::InvalidRecord
                }
            },
        }
    }

    /// The sentence for the client, without figures, so that it can be kept with an answer.
    pub fn text(self) -> &'static str {
        match self {
            Refusal::NoBatch => "a produce request holds one whole batch per partition, and there is none",
            Refusal::Length(_) => "the length field of the batch is too small for any batch",
            Refusal::NotOneBatch => "a produce request holds exactly one batch per partition",
            Refusal::ZstdTooEarly => "zstd needs produce version 7",
            Refusal::BaseOffset(_) => "the base offset of a produced batch is 0",
            Refusal::Control => "clients do not write control batches",
            Refusal::Offsets => "the records of a compressed batch have the offsets 0, 1, 2 and so on",
            Refusal::Unpack => "the records do not unpack",
            Refusal::UnpackedTooLarge => "the records unpack to more than a batch may that is looked into",
            Refusal::Pack => "the records could not be packed as their topic wants them",
            Refusal::Batch(error) => match error {
                BatchError::Truncated => "the batch is shorter than its header",
                BatchError::OldFormat(_) => "message formats before magic 2 are no longer written",
                BatchError::UnknownMagic(_) => "unknown batch magic",
                BatchError::Crc => "the CRC32C does not match the batch",
                BatchError::Count => "the record count does not match the last offset delta",
                BatchError::Compression => "unknown compression code",
                BatchError::Attributes => "producer id, epoch and sequence contradict each other",
            },
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Length(length) => write!(f, "a batch cannot have the length {length}"),
            Refusal::BaseOffset(offset) => {
                write!(f, "the base offset of a produced batch is 0, this one has {offset}")
            }
            Refusal::Batch(error) => error.fmt(f),
            Refusal::NoBatch
            | Refusal::NotOneBatch
            | Refusal::ZstdTooEarly
            | Refusal::Control
            | Refusal::Offsets
            | Refusal::Unpack
            | Refusal::UnpackedTooLarge
            | Refusal::Pack => f.write_str(self.text()),
        }
    }
}

impl std::error::Error for Refusal {}

/// Checks the records of one partition of a Produce request of version `produce_version`: one whole, undamaged batch
/// of magic 2 that says what a client may say and, uncompressed, has as many records as it says. Then `records` is that
/// batch, to its last byte.
///
/// Left to the caller: transactions (a right of the request, not of the batch), and topic rules: size, bounds of
/// timestamps, keys, sequences.
///
/// # Errors
/// [`Refusal`], the first in the order in which Kafka looks.
pub fn validate_produced(records: Option<&[u8]>, produce_version: i16) -> Result<Produced, Refusal> {
    let records = records.unwrap_or_default();
    whole_batch(records)?;
    if let Some(header) = BatchHeader::parse(records).filter(|h| h.magic == 2) {
        if produce_version < ZSTD_FROM_VERSION && header.compression() == Some(Compression::Zstd) {
            return Err(Refusal::ZstdTooEarly);
        }
        if header.size_bytes != records.len() {
            return Err(Refusal::NotOneBatch);
        }
        if header.base_offset.0 != 0 {
            return Err(Refusal::BaseOffset(header.base_offset.0));
        }
    }
    let header = validate_batch(records).map_err(Refusal::Batch)?;
    if header.is_control() {
        return Err(Refusal::Control);
    }
    if header.compression() != Some(Compression::None) {
        return Ok(Produced::on_trust(header));
    }
    counted(header, records.get(HEADER_BYTES..).unwrap_or_default())
}

/// The same look at the records of a compressed batch that was unpacked to `payload`. `header` is what
/// [`validate_produced`] gave. Their offsets must be dense: nobody rewrites them behind the compression.
///
/// # Errors
/// [`Refusal`], for a count that is not that of the records, or offsets with holes.
pub fn validate_unpacked(header: BatchHeader, payload: &[u8]) -> Result<Produced, Refusal> {
    let produced = counted(header, payload)?;
    let records = Records::of_payload(payload, header.record_count);
    if (0..).zip(records).any(|(at, record)| !record.is_ok_and(|r| r.offset_delta == at)) {
        return Err(Refusal::Offsets);
    }
    Ok(produced)
}

fn counted(header: BatchHeader, payload: &[u8]) -> Result<Produced, Refusal> {
    let walked = walk(payload, header.base_timestamp_ms);
    let walked = walked.filter(|w| Some(w.count) == u32::try_from(header.record_count).ok());
    let Walked { min_timestamp_ms, max_timestamp_ms, .. } =
        walked.ok_or(Refusal::Batch(BatchError::Count))?;
    Ok(Produced { header, min_timestamp_ms, max_timestamp_ms })
}

/// A batch that may be appended, and what its records say of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    pub header: BatchHeader,
    /// The least of the records' timestamps; `i64::MAX`: no record has one.
    pub min_timestamp_ms: i64,
    /// The greatest; the header may claim another, and is put right before it is stored. -1: no record has one.
    pub max_timestamp_ms: i64,
}

impl Produced {
    /// The header claims a maximum that the records do not have, or a clock that is not the producer's: the batch is
    /// stored with [`patch_create_time`](crate::batch::patch_create_time) on a topic of that kind.
    pub fn is_to_be_put_right(&self) -> bool {
        self.header.is_log_append_time() || self.header.max_timestamp_ms != self.max_timestamp_ms
    }

    /// What the header says, where nobody looks at the records: compressed ones are not unpacked for it.
    pub fn on_trust(header: BatchHeader) -> Produced {
        let base = header.base_timestamp_ms;
        let min_timestamp_ms = if base == NO_TIMESTAMP { i64::MAX } else { base };
        Produced { header, min_timestamp_ms, max_timestamp_ms: header.max_timestamp_ms }
    }
}

/// Of a record or batch that has none.
const NO_TIMESTAMP: i64 = -1;

struct Walked {
    count: u32,
    min_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

/// How many records lie in `payload` and the range of their timestamps, by their lengths and the first two fields;
/// `None` when the last does not end with it. A count that is not true would leave a hole in the offsets, which only a
/// look at the records can show: a few nanoseconds each, on bytes that the CRC has just brought into the cache.
/// Compressed payloads pass on trust.
fn walk(mut payload: &[u8], base_timestamp_ms: i64) -> Option<Walked> {
    // As in Kafka, the maximum of a batch without timestamps is "none".
    let mut walked = Walked { count: 0, min_timestamp_ms: i64::MAX, max_timestamp_ms: NO_TIMESTAMP };
    while !payload.is_empty() {
        let length = usize::try_from(varint(&mut payload)?).ok()?;
        // The record's attributes, which nobody uses, then its timestamp.
        let mut body = payload.get(1..length)?;
        let timestamp_ms = base_timestamp_ms.saturating_add(varint(&mut body)?);
        if timestamp_ms != NO_TIMESTAMP {
            walked.min_timestamp_ms = walked.min_timestamp_ms.min(timestamp_ms);
            walked.max_timestamp_ms = walked.max_timestamp_ms.max(timestamp_ms);
        }
        payload = payload.get(length..)?;
        walked.count += 1;
    }
    Some(walked)
}

/// The length field makes sense and that many bytes are there.
fn whole_batch(records: &[u8]) -> Result<(), Refusal> {
    let length = records.get(8..LOG_OVERHEAD_BYTES).and_then(|field| field.try_into().ok());
    let length = i32::from_be_bytes(length.ok_or(Refusal::NoBatch)?);
    if length < LENGTH_FIELD_MIN {
        return Err(Refusal::Length(length));
    }
    if records.len() < UP_TO_MAGIC_BYTES {
        return Err(Refusal::NoBatch);
    }
    let magic = BatchHeader::magic_of(records).unwrap_or(-1);
    if !(0..=2).contains(&magic) {
        return Err(Refusal::Batch(BatchError::UnknownMagic(magic)));
    }
    if records.len() - LOG_OVERHEAD_BYTES < length as usize {
        return Err(Refusal::NoBatch);
    }
    Ok(())
}
