//! Bytes nobody should send: every outcome is a value or an error, never a panic, and an error names its place.

use crate::{common, fetch, metadata, produce};
use proptest::prelude::*;
use ringmill_wire::api::Encoding;
use ringmill_wire::api_versions::{ApiVersionsAnswers, Features};
use ringmill_wire::fetch::FetchRequest;
use ringmill_wire::metadata::MetadataRequest;
use ringmill_wire::produce::ProduceRequest;
use ringmill_wire::reader::Reader;
use ringmill_wire::{ApiKey, RequestHeader, WireErrorKind};

/// Reads `frame` as whatever its header says, to the last partition. Returns how many partitions it handed out.
fn read_all(frame: &[u8]) -> usize {
    let Ok(header) = RequestHeader::parse(frame) else { return 0 };
    assert!(header.body_at <= frame.len());
    match header.api_key {
        ApiKey::PRODUCE => {
            let Ok(request) = ProduceRequest::parse(&header, frame) else { return 0 };
            assert_eq!(request.topics().count(), request.topic_count);
            let seen: usize = request.topics().map(|t| t.partitions().count()).sum();
            assert_eq!(seen, request.partition_count);
            let bytes =
                request.topics().flat_map(|t| t.partitions()).filter_map(|p| p.records).map(<[u8]>::len);
            assert_eq!(bytes.sum::<usize>(), request.records_bytes);
            assert!(request.records_bytes <= frame.len());
            seen
        }
        ApiKey::FETCH => {
            let Ok(request) = FetchRequest::parse(&header, frame) else { return 0 };
            assert_eq!(request.topics().count(), request.topic_count);
            let seen: usize = request.topics().map(|t| t.partitions().count()).sum();
            assert_eq!(seen, request.partition_count);
            assert_eq!(request.forgotten().count(), request.forgotten_count);
            for topic in request.forgotten() {
                assert_eq!(topic.partitions().count(), topic.partition_count);
            }
            seen
        }
        ApiKey::METADATA => {
            let Ok(request) = MetadataRequest::parse(&header, frame) else { return 0 };
            assert_eq!(request.topics().count(), request.topic_count);
            assert!(!request.all || request.topic_count == 0);
            request.topic_count
        }
        ApiKey::API_VERSIONS => {
            let mut out = Vec::new();
            let answered =
                ApiVersionsAnswers::new(&Features::default()).answer(&header, frame, &mut out).is_ok();
            assert_eq!(answered, !out.is_empty());
            0
        }
        _ => 0,
    }
}

fn start_of(key: i16, version: i16) -> Vec<u8> {
    let mut frame = key.to_be_bytes().to_vec();
    frame.extend(version.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0xff, 0xff]);
    if ApiKey(key).encoding(version) == Some(Encoding::Flexible) {
        frame.push(0);
    }
    frame
}

