//! Fetch 4–18, both ways.

use crate::common::{answer, frame, header, ids, names, unknown_tags, uuid};
use kafka_wire::{FetchRequest as OracleRequest, FetchResponse as OracleResponse, fetch_request};
use kafka_wire_core::{StrBytes, TaggedFields};
use proptest::prelude::*;
use ringmill_types::{ErrorCode, LeaderEpoch, Offset, ProducerId, TopicId};
use ringmill_wire::fetch::{
    AbortedTransaction, EpochEnd, FetchFrame, FetchPartitionAnswer, FetchRequest, FetchResponse,
    IsolationLevel, Piece,
};
use ringmill_wire::{
    ApiKey, LeaderAndEpoch, NodeEndpoint, RequestHeader, ResponseHead, TopicRef, WireErrorKind,
};

#[derive(Clone, Debug)]
struct Partition {
    index: i32,
    numbers: (i32, i64, i32, i64, i32, i64),
    directory: TopicId,
    tags: TaggedFields,
}

#[derive(Clone, Debug)]
pub struct Topic {
    name: String,
    id: TopicId,
    partitions: Vec<Partition>,
    tags: TaggedFields,
}

#[derive(Clone, Debug)]
pub struct Request {
    top: (i32, i32, i32, bool, i32, i32),
    replica: (i32, i64),
    cluster_id: Option<String>,
    rack: String,
    topics: Vec<Topic>,
    forgotten: Vec<(String, TopicId, Vec<i32>)>,
    tags: TaggedFields,
}

pub fn requests() -> impl Strategy<Value = Request> {
    let partition = (any::<i32>(), any::<(i32, i64, i32, i64, i32, i64)>(), ids(), unknown_tags());
    let partition =
        partition.prop_map(|(index, numbers, directory, tags)| Partition { index, numbers, directory, tags });
    let topic = (names(), ids(), prop::collection::vec(partition, 0..5), unknown_tags());
    let topic = topic.prop_map(|(name, id, partitions, tags)| Topic { name, id, partitions, tags });
    (
        any::<(i32, i32, i32, bool, i32, i32)>(),
        any::<(i32, i64)>(),
        prop::option::of(names()),
        names(),
        prop::collection::vec(topic, 0..5),
        prop::collection::vec((names(), ids(), prop::collection::vec(any::<i32>(), 0..5)), 0..4),
        unknown_tags(),
    )
        .prop_map(|(top, replica, cluster_id, rack, topics, forgotten, tags)| Request {
            top,
            replica,
            cluster_id,
            rack,
            topics,
            forgotten,
            tags,
        })
}

fn oracle_partition(partition: &Partition, version: i16) -> fetch_request::FetchPartition {
    let mut p = fetch_request::FetchPartition::default();
    let (current, offset, last, start, max_bytes, high_watermark) = partition.numbers;
    (p.partition, p.fetch_offset, p.partition_max_bytes) = (partition.index, offset, max_bytes);
    if version >= 5 {
        p.log_start_offset = start;
    }
    if version >= 9 {
        p.current_leader_epoch = current;
    }
    if version >= 12 {
        p.last_fetched_epoch = last;
        p.unknown_tagged_fields = partition.tags.clone();
    }
    if version >= 17 {
        p.replica_directory_id = uuid(partition.directory);
    }
    if version >= 18 {
        p.high_watermark = high_watermark;
    }
    p
}

pub fn oracle_request(request: &Request, version: i16) -> OracleRequest {
    let mut r = OracleRequest::default();
    let (max_wait_ms, min_bytes, max_bytes, committed, session_id, session_epoch) = request.top;
    (r.max_wait_ms, r.min_bytes, r.max_bytes) = (max_wait_ms, min_bytes, max_bytes);
    r.isolation_level = i8::from(committed);
    if version <= 14 {
        r.replica_id = request.replica.0;
    } else {
        (r.replica_state.replica_id, r.replica_state.replica_epoch) = request.replica;
    }
    if version >= 7 {
        (r.session_id, r.session_epoch) = (session_id, session_epoch);
        for (name, id, partitions) in &request.forgotten {
            let mut f = fetch_request::ForgottenTopic::default();
            if version >= 13 {
                f.topic_id = uuid(*id);
            } else {
                f.topic = StrBytes::from(name.as_str());
            }
            f.partitions = partitions.clone();
            r.forgotten_topics_data.push(f);
        }
    }
    if version >= 11 {
        r.rack_id = StrBytes::from(request.rack.as_str());
    }
    if version >= 12 {
        r.cluster_id = request.cluster_id.as_deref().map(StrBytes::from);
        r.unknown_tagged_fields = request.tags.clone();
    }
    for topic in &request.topics {
        let mut t = fetch_request::FetchTopic::default();
        if version >= 13 {
            t.topic_id = uuid(topic.id);
        } else {
            t.topic = StrBytes::from(topic.name.as_str());
        }
        if version >= 12 {
            t.unknown_tagged_fields = topic.tags.clone();
        }
        t.partitions = topic.partitions.iter().map(|p| oracle_partition(p, version)).collect();
        r.topics.push(t);
    }
    r
}

