//! One batch in, one batch out: without the records that newer ones supersede.

use super::map::OffsetMap;
use crate::examine::UNPACKED_BYTES_MAX;
use crate::options::Faults;
use ringmill_record::batch::CRC_FROM;
use ringmill_record::records::{Records, varint};
use ringmill_record::write::put_varint;
use ringmill_record::{BatchHeader, HEADER_BYTES};
use std::borrow::Cow;

/// The batch's base timestamp is the time after which its delete markers may go (KIP-534).
const DELETE_HORIZON_BIT: i16 = 1 << 6;
const NO_TIMESTAMP: i64 = -1;

#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub now_ms: i64,
    /// For delete markers that are met for the first time.
    pub horizon_ms: i64,
}

pub(super) struct Outcome {
    pub records: u64,
    pub bytes: Kept,
}

pub(super) enum Kept {
    AsItIs,
    /// Empty: no record stays.
    Rewritten(Vec<u8>),
}

/// Control batches and those of transactions are beyond compaction: what a marker decides is not known here.
fn is_understood(header: &BatchHeader) -> bool {
    !header.is_control() && !header.is_transactional()
}

/// The records of a batch, if all of them can be read and lie where the header says.
fn unpacked<'a>(header: &BatchHeader, batch: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    let payload = ringmill_compression::payload(header, batch, UNPACKED_BYTES_MAX).ok()?;
    let mut last = -1;
    for record in Records::of_payload(&payload, header.record_count) {
        let record = record.ok()?;
        if record.offset_delta <= last || record.offset_delta > header.last_offset_delta {
            return None;
        }
        last = record.offset_delta;
    }
    Some(payload)
}

/// Puts the batch's keys into the map; false when they might not all find room.
pub(super) fn note_keys(header: &BatchHeader, batch: &[u8], map: &mut OffsetMap, faults: Faults) -> bool {
    if !is_understood(header) {
        return true;
    }
    if map.room() < header.record_count.max(0) as usize {
        // One batch of more keys than there is memory for: its records supersede none.
        return map.is_empty();
    }
    let Some(payload) = unpacked(header, batch) else { return true };
    for record in Records::of_payload(&payload, header.record_count).flatten() {
        let supersedes = record.value.is_some() || !faults.markers_supersede_nothing;
        if let Some(key) = record.key.filter(|_| supersedes) {
            map.put(key, header.base_offset.plus(i64::from(record.offset_delta)));
        }
    }
    true
}

/// The batch without the records that may go.
pub(super) fn clean(header: &BatchHeader, batch: &[u8], map: &OffsetMap, times: Times) -> Outcome {
    let as_it_is = Outcome { records: header.record_count.max(0) as u64, bytes: Kept::AsItIs };
    if !is_understood(header) {
        return as_it_is;
    }
    let Some(payload) = unpacked(header, batch) else { return as_it_is };
    let has_horizon = header.attributes & DELETE_HORIZON_BIT != 0;
    let markers_stay = !has_horizon || times.now_ms < header.base_timestamp_ms;
    let (mut stay, mut markers) = (Vec::new(), false);
    for record in Records::of_payload(&payload, header.record_count).flatten() {
        let offset = header.base_offset.plus(i64::from(record.offset_delta));
        let is_newest = record.key.is_some_and(|key| map.get(key).is_none_or(|newest| newest <= offset));
        let stays = is_newest && (record.value.is_some() || markers_stay);
        markers |= stays && record.value.is_none();
        stay.push(stays);
    }
    let records = stay.iter().filter(|stays| **stays).count();
    let sets_horizon = markers && !has_horizon;
    if records == stay.len() && !sets_horizon {
        return as_it_is;
    }
    if records == 0 {
        return Outcome { records: 0, bytes: Kept::Rewritten(Vec::new()) };
    }
    let base_ms = if sets_horizon { times.horizon_ms } else { header.base_timestamp_ms };
    let Some(bytes) = rebuilt(header, batch, &payload, &stay, base_ms, sets_horizon) else { return as_it_is };
    Outcome { records: records as u64, bytes: Kept::Rewritten(bytes) }
}

/// The batch of the records that stay, at their offsets and with their times, counted from `base_ms`.
fn rebuilt(
    header: &BatchHeader,
    batch: &[u8],
    mut payload: &[u8],
    stay: &[bool],
    base_ms: i64,
    sets_horizon: bool,
) -> Option<Vec<u8>> {
    let mut records = Vec::with_capacity(payload.len());
    let mut body = Vec::new();
    let (mut count, mut max_ms) = (0i32, NO_TIMESTAMP);
    for stays in stay {
        let length = usize::try_from(varint(&mut payload)?).ok()?;
        let (record, rest) = payload.split_at_checked(length)?;
        payload = rest;
        if !stays {
            continue;
        }
        let (attributes, mut record) = record.split_first()?;
        let timestamp_ms = header.base_timestamp_ms.checked_add(varint(&mut record)?)?;
        max_ms = max_ms.max(timestamp_ms);
        count += 1;
        body.clear();
        body.push(*attributes);
        put_varint(&mut body, timestamp_ms.checked_sub(base_ms)?);
        // Offset delta, key, value and headers are as they were.
        body.extend_from_slice(record);
        put_varint(&mut records, body.len() as i64);
        records.extend_from_slice(&body);
    }
    let packed = ringmill_compression::compress(header.compression()?, records).ok()?;
    let mut out = batch.get(..HEADER_BYTES)?.to_vec();
    out.extend_from_slice(&packed);
    let length = i32::try_from(out.len() - 12).ok()?;
    let attributes = header.attributes | if sets_horizon { DELETE_HORIZON_BIT } else { 0 };
    // The broker's stamp is that of the batch; it stays what it was.
    let max_ms = if header.is_log_append_time() { header.max_timestamp_ms } else { max_ms };
    let fields: [(usize, &[u8]); 5] = [
        (8, &length.to_be_bytes()),
        (CRC_FROM, &attributes.to_be_bytes()),
        (27, &base_ms.to_be_bytes()),
        (35, &max_ms.to_be_bytes()),
        (HEADER_BYTES - 4, &count.to_be_bytes()),
    ];
    for (at, bytes) in fields {
        out.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
    }
    let crc = crc32c::crc32c(out.get(CRC_FROM..)?);
    out.get_mut(CRC_FROM - 4..CRC_FROM)?.copy_from_slice(&crc.to_be_bytes());
    Some(out)
}
