//! What a leader checks before a batch may enter the log.

use crate::batch::{BatchHeader, CRC_FROM, HEADER_BYTES};
use std::fmt;

/// Why a batch is refused. The map to Kafka's codes is in `net/core`, one per API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// Fewer bytes than the header or than the length field says.
    Truncated,
    /// Magic 0 or 1: message formats that Kafka 4 no longer writes.
    OldFormat(i8),
    /// A magic nobody defined.
    UnknownMagic(i8),
    /// The CRC32C does not match the bytes.
    Crc,
    /// Record count and last offset delta do not agree, or are not positive.
    Count,
    /// Compression code 5–7.
    Compression,
    /// Attribute bits that producers may not set, or sequence fields that contradict each other.
    Attributes,
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BatchError::Truncated => f.write_str("batch is shorter than its length field says"),
            BatchError::OldFormat(magic) => {
                write!(f, "message format {magic} is no longer written; use magic 2")
            }
            BatchError::UnknownMagic(magic) => write!(f, "unknown batch magic {magic}"),
            BatchError::Crc => f.write_str("CRC32C does not match the batch"),
            BatchError::Count => f.write_str("record count does not match the last offset delta"),
            BatchError::Compression => f.write_str("unknown compression code"),
            BatchError::Attributes => f.write_str("attributes or producer fields contradict each other"),
        }
    }
}

impl std::error::Error for BatchError {}

/// Checks sizes, magic, CRC32C, counts, compression code and producer fields of the batch at the start of `bytes`.
///
/// `bytes` may hold more than this batch; the returned header says where it ends. Topic rules (size limit, timestamp
/// bounds, sequence order) are the log's.
///
/// # Errors
/// [`BatchError`], the first check that fails in the order Kafka makes them.
pub fn validate_batch(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    match BatchHeader::magic_of(bytes) {
        None => return Err(BatchError::Truncated),
        Some(2) => {}
        Some(magic @ 0..=1) => return Err(BatchError::OldFormat(magic)),
        Some(magic) => return Err(BatchError::UnknownMagic(magic)),
    }
    let header = BatchHeader::parse(bytes).ok_or(BatchError::Truncated)?;
    let covered = bytes.get(CRC_FROM..header.size_bytes).ok_or(BatchError::Truncated)?;
    if crc32c::crc32c(covered) != header.crc {
        return Err(BatchError::Crc);
    }
    if header.record_count <= 0 || i64::from(header.last_offset_delta) != i64::from(header.record_count) - 1 {
        return Err(BatchError::Count);
    }
    if header.compression().is_none() {
        return Err(BatchError::Compression);
    }
    if header.has_producer_id() && (header.producer_epoch.0 < 0 || header.base_sequence < 0) {
        return Err(BatchError::Attributes);
    }
    Ok(header)
}

/// Walks the batches that lie one after another in `bytes`, by their length fields alone.
///
/// Stops before a batch that is not whole: what is left over is [`Batches::rest`].
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    pub fn new(bytes: &'a [u8]) -> Batches<'a> {
        Batches { rest: bytes }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = (BatchHeader, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.len() < HEADER_BYTES {
            return None;
        }
        let header = BatchHeader::parse(self.rest)?;
        let (batch, rest) = self.rest.split_at_checked(header.size_bytes)?;
        self.rest = rest;
        Some((header, batch))
    }
}
