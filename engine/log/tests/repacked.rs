//! `compression.type`: batches that a topic stores in another compression than they come in.
#![allow(clippy::unwrap_used)]

mod common;

use common::Core;
use ringmill_log::AppendError;
use ringmill_log::examine::{Judgement, needs_unpacking, unpack_and_judge};
use ringmill_record::write::{Sealing, no_headers, put_record, seal};
use ringmill_record::{BatchHeader, Compression, HEADER_BYTES, validate_produced};
use ringmill_types::{
    CoreId, LeaderEpoch, Packing, PartitionId, PartitionSpec, TopicConfig, TopicId, TopicSpec,
};
use std::sync::Arc;

const ALL: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn packed_as(compression: Compression, level: Option<i32>) -> TopicConfig {
    TopicConfig { stored_as: Some(Packing { compression, level }), ..TopicConfig::default() }
}

/// A record a millisecond, from a producer in its seventh batch.
fn batch_of(came: Compression, values: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (at, value) in values.iter().enumerate() {
        put_record(&mut payload, at as i64, at as i32, Some(b"key"), Some(value), no_headers());
    }
    let mut batch = vec![0; HEADER_BYTES];
    batch.extend(ringmill_compression::compress(came, payload).unwrap());
    let count = values.len() as i32;
    let with = Sealing {
        attributes: i16::from(came.code()),
        producer_id: 9,
        producer_epoch: 2,
        base_sequence: 77,
        ..Sealing::plain(1_000, 1_000 + i64::from(count) - 1, count)
    };
    seal(&mut batch, &with);
    batch
}

/// Every compression into every other: the records, the producer and its sequence stay, and the CRC is right.
#[test]
fn a_topic_with_a_compression_stores_in_it_whatever_comes() {
    let values: Vec<Vec<u8>> =
        (0..40u32).map(|i| i.wrapping_mul(0x9e37_79b9).to_string().into_bytes()).collect();
    let plain = batch_of(Compression::None, &values);
    for came in ALL {
        let batch = batch_of(came, &values);
        let as_it_came = BatchHeader::parse(&batch).unwrap();
        assert!(!needs_unpacking(&TopicConfig::default(), &batch), "producer leaves it alone");
        for stored in ALL {
            let about = format!("{came:?} to {stored:?}");
            let config = packed_as(stored, None);
            assert_eq!(needs_unpacking(&config, &batch), stored != came, "{about}");
            let judged = unpack_and_judge(&batch, 9, &config, ("t", 0), 1_000).unwrap();
            let Some(packed) = judged.packed else {
                assert_eq!(stored, came);
                continue;
            };
            let produced = validate_produced(Some(&packed), 9).unwrap();
            assert_eq!(produced.header, judged.produced.header, "{about}");
            assert_eq!(produced.header.compression(), Some(stored));
            let same = BatchHeader {
                size_bytes: as_it_came.size_bytes,
                crc: as_it_came.crc,
                attributes: as_it_came.attributes,
                ..produced.header
            };
            assert_eq!(same, as_it_came, "{about}");
            assert_eq!(judged.produced.max_timestamp_ms, 1_039);
            let unpacked =
                ringmill_compression::decompress(stored, &packed[HEADER_BYTES..], 1 << 20).unwrap();
            assert!(unpacked.bytes == plain[HEADER_BYTES..], "{about}");
        }
        // As large as it came it is refused, so nobody packs it.
        let small = TopicConfig { max_message_bytes: 100, ..packed_as(Compression::Zstd, None) };
        assert_eq!(unpack_and_judge(&batch, 9, &small, ("t", 0), 1_000), Err(Judgement::TooLarge));
    }
}

/// The levels of a topic reach the packer: the hardest gives clearly less than the laxest.
#[test]
fn a_topics_level_is_that_of_the_packer() {
    let line =
        |i: u32| format!("line {i} of {}, the {}th of its kind", i.wrapping_mul(0x9e37_79b9), i * 7 % 31);
    let values: Vec<Vec<u8>> = (0..2_000).map(|i| line(i).into_bytes()).collect();
    let batch = batch_of(Compression::None, &values);
    for (compression, lax, hard) in [(Compression::Gzip, 1, 9), (Compression::Zstd, -100, 19)] {
        let bytes = |level| {
            let config = packed_as(compression, Some(level));
            unpack_and_judge(&batch, 9, &config, ("t", 0), 1_000).unwrap().packed.unwrap().len()
        };
        assert!(bytes(hard) * 10 < bytes(lax) * 9, "{compression:?}: {} {}", bytes(hard), bytes(lax));
    }
}

/// What fits as it came and not as it is to be stored is refused at the append; a duplicate of what fitted is known by its
/// sequence, whatever it was packed with.
#[test]
fn a_batch_that_gets_too_large_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (mut core, _) = Core::open(home.path(), 1);
    let spec =
        PartitionSpec { index: 0, id: PartitionId(100), owner: CoreId(0), leader_epoch: LeaderEpoch(0) };
    let config = TopicConfig { max_message_bytes: 1_000, ..packed_as(Compression::None, None) };
    let topic = TopicSpec {
        name: "t".into(),
        id: TopicId([9; 16]),
        config: Arc::new(config),
        partitions: vec![spec.clone()],
    };
    let slot = core.log.upsert(&topic, &spec);
    let mut append = |came: Compression, bytes: usize| {
        let batch = batch_of(came, &[vec![b'x'; bytes]]);
        assert!(batch.len() < 1_000);
        let judged = unpack_and_judge(&batch, 9, &topic.config, ("t", 0), 1_000).unwrap();
        let packed = judged.packed.unwrap();
        assert_eq!(packed, batch_of(Compression::None, &[vec![b'x'; bytes]]));
        core.log.append_produced(&mut core.io, slot, &judged.produced, &packed, 1_000)
    };
    let too_large = append(Compression::Gzip, 5_000);
    let Err(AppendError::Refused(code, _)) = too_large else { panic!("{too_large:?}") };
    assert_eq!(code.name(), "MESSAGE_TOO_LARGE");
    let first = append(Compression::Gzip, 500).unwrap();
    let again = append(Compression::Zstd, 500).unwrap();
    assert_eq!((first.base_offset.0, again.base_offset.0), (0, 0), "the same sequence");
}
