//! Looking inside compressed batches: for lookups by time, for what is produced to a compacted topic, and for compaction.
//! On the file thread and upkeep's only, never on a core: batches otherwise pass through untouched.

use ringmill_compression::decompress;
use ringmill_record::{BatchHeader, HEADER_BYTES};
use std::io;

/// Decompressed bytes of one batch for a lookup; a batch that holds more is not looked into.
pub(crate) const PAYLOAD_BYTES_MAX: u64 = 256 << 20;

/// The records of a batch, uncompressed.
///
/// # Errors
/// `InvalidData` for bytes that do not decompress, `FileTooLarge` for more than `bytes_max` of them.
pub(crate) fn payload(header: &BatchHeader, batch: &[u8], bytes_max: u64) -> io::Result<Vec<u8>> {
    let body = batch.get(HEADER_BYTES..).unwrap_or_default();
    let compression = header.compression().ok_or(io::ErrorKind::InvalidData)?;
    // Cut off or not: what Kafka's reader would find.
    decompress(compression, body, bytes_max).map(|unpacked| unpacked.bytes)
}