fn topic_ref(name: &str, id: TopicId, version: i16) -> TopicRef<'_> {
    if version >= 13 { TopicRef::Id(id) } else { TopicRef::Name(name) }
}

/// `value` in versions that have the field, Kafka's default in others.
fn since<T>(has: bool, value: T, default: T) -> T {
    if has { value } else { default }
}

proptest! {
    #[test]
    fn request_is_read_field_by_field(request in requests(), version in 4i16..=18, correlation_id in any::<i32>()) {
        let frame = frame(&oracle_request(&request, version), version, correlation_id);
        let header = header(&frame);
        prop_assert_eq!((header.api_key, header.api_version), (ApiKey::FETCH, version));
        let ours = FetchRequest::parse(&header, &frame).unwrap();
        let (max_wait_ms, min_bytes, max_bytes, committed, session_id, session_epoch) = request.top;
        prop_assert_eq!((ours.max_wait_ms, ours.min_bytes, ours.max_bytes), (max_wait_ms, min_bytes, max_bytes));
        prop_assert_eq!(ours.isolation == IsolationLevel::ReadCommitted, committed);
        prop_assert_eq!(ours.session_id, since(version >= 7, session_id, 0));
        prop_assert_eq!(ours.session_epoch, since(version >= 7, session_epoch, -1));
        prop_assert_eq!(ours.replica_id, request.replica.0);
        prop_assert_eq!(ours.replica_epoch, since(version >= 15, request.replica.1, -1));
        prop_assert_eq!(ours.rack_id, since(version >= 11, request.rack.as_str(), ""));
        prop_assert_eq!(ours.cluster_id, since(version >= 12, request.cluster_id.as_deref(), None));
        prop_assert_eq!(ours.topic_count, request.topics.len());
        prop_assert_eq!(ours.topics().count(), request.topics.len());
        let mut partitions_seen = 0;
        for (ours, theirs) in ours.topics().zip(&request.topics) {
            prop_assert_eq!(ours.topic, topic_ref(&theirs.name, theirs.id, version));
            prop_assert_eq!(ours.partition_count, theirs.partitions.len());
            prop_assert_eq!(ours.partitions().count(), theirs.partitions.len());
            partitions_seen += theirs.partitions.len();
            for (ours, theirs) in ours.partitions().zip(&theirs.partitions) {
                let (current, offset, last, start, max_bytes, high_watermark) = theirs.numbers;
                prop_assert_eq!((ours.index, ours.fetch_offset.0, ours.max_bytes), (theirs.index, offset, max_bytes));
                prop_assert_eq!(ours.log_start_offset.0, since(version >= 5, start, -1));
                prop_assert_eq!(ours.current_leader_epoch.0, since(version >= 9, current, -1));
                prop_assert_eq!(ours.last_fetched_epoch.0, since(version >= 12, last, -1));
                prop_assert_eq!(ours.replica_directory_id, since(version >= 17, theirs.directory, TopicId::ZERO));
                prop_assert_eq!(ours.high_watermark.0, since(version >= 18, high_watermark, i64::MAX));
            }
        }
        prop_assert_eq!(ours.partition_count, partitions_seen);
        let forgotten: Vec<_> = ours.forgotten().map(|t| (t.topic, t.partitions().collect::<Vec<_>>())).collect();
        prop_assert_eq!(ours.forgotten_count, forgotten.len());
        let expected: Vec<_> = request
            .forgotten
            .iter()
            .filter(|_| version >= 7)
            .map(|(name, id, partitions)| (topic_ref(name, *id, version), partitions.clone()))
            .collect();
        prop_assert_eq!(forgotten, expected);
    }

    #[test]
    fn a_request_cut_anywhere_is_an_error(request in requests(), version in 4i16..=18) {
        let frame = frame(&oracle_request(&request, version), version, 1);
        for end in 0..frame.len() {
            let cut = &frame[..end];
            if let Ok(header) = RequestHeader::parse(cut) {
                prop_assert!(FetchRequest::parse(&header, cut).is_err(), "cut at {}", end);
            }
        }
    }
}

