//! The batch header: byte positions, a decoded copy, and in-place patches of the fields outside the CRC.
//!
//! ```text
//!  0 baseOffset i64          12 partitionLeaderEpoch i32   21 attributes i16        43 producerId i64    57 recordCount i32
//!  8 batchLength i32         16 magic i8                   23 lastOffsetDelta i32   51 producerEpoch i16 61 records…
//!                            17 crc u32 (21..end, CRC32C)  27 baseTimestamp i64     53 baseSequence i32
//!                                                          35 maxTimestamp i64
//! ```
//! All big-endian. `batchLength` counts from byte 12.

pub use ringmill_types::Compression;
use ringmill_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// Bytes before the first record.
pub const HEADER_BYTES: usize = 61;
/// `baseOffset` and `batchLength`: what `batchLength` does not count.
pub const LOG_OVERHEAD_BYTES: usize = 12;
/// First byte the CRC covers.
pub const CRC_FROM: usize = 21;

const MAGIC_AT: usize = 16;

/// The header of one batch, decoded. Values are what the bytes say, not what they should be: see [`crate::validate_batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: Offset,
    /// Whole batch in bytes, header included.
    pub size_bytes: usize,
    pub leader_epoch: LeaderEpoch,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp_ms: i64,
    pub max_timestamp_ms: i64,
    pub producer_id: ProducerId,
    pub producer_epoch: ProducerEpoch,
    pub base_sequence: i32,
    pub record_count: i32,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// In the low byte of a batch's attributes.
const LOG_APPEND_TIME_BIT: u8 = 0x08;

impl BatchHeader {
    /// Decodes the header at the start of `bytes`; `None` when fewer than [`HEADER_BYTES`] are there or the length
    /// field is too small to hold a header.
    pub fn parse(bytes: &[u8]) -> Option<BatchHeader> {
        let length = i32::from_be_bytes(array(bytes, 8)?);
        let size_bytes = usize::try_from(length).ok()?.checked_add(LOG_OVERHEAD_BYTES)?;
        if size_bytes < HEADER_BYTES {
            return None;
        }
        Some(BatchHeader {
            base_offset: Offset(i64::from_be_bytes(array(bytes, 0)?)),
            size_bytes,
            leader_epoch: LeaderEpoch(i32::from_be_bytes(array(bytes, 12)?)),
            magic: i8::from_be_bytes(array(bytes, MAGIC_AT)?),
            crc: u32::from_be_bytes(array(bytes, 17)?),
            attributes: i16::from_be_bytes(array(bytes, 21)?),
            last_offset_delta: i32::from_be_bytes(array(bytes, 23)?),
            base_timestamp_ms: i64::from_be_bytes(array(bytes, 27)?),
            max_timestamp_ms: i64::from_be_bytes(array(bytes, 35)?),
            producer_id: ProducerId(i64::from_be_bytes(array(bytes, 43)?)),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(array(bytes, 51)?)),
            base_sequence: i32::from_be_bytes(array(bytes, 53)?),
            record_count: i32::from_be_bytes(array(bytes, 57)?),
        })
    }

    /// The magic byte of whatever message set starts here: old formats keep it at the same place.
    pub fn magic_of(bytes: &[u8]) -> Option<i8> {
        bytes.get(MAGIC_AT).map(|b| *b as i8)
    }

    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta))
    }

    pub fn next_offset(&self) -> Offset {
        self.last_offset().plus(1)
    }

    /// Sequence of the last record; wraps to 0 after `i32::MAX`, as Kafka's does. -1 when there is none.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            -1
        } else {
            increment_sequence(self.base_sequence, self.last_offset_delta)
        }
    }

    pub fn compression(&self) -> Option<Compression> {
        match self.attributes & 7 {
            0 => Some(Compression::None),
            1 => Some(Compression::Gzip),
            2 => Some(Compression::Snappy),
            3 => Some(Compression::Lz4),
            4 => Some(Compression::Zstd),
            _ => None,
        }
    }

    pub fn is_log_append_time(&self) -> bool {
        self.attributes & i16::from(LOG_APPEND_TIME_BIT) != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & 0x10 != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & 0x20 != 0
    }

    pub fn has_producer_id(&self) -> bool {
        self.producer_id.0 >= 0
    }
}

/// `base + by`, wrapping within the non-negative `i32`s (`DefaultRecordBatch.incrementSequence`). Both may come from a
/// disk or a socket, so any two are taken.
pub fn increment_sequence(base: i32, by: i32) -> i32 {
    base.wrapping_add(by) & i32::MAX
}

/// Writes the two fields a leader sets and the CRC does not cover. `batch` must hold a whole header.
pub fn patch_placement(batch: &mut [u8], base_offset: Offset, epoch: LeaderEpoch) {
    if let Some(field) = batch.get_mut(0..8) {
        field.copy_from_slice(&base_offset.0.to_be_bytes());
    }
    if let Some(field) = batch.get_mut(12..16) {
        field.copy_from_slice(&epoch.0.to_be_bytes());
    }
}

/// Makes the header say what the records behind it are packed with and how many bytes all that is; the header then.
/// `None`: no whole header, or more bytes than a batch can say.
pub fn patch_compression(batch: &mut [u8], compression: Compression) -> Option<BatchHeader> {
    const CODES: u8 = 0x07;
    let length = i32::try_from(batch.len().checked_sub(LOG_OVERHEAD_BYTES)?).ok()?;
    batch.get_mut(8..12)?.copy_from_slice(&length.to_be_bytes());
    let low = batch.get_mut(22)?;
    *low = *low & !CODES | compression.code();
    patch_crc(batch);
    BatchHeader::parse(batch)
}

/// Rewrites a batch for `LogAppendTime`: the attribute bit, the maximum timestamp, and the CRC that covers them.
pub fn patch_log_append_time(batch: &mut [u8], now_ms: i64) {
    patch_timestamp(batch, LOG_APPEND_TIME_BIT, now_ms);
}

/// The same for `CreateTime`, where a producer set the bit or a maximum that its records do not have.
pub fn patch_create_time(batch: &mut [u8], max_timestamp_ms: i64) {
    patch_timestamp(batch, 0, max_timestamp_ms);
}

fn patch_timestamp(batch: &mut [u8], bit: u8, now_ms: i64) {
    if batch.len() < HEADER_BYTES {
        return;
    }
    if let Some(low) = batch.get_mut(22) {
        *low = *low & !LOG_APPEND_TIME_BIT | bit;
    }
    if let Some(field) = batch.get_mut(35..43) {
        field.copy_from_slice(&now_ms.to_be_bytes());
    }
    patch_crc(batch);
}

fn patch_crc(batch: &mut [u8]) {
    let crc = crc32c::crc32c(batch.get(CRC_FROM..).unwrap_or_default());
    if let Some(field) = batch.get_mut(17..21) {
        field.copy_from_slice(&crc.to_be_bytes());
    }
}