proptest! {
    #[test]
    fn random_bodies(key in prop_oneof![Just(0i16), Just(1), Just(3), Just(18)], version in -1i16..=20,
                     body in prop::collection::vec(prop_oneof![3 => 0u8..4, 1 => any::<u8>()], 0..200)) {
        let mut frame = start_of(key, version);
        frame.extend(body);
        read_all(&frame);
    }

    #[test]
    fn random_frames(frame in prop::collection::vec(any::<u8>(), 0..64)) {
        read_all(&frame);
    }

    #[test]
    fn damaged_produce(topics in produce::topics(), version in 3i16..=13,
                       damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut frame = common::frame(&produce::oracle_request(&topics, version, None), version, 1);
        for (at, value) in damage {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        read_all(&frame);
    }

    #[test]
    fn damaged_fetch(request in fetch::requests(), version in 4i16..=18,
                     damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut frame = common::frame(&fetch::oracle_request(&request, version), version, 1);
        for (at, value) in damage {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        read_all(&frame);
    }

    #[test]
    fn damaged_metadata(request in metadata::requests(), version in 0i16..=13,
                        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut frame = common::frame(&metadata::oracle_request(&request, version), version, 1);
        for (at, value) in damage {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        read_all(&frame);
    }

    #[test]
    fn varints_round_trip_and_end(value in any::<u32>(), rest in prop::collection::vec(any::<u8>(), 0..3)) {
        let mut bytes = Vec::new();
        ringmill_wire::writer::Writer::new(&mut bytes, Encoding::Flexible).uvarint(value);
        let length = bytes.len();
        bytes.extend(rest);
        let mut reader = Reader::new(&bytes, 0, Encoding::Flexible);
        prop_assert_eq!(reader.uvarint("value"), Ok(value));
        prop_assert_eq!(reader.position(), length);
    }
}

#[test]
fn varints_that_do_not_fit_are_errors() {
    for bytes in
        [&[0xff; 5][..], &[0xff; 10], &[0x80, 0x80, 0x80, 0x80, 0x10], &[0x80, 0x80, 0x80, 0x80, 0x80, 1]]
    {
        let error = Reader::new(bytes, 0, Encoding::Flexible).uvarint("value").unwrap_err();
        assert_eq!(error.kind, WireErrorKind::Varint, "{bytes:x?}");
    }
    let max = Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f], 0, Encoding::Flexible).uvarint("value");
    assert_eq!(max, Ok(u32::MAX));
    let error = Reader::new(&[0x80], 0, Encoding::Flexible).uvarint("value").unwrap_err();
    assert_eq!(error.kind, WireErrorKind::Truncated);
}

/// Counts and lengths of 2^31-1 at every place that has one: refused at once, with the place.
#[test]
fn counts_larger_than_the_frame_are_refused() {
    const HUGE: [u8; 4] = [0x7f, 0xff, 0xff, 0xff];
    const HUGE_COMPACT: [u8; 5] = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let produce = |version, body: &[&[u8]]| {
        let frame = [start_of(0, version), body.concat()].concat();
        ProduceRequest::parse(&RequestHeader::parse(&frame).unwrap(), &frame).unwrap_err()
    };
    let classic = [0xff, 0xff, 0, 1, 0, 0, 0, 1];
    let error = produce(3, &[&classic, &HUGE]);
    assert_eq!((error.field, error.kind), ("topics", WireErrorKind::Count { count: 0x7fff_ffff, room: 0 }));
    let error = produce(3, &[&classic, &[0, 0, 0, 1, 0, 1, b't'], &HUGE]);
    assert_eq!(
        (error.field, error.kind),
        ("partitions", WireErrorKind::Count { count: 0x7fff_ffff, room: 0 })
    );
    let error = produce(3, &[&classic, &[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0], &HUGE]);
    assert_eq!((error.field, error.kind), ("records", WireErrorKind::Truncated));
    assert_eq!(error.to_string(), "the frame ends inside records, which begins at byte 37");
    let flexible = [0, 0, 1, 0, 0, 0, 1];
    let error = produce(9, &[&flexible, &HUGE_COMPACT]);
    assert_eq!((error.field, error.kind), ("topics", WireErrorKind::Count { count: 0xffff_fffe, room: 0 }));
    let error = produce(9, &[&flexible, &[1], &HUGE_COMPACT]);
    assert_eq!((error.field, error.kind), ("request tags", WireErrorKind::Truncated));
    let error = produce(9, &[&flexible, &[1, 1, 0], &HUGE_COMPACT]);
    assert_eq!((error.field, error.kind), ("request tags", WireErrorKind::Truncated));
}

#[test]
fn negative_and_null_lengths_are_refused() {
    let produce = |body: &[u8]| {
        let frame = [start_of(0, 3), body.to_vec()].concat();
        ProduceRequest::parse(&RequestHeader::parse(&frame).unwrap(), &frame).unwrap_err()
    };
    let kind = |error: ringmill_wire::WireError| (error.field, error.kind);
    let error = produce(&[0xff, 0xff, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(kind(error), ("topics", WireErrorKind::Null));
    let error = produce(&[0xff, 0xff, 0, 1, 0, 0, 0, 1, 0x80, 0, 0, 0]);
    assert_eq!(kind(error), ("topics", WireErrorKind::NegativeLength(i64::from(i32::MIN))));
    let error = produce(&[0xff, 0xfe]);
    assert_eq!(kind(error), ("transactional id", WireErrorKind::NegativeLength(-2)));
    let error = produce(&[0xff, 0xff, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0]);
    assert_eq!(kind(error), ("topic name", WireErrorKind::Null));
    let error = produce(&[0xff, 0xff, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0xff, 0, 0, 0, 0]);
    assert_eq!(kind(error), ("topic name", WireErrorKind::Utf8));
}

#[test]
fn a_known_tag_must_be_exactly_its_content() {
    // Fetch 18 without topics, then the replica state tag (1) with one byte too many.
    let mut frame = start_of(1, 18);
    frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 1, 1]);
    frame.extend([1, 1, 14, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0]);
    let parse = |frame: &[u8]| {
        FetchRequest::parse(&RequestHeader::parse(frame).unwrap(), frame).map(|r| r.replica_id)
    };
    assert_eq!(parse(&frame).unwrap_err().kind, WireErrorKind::TagRest(1));
    let at = frame.len() - 15;
    frame[at] = 13;
    assert_eq!(parse(&frame), Ok(5));
    frame[at] = 12;
    assert_eq!(parse(&frame).unwrap_err().kind, WireErrorKind::Truncated);
}

/// A frame can hold sixteen million empty partitions; what they would make a reader remember is bounded.
#[test]
fn more_partitions_than_a_node_has_are_refused() {
    const MAX: usize = ringmill_types::limits::PARTITIONS_MAX;
    let parse = |partitions: usize| {
        let mut frame = start_of(0, 3);
        frame.extend([0xff, 0xff, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, b't']);
        frame.extend((partitions as u32).to_be_bytes());
        frame.resize(frame.len() + partitions * 8, 0);
        let header = RequestHeader::parse(&frame).unwrap();
        ProduceRequest::parse(&header, &frame).map(|request| request.partition_count)
    };
    assert_eq!(parse(MAX), Ok(MAX));
    let error = parse(MAX + 1).unwrap_err();
    assert_eq!(
        (error.field, error.kind),
        ("partitions", WireErrorKind::TooMany { count: MAX + 1, max: MAX })
    );
    assert_eq!(error.to_string(), "partitions up to byte 29 are 200001; a request may name 200000");

    let mut frame = start_of(1, 12);
    frame.extend([0; 25]);
    // 2^18 - 1 topics of an empty name and no partitions, four bytes each with their counts and tags.
    frame.extend([0x80, 0x80, 0x10]);
    for _ in 0..(1 << 18) {
        frame.extend([1, 1, 0, 0]);
    }
    let header = RequestHeader::parse(&frame).unwrap();
    let error = FetchRequest::parse(&header, &frame).unwrap_err();
    assert_eq!(
        (error.field, error.kind),
        ("topics", WireErrorKind::TooMany { count: (1 << 18) - 1, max: MAX })
    );
}