/// One partition of an answer: its index picks what is in it.
fn partition_answer(index: i32, records: &[u8]) -> FetchPartitionAnswer<'static> {
    const ABORTED: &[AbortedTransaction] =
        &[AbortedTransaction { producer_id: ProducerId(4), first_offset: Offset(900) }];
    match index & 3 {
        0 => FetchPartitionAnswer {
            current_leader: Some(LeaderAndEpoch { leader_id: 7, epoch: LeaderEpoch(11) }),
            ..FetchPartitionAnswer::error(index, ErrorCode::NotLeaderOrFollower)
        },
        1 => FetchPartitionAnswer::error(index, ErrorCode::KafkaStorageError),
        2 => FetchPartitionAnswer {
            diverging_epoch: Some(EpochEnd { epoch: LeaderEpoch(3), end_offset: Offset(77) }),
            current_leader: Some(LeaderAndEpoch { leader_id: 1, epoch: LeaderEpoch(4) }),
            aborted: Some(&[]),
            ..FetchPartitionAnswer::error(index, ErrorCode::None)
        },
        _ => FetchPartitionAnswer {
            high_watermark: Offset(1 << 50),
            last_stable_offset: Offset((1 << 50) - 1),
            log_start_offset: Offset(12),
            aborted: Some(ABORTED),
            preferred_read_replica: 2,
            records_bytes: records.len() as u32,
            ..FetchPartitionAnswer::error(index, ErrorCode::None)
        },
    }
}

type Answer = Vec<(String, TopicId, Vec<(i32, Vec<u8>)>)>;

fn answers() -> impl Strategy<Value = Answer> {
    let partition = (any::<i32>(), prop::collection::vec(any::<u8>(), 0..300));
    prop::collection::vec((names(), ids(), prop::collection::vec(partition, 0..5)), 0..5)
}

/// Writes an answer and puts it together as a sender would; returns the bytes behind `before`.
fn write_answer(topics: &Answer, version: i16, correlation_id: i32) -> Vec<u8> {
    let head = ResponseHead { api_key: ApiKey::FETCH, api_version: version, correlation_id };
    let before = b"earlier answer".to_vec();
    let mut response =
        FetchResponse::begin_in(before, head, 250, ErrorCode::FetchSessionIdNotFound, 31, topics.len());
    let mut memory: Vec<&[u8]> = Vec::new();
    for (name, id, partitions) in topics {
        response.topic(topic_ref(name, *id, version), partitions.len());
        for (index, records) in partitions {
            let answer = partition_answer(*index, records);
            response.partition(&answer);
            if answer.records_bytes > 0 {
                memory.push(records);
            }
        }
    }
    let frame =
        response.finish(&[NodeEndpoint { node_id: 7, host: "leader", port: 9092, rack: None }]).unwrap();
    let out = gather(&frame, &memory);
    assert_eq!(out.len() as u64, frame.total_bytes());
    out[14..].to_vec()
}

fn gather(frame: &FetchFrame, memory: &[&[u8]]) -> Vec<u8> {
    assert_eq!(frame.splices.len(), memory.len());
    let mut out = Vec::new();
    for piece in frame.pieces() {
        match piece {
            Piece::Head(range) => {
                assert!(!range.is_empty());
                out.extend(&frame.head[range]);
            }
            Piece::Records { splice, bytes } => {
                assert_eq!(memory[splice].len(), bytes as usize);
                out.extend(memory[splice]);
            }
        }
    }
    out
}

