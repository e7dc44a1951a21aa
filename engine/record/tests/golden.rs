//! Segments that Kafka 4.3.1 wrote from what real clients sent: kcat 1.7 (librdkafka 2.0.2) with every codec, and the
//! Java producer with zstd. Walked, checked and patched here without a byte changing that should not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;
use ringmill_record::batch::{increment_sequence, patch_log_append_time, patch_placement};
use ringmill_record::records::varint;
use ringmill_record::{
    BatchError, BatchHeader, Batches, Compression, HEADER_BYTES, Records, validate_batch, validate_produced,
};
use ringmill_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

const SEGMENTS: &[(&str, &[u8])] = &[
    ("kcat-none", include_bytes!("golden/kcat-none.log")),
    ("kcat-gzip", include_bytes!("golden/kcat-gzip.log")),
    ("kcat-snappy", include_bytes!("golden/kcat-snappy.log")),
    ("kcat-lz4", include_bytes!("golden/kcat-lz4.log")),
    ("kcat-zstd", include_bytes!("golden/kcat-zstd.log")),
    ("kcat-idempotent", include_bytes!("golden/kcat-idempotent.log")),
    ("kcat-null-key", include_bytes!("golden/kcat-null-key.log")),
    ("java-zstd", include_bytes!("golden/java-zstd.log")),
];

fn segment(name: &str) -> &'static [u8] {
    SEGMENTS.iter().find(|(n, _)| *n == name).unwrap().1
}

/// (first offset, records, codec) of each batch.
fn shape(name: &str) -> Vec<(i64, i32, Compression)> {
    let walk = Batches::new(segment(name));
    walk.map(|(h, _)| (h.base_offset.0, h.record_count, h.compression().unwrap())).collect()
}

#[test]
fn every_segment_is_whole_and_valid() {
    for (name, bytes) in SEGMENTS {
        let mut walk = Batches::new(bytes);
        let mut next = Offset::ZERO;
        for (header, batch) in walk.by_ref() {
            assert_eq!(validate_batch(batch), Ok(header), "{name}");
            assert_eq!(header.base_offset, next, "{name}");
            next = header.next_offset();
        }
        assert!(walk.rest().is_empty(), "{name}");
        assert!(next.0 > 0, "{name}");
    }
}

#[test]
fn codecs_and_counts_are_what_the_clients_sent() {
    use Compression::{Gzip, Lz4, None, Snappy, Zstd};
    assert_eq!(shape("kcat-none"), [(0, 1, None), (1, 7, None)]);
    // librdkafka leaves a batch alone that compression would not make smaller.
    assert_eq!(shape("kcat-gzip"), [(0, 1, None), (1, 1, None), (2, 1, None), (3, 5, Gzip)]);
    assert_eq!(shape("kcat-snappy"), [(0, 8, Snappy)]);
    assert_eq!(shape("kcat-lz4"), [(0, 8, Lz4)]);
    assert_eq!(shape("kcat-zstd"), [(0, 8, Zstd)]);
    assert_eq!(shape("java-zstd"), [(0, 1, Zstd), (1, 2, Zstd)]);
    let magic = |name: &str, at: usize| segment(name)[at + HEADER_BYTES..][..4].to_vec();
    assert_eq!(magic("kcat-gzip", 3 * 143)[..2], [0x1f, 0x8b]);
    assert_eq!(magic("kcat-lz4", 0), [0x04, 0x22, 0x4d, 0x18]);
    assert_eq!(magic("java-zstd", 0), [0x28, 0xb5, 0x2f, 0xfd]);
}

#[test]
fn the_java_producer_is_idempotent_without_being_asked() {
    let headers: Vec<_> = Batches::new(segment("java-zstd")).map(|(h, _)| h).collect();
    assert!(headers.iter().all(|h| h.has_producer_id() && h.producer_id == ProducerId(1)));
    assert!(headers.iter().all(|h| h.producer_epoch == ProducerEpoch(0)));
    let sequences: Vec<_> = headers.iter().map(|h| (h.base_sequence, h.last_sequence())).collect();
    assert_eq!(sequences, [(0, 0), (1, 2)]);
    let plain = BatchHeader::parse(segment("kcat-null-key")).unwrap();
    assert!(!plain.has_producer_id());
    assert_eq!(plain.last_sequence(), -1);
}

