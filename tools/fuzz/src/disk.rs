//! Record batches, which come from sockets and disks, and the formats of our own files.

use crc32c::crc32c;
use ringmill_log::format::{checkpoint as slot, group};
use ringmill_log::segment::check_batch;
use ringmill_metadata::records::{FRAME_HEAD_BYTES, Record};
use ringmill_record::batch::{self, CRC_FROM};
use ringmill_record::{BatchHeader, Batches, Compression, HEADER_BYTES, Records, validate_produced};
use ringmill_types::{LeaderEpoch, Offset};

/// Puts a CRC32C of `data[covered]` at `at`, when all of that is there.
fn mend(
    data: &mut [u8],
    at: usize,
    covered: std::ops::Range<usize>,
    encode: fn(u32) -> [u8; 4],
) -> Option<()> {
    let crc = crc32c(data.get(covered)?);
    data.get_mut(at..at + 4)?.copy_from_slice(&encode(crc));
    Some(())
}

/// A Produce version and the records of one partition.
pub fn produced_batch(data: &[u8]) {
    let Some((version, records)) = data.split_first() else { return };
    let version = i16::from(version & 15);
    check_produced(version, records);
    let mut mended = records.to_vec();
    let end = BatchHeader::parse(records).map_or(records.len(), |h| h.size_bytes.min(records.len()));
    if mend(&mut mended, 17, CRC_FROM..end, u32::to_be_bytes).is_some() {
        check_produced(version, &mended);
    }
}

fn check_produced(version: i16, records: &[u8]) {
    let header = match validate_produced(Some(records), version) {
        Ok(produced) => produced.header,
        Err(refusal) => {
            assert!(refusal.code().code() > 0 && !refusal.text().is_empty());
            return;
        }
    };
    assert_eq!(header.size_bytes, records.len());
    assert_eq!(header.next_offset(), Offset(i64::from(header.record_count)));
    assert!(header.record_count > 0 && !header.is_control());
    if header.compression() == Some(Compression::None) {
        assert!(header.record_count as usize <= records.len() - HEADER_BYTES);
        let seen = Records::new(&header, records).expect("uncompressed").count();
        assert!(seen <= header.record_count as usize);
    }
    let mut ours = records.to_vec();
    batch::patch_placement(&mut ours, Offset(1 << 40), LeaderEpoch(3));
    batch::patch_log_append_time(&mut ours, 1_700_000_000_000);
    let stored = check_batch(&ours).expect("what was accepted can be stored and read again");
    assert_eq!(stored.base_offset, Offset(1 << 40));
    assert_eq!(stored.record_count, header.record_count);
}

/// Bytes of a segment.
pub fn stored_batches(data: &[u8]) {
    let mut walk = Batches::new(data);
    let mut seen = 0;
    for (header, batch) in walk.by_ref() {
        assert_eq!(header.size_bytes, batch.len());
        let mut mended = batch.to_vec();
        let _ = mend(&mut mended, 17, CRC_FROM..batch.len(), u32::to_be_bytes);
        let _ = (check_batch(batch), check_batch(&mended));
        let _ = (header.last_sequence(), header.next_offset(), header.compression());
        if let Ok(records) = Records::new(&header, batch) {
            assert!(records.count() <= batch.len());
        }
        seen += batch.len();
    }
    assert_eq!(seen + walk.rest().len(), data.len());
}

/// A flush group, and what follows it.
pub fn core_log_group(data: &[u8]) {
    check_group(data);
    let mut mended = data.to_vec();
    let _ = mend(&mut mended, 124, 0..124, u32::to_le_bytes);
    if let Ok(header) = group::GroupHeader::decode(&mended) {
        // Rows first (each covers the start of its payload), then the table, then the header that covers the table.
        let table = header.table_at()..header.table_at() + header.entry_count as usize * group::ENTRY_BYTES;
        let mut payload_at = group::GROUP_HEADER_BYTES;
        for row in table.clone().step_by(group::ENTRY_BYTES) {
            let Some(length) = mended.get(row + 16..row + 20).and_then(|f| f.try_into().ok()) else { return };
            let length = u32::from_le_bytes(length) as usize;
            let covered = payload_at..payload_at + length.min(group::ENTRY_CRC_BYTES);
            let _ = mend(
                &mut mended,
                payload_at + 17,
                payload_at + CRC_FROM..payload_at + length,
                u32::to_be_bytes,
            );
            let _ = mend(&mut mended, row + 20, covered, u32::to_le_bytes);
            payload_at += length;
        }
        let _ = mend(&mut mended, 52, table, u32::to_le_bytes);
        let _ = mend(&mut mended, 124, 0..124, u32::to_le_bytes);
        check_group(&mended);
    }
}

fn check_group(data: &[u8]) {
    match group::decode_group(data) {
        Ok(group) => {
            assert!(group.header.total_bytes() <= data.len());
            let payload: usize = group.payloads().map(|(_, bytes)| bytes.len()).sum();
            assert_eq!(payload, group.header.payload_bytes as usize);
            for (entry, bytes) in group.payloads() {
                assert_eq!(bytes.len(), entry.len as usize);
                assert!(!entry.kind.holds_batch() || check_batch(bytes).is_ok());
            }
            assert_eq!(
                &group.header.encode()[..],
                &data[..group::GROUP_HEADER_BYTES],
                "decoding loses nothing"
            );
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A checkpoint slot.
pub fn checkpoint(data: &[u8]) {
    let _ = slot::decode(data);
    let mut mended = data.to_vec();
    let archive = data.get(slot::ENVELOPE_BYTES..).unwrap_or_default();
    if mended.len() >= slot::ENVELOPE_BYTES {
        mended[12..20].copy_from_slice(&(archive.len() as u64).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c(&mended[..20]), archive);
        mended[20..24].copy_from_slice(&crc.to_le_bytes());
        if let Ok(checkpoint) = slot::decode(&mended) {
            let again =
                slot::decode(&slot::encode(&checkpoint)).expect("what was read can be written and read");
            assert_eq!(again, checkpoint);
        }
    }
}

/// Records of the metadata journal, one after another.
pub fn metadata_record(data: &[u8]) {
    let mut rest = data;
    while let Ok((record, bytes)) = Record::decode(rest) {
        assert!(bytes > FRAME_HEAD_BYTES && bytes <= rest.len());
        let mut again = Vec::new();
        record.encode(&mut again);
        assert_eq!(
            Record::decode(&again).expect("what was read can be written and read"),
            (record, again.len())
        );
        rest = &rest[bytes..];
    }
    let mut mended = data.to_vec();
    if let Some(payload) = data.get(FRAME_HEAD_BYTES..) {
        mended[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        mended[4..8].copy_from_slice(&crc32c(payload).to_le_bytes());
        if let Ok((record, _)) = Record::decode(&mended) {
            let mut again = Vec::new();
            record.encode(&mut again);
            assert_eq!(Record::decode(&again).expect("what was read can be written and read").0, record);
        }
    }
}