proptest! {
    #[test]
    fn answer_is_what_the_oracle_reads(topics in answers(), version in 4i16..=18, correlation_id in any::<i32>()) {
        let bytes = write_answer(&topics, version, correlation_id);
        let read: OracleResponse = answer::<OracleRequest, _>(&bytes, version, correlation_id);
        prop_assert_eq!(read.throttle_time_ms, 250);
        prop_assert_eq!((read.error_code, read.session_id), since(version >= 7, (70, 31), (0, 0)));
        prop_assert_eq!(read.responses.len(), topics.len());
        for (theirs, (name, id, partitions)) in read.responses.iter().zip(&topics) {
            if version >= 13 {
                prop_assert_eq!(theirs.topic_id, uuid(*id));
            } else {
                prop_assert_eq!(theirs.topic.as_str(), name);
            }
            prop_assert_eq!(theirs.partitions.len(), partitions.len());
            for (theirs, (index, records)) in theirs.partitions.iter().zip(partitions) {
                let ours = partition_answer(*index, records);
                prop_assert_eq!(theirs.partition_index, *index);
                let error = if ours.error == ErrorCode::KafkaStorageError && version <= 5 { 6 } else { ours.error.code() };
                prop_assert_eq!(theirs.error_code, error);
                prop_assert_eq!(theirs.high_watermark, ours.high_watermark.0);
                prop_assert_eq!(theirs.last_stable_offset, ours.last_stable_offset.0);
                prop_assert_eq!(theirs.log_start_offset, since(version >= 5, ours.log_start_offset.0, -1));
                prop_assert_eq!(theirs.preferred_read_replica, since(version >= 11, ours.preferred_read_replica, -1));
                let aborted = theirs.aborted_transactions.as_ref();
                let aborted = aborted.map(|a| a.iter().map(|t| (t.producer_id, t.first_offset)).collect::<Vec<_>>());
                let expected = ours.aborted.map(|a| a.iter().map(|t| (t.producer_id.0, t.first_offset.0)).collect());
                prop_assert_eq!(aborted, expected);
                let diverging = (theirs.diverging_epoch.epoch, theirs.diverging_epoch.end_offset);
                let expected = ours.diverging_epoch.filter(|_| version >= 12);
                prop_assert_eq!(diverging, expected.map_or((-1, -1), |e| (e.epoch.0, e.end_offset.0)));
                let leader = (theirs.current_leader.leader_id, theirs.current_leader.leader_epoch);
                let expected = ours.current_leader.filter(|_| version >= 12);
                prop_assert_eq!(leader, expected.map_or((-1, -1), |l| (l.leader_id, l.epoch.0)));
                let expected: &[u8] = if ours.records_bytes > 0 { records } else { &[] };
                prop_assert_eq!(theirs.records.as_deref(), Some(expected), "never null");
            }
        }
        prop_assert_eq!(read.node_endpoints.len(), usize::from(version >= 16));
    }
}

#[test]
fn an_unknown_isolation_level_is_an_error() {
    let mut request = OracleRequest::default();
    request.isolation_level = 2;
    let frame = frame(&request, 4, 1);
    let error = FetchRequest::parse(&header(&frame), &frame).unwrap_err();
    assert_eq!(error.kind, WireErrorKind::Value(2));
}

#[test]
fn an_answer_that_no_frame_can_hold_is_an_error() {
    let head = ResponseHead { api_key: ApiKey::FETCH, api_version: 12, correlation_id: 1 };
    let mut response = FetchResponse::begin(head, 0, ErrorCode::None, 0, 1);
    response.topic(TopicRef::Name("t"), 2);
    for index in 0..2 {
        let answer = FetchPartitionAnswer::error(index, ErrorCode::None);
        response.partition(&FetchPartitionAnswer { records_bytes: 1 << 30, ..answer });
    }
    let error = response.finish(&[]).unwrap_err();
    assert!(error.0 > 1 << 31, "{error}");
}

#[test]
fn records_go_where_their_length_was_written() {
    let head = ResponseHead { api_key: ApiKey::FETCH, api_version: 4, correlation_id: 1 };
    let mut response = FetchResponse::begin(head, 0, ErrorCode::None, 0, 1);
    response.topic(TopicRef::Name("t"), 2);
    for (index, records_bytes) in [(0, 0), (1, 5)] {
        let answer = FetchPartitionAnswer::error(index, ErrorCode::None);
        response.partition(&FetchPartitionAnswer { records_bytes, ..answer });
    }
    let frame = response.finish(&[]).unwrap();
    // prefix 4, correlation 4, throttle 4, topics 4, name 3, partitions 4, then twice 30 (index, error, two offsets,
    // null aborted, length); the last partition ends the frame.
    assert_eq!(
        frame.pieces().collect::<Vec<_>>(),
        [Piece::Head(0..83), Piece::Records { splice: 0, bytes: 5 }]
    );
    assert_eq!(frame.head[..4], 84u32.to_be_bytes());
}