#[test]
fn records_keep_their_keys_values_and_headers() {
    let (header, batch) = Batches::new(segment("kcat-none")).nth(1).unwrap();
    let records: Vec<_> = Records::new(&header, batch).unwrap().map(Result::unwrap).collect();
    assert_eq!(records.len(), 7);
    for (i, record) in records.iter().enumerate() {
        assert_eq!(record.offset_delta as usize, i);
        assert_eq!(record.key.unwrap(), format!("key-{}", i + 2).as_bytes());
        assert!(record.value.unwrap().starts_with(format!("{{\"n\":{},", i + 2).as_bytes()));
        // One header: count 1, "source", "kcat".
        assert_eq!(record.headers, b"\x02\x0csource\x08kcat");
    }
    let (header, batch) = Batches::new(segment("kcat-null-key")).next().unwrap();
    let record = Records::new(&header, batch).unwrap().next().unwrap().unwrap();
    assert_eq!((record.key, record.value), (None, Some(&b"x"[..])));
    let (header, batch) = Batches::new(segment("kcat-zstd")).next().unwrap();
    assert!(Records::new(&header, batch).is_err(), "compressed payloads are nobody's to read on a core");
}

#[test]
fn any_cut_and_any_flipped_byte_is_noticed() {
    for (name, bytes) in SEGMENTS {
        let (header, batch) = Batches::new(bytes).next().unwrap();
        for end in 0..batch.len() {
            assert_eq!(validate_batch(&batch[..end]), Err(BatchError::Truncated), "{name} cut at {end}");
        }
        let mut damaged = batch.to_vec();
        for at in 0..batch.len() {
            damaged[at] ^= 0x40;
            // Base offset and leader epoch are the broker's to write, so the CRC leaves them out.
            let outside = at < 8 || (12..16).contains(&at);
            assert_eq!(validate_batch(&damaged).is_ok(), outside, "{name} byte {at}");
            damaged[at] ^= 0x40;
        }
        assert_eq!(validate_batch(&damaged), Ok(header));
    }
}

#[test]
fn placement_is_outside_the_crc() {
    for (name, bytes) in SEGMENTS {
        let mut batch = Batches::new(bytes).next().unwrap().1.to_vec();
        patch_placement(&mut batch, Offset(1 << 40), LeaderEpoch(17));
        let header = validate_batch(&batch).unwrap();
        assert_eq!((header.base_offset, header.leader_epoch), (Offset(1 << 40), LeaderEpoch(17)), "{name}");
        patch_placement(&mut batch, Offset(0), LeaderEpoch(0));
        assert_eq!(batch, Batches::new(bytes).next().unwrap().1, "{name}");
    }
}

#[test]
fn append_time_rewrites_what_it_says_and_the_crc() {
    for (name, bytes) in SEGMENTS {
        let (before, batch) = Batches::new(bytes).next().unwrap();
        let mut batch = batch.to_vec();
        patch_log_append_time(&mut batch, 1_800_000_000_000);
        let after = validate_batch(&batch).unwrap();
        assert!(after.is_log_append_time(), "{name}");
        let expected = BatchHeader {
            attributes: before.attributes | 8,
            max_timestamp_ms: 1_800_000_000_000,
            crc: after.crc,
            ..before
        };
        assert_eq!(after, expected, "{name}");
    }
}

#[test]
fn sequences_wrap_as_kafkas_do() {
    assert_eq!(increment_sequence(0, 0), 0);
    assert_eq!(increment_sequence(i32::MAX, 1), 0);
    assert_eq!(increment_sequence(i32::MAX - 1, 3), 1);
    assert_eq!(increment_sequence(5, i32::MAX), 4);
}

fn zigzag(value: i64) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    let mut out = Vec::new();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

type Fields = (Option<Vec<u8>>, Option<Vec<u8>>, i64);

fn encode_records(records: &[Fields]) -> Vec<u8> {
    let field = |field: &Option<Vec<u8>>| match field {
        None => zigzag(-1),
        Some(bytes) => [zigzag(bytes.len() as i64), bytes.clone()].concat(),
    };
    let mut out = Vec::new();
    for (delta, (key, value, timestamp)) in records.iter().enumerate() {
        let body =
            [vec![0], zigzag(*timestamp), zigzag(delta as i64), field(key), field(value), zigzag(0)].concat();
        out.extend(zigzag(body.len() as i64));
        out.extend(body);
    }
    out
}

/// A valid batch of the default header around `payload`.
fn encode_batch(payload: &[u8], count: i32, attributes: i16) -> Vec<u8> {
    let mut out = vec![0; 8];
    out.extend((49 + payload.len() as i32).to_be_bytes());
    out.extend((-1i32).to_be_bytes());
    out.extend([2, 0, 0, 0, 0]);
    out.extend(attributes.to_be_bytes());
    out.extend((count - 1).to_be_bytes());
    out.extend([1i64, 2, -1].map(i64::to_be_bytes).concat());
    out.extend((-1i16).to_be_bytes());
    out.extend((-1i32).to_be_bytes());
    out.extend(count.to_be_bytes());
    out.extend(payload);
    let crc = crc32c::crc32c(&out[21..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out
}

fn fields() -> impl Strategy<Value = Fields> {
    let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
    (bytes(), bytes(), any::<i64>())
}

proptest! {
    #[test]
    fn records_round_trip(records in prop::collection::vec(fields(), 1..20)) {
        let batch = encode_batch(&encode_records(&records), records.len() as i32, 0);
        let header = validate_produced(Some(&batch), 3).unwrap().header;
        let read: Vec<_> = Records::new(&header, &batch).unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(read.len(), records.len());
        for (i, (ours, (key, value, timestamp))) in read.iter().zip(&records).enumerate() {
            prop_assert_eq!(ours.offset_delta as usize, i);
            prop_assert_eq!((ours.key, ours.value), (key.as_deref(), value.as_deref()));
            prop_assert_eq!(ours.timestamp_delta_ms, *timestamp);
        }
    }

    #[test]
    fn varints_round_trip(value in any::<i64>()) {
        let bytes = zigzag(value);
        prop_assert_eq!(varint(&mut &bytes[..]), Some(value));
        prop_assert_eq!(varint(&mut &bytes[..bytes.len() - 1]), None);
    }

    #[test]
    fn payloads_of_anything_end(payload in prop::collection::vec(any::<u8>(), 0..200), count in any::<i32>()) {
        let read = Records::of_payload(&payload, count).count();
        prop_assert!(read <= payload.len() + 1);
    }

    #[test]
    fn headers_of_anything_have_an_answer(mut bytes in prop::collection::vec(any::<u8>(), 0..150), small in any::<bool>()) {
        if small && bytes.len() > 16 {
            // Lengths near the truth get further.
            bytes[8..11].fill(0);
            bytes[16] = 2;
        }
        if let Some(header) = BatchHeader::parse(&bytes) {
            prop_assert!(header.size_bytes >= HEADER_BYTES);
            let _ = (header.last_offset(), header.next_offset(), header.compression());
            prop_assert!(header.last_sequence() >= -1);
        }
        let _ = validate_produced(Some(&bytes), 9);
        let mut walk = Batches::new(&bytes);
        let walked: usize = walk.by_ref().map(|(_, batch)| batch.len()).sum();
        prop_assert_eq!(walked + walk.rest().len(), bytes.len());
    }

    #[test]
    fn batches_are_found_one_after_another(counts in prop::collection::vec(1i32..5, 0..6), cut in 0usize..61) {
        let mut bytes = Vec::new();
        for count in &counts {
            bytes.extend(encode_batch(b"payload", *count, 1));
        }
        let whole = bytes.len();
        bytes.extend(&encode_batch(b"torn", 1, 0)[..cut]);
        let mut walk = Batches::new(&bytes);
        let found: Vec<_> = walk.by_ref().map(|(header, _)| header.record_count).collect();
        prop_assert_eq!(found, counts);
        prop_assert_eq!(walk.rest(), &bytes[whole..]);
    }
}
