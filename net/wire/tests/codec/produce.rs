//! Produce 3–13, both ways.

use crate::common::{answer, frame, header, ids, names, unknown_tags, uuid};
use bytes::Bytes;
use kafka_wire::{ProduceRequest as OracleRequest, ProduceResponse as OracleResponse, produce_request};
use kafka_wire_core::{StrBytes, TaggedFields};
use proptest::prelude::*;
use ringmill_types::{ErrorCode, LeaderEpoch, Offset, TopicId};
use ringmill_wire::produce::{ProducePartitionAnswer, ProduceRequest, ProduceResponse, RecordError};
use ringmill_wire::{
    ApiKey, LeaderAndEpoch, NodeEndpoint, RequestHeader, ResponseHead, TopicRef, WireErrorKind,
};

#[derive(Clone, Debug)]
struct Partition {
    index: i32,
    records: Option<Vec<u8>>,
    tags: TaggedFields,
}

#[derive(Clone, Debug)]
pub struct Topic {
    name: String,
    id: TopicId,
    partitions: Vec<Partition>,
    tags: TaggedFields,
}

pub fn topics() -> impl Strategy<Value = Vec<Topic>> {
    let records = prop::option::weighted(0.9, prop::collection::vec(any::<u8>(), 0..300));
    let partition = (any::<i32>(), records, unknown_tags());
    let partition = partition.prop_map(|(index, records, tags)| Partition { index, records, tags });
    let topic = (names(), ids(), prop::collection::vec(partition, 0..5), unknown_tags());
    let topic = topic.prop_map(|(name, id, partitions, tags)| Topic { name, id, partitions, tags });
    prop::collection::vec(topic, 0..5)
}

pub fn oracle_request(topics: &[Topic], version: i16, transactional_id: Option<&str>) -> OracleRequest {
    let mut request = OracleRequest::default();
    request.transactional_id = transactional_id.map(StrBytes::from);
    request.acks = -1;
    request.timeout_ms = 30_000;
    for topic in topics {
        let mut t = produce_request::TopicProduceData::default();
        if version >= 13 {
            t.topic_id = uuid(topic.id);
        } else {
            t.name = StrBytes::from(topic.name.as_str());
        }
        for partition in &topic.partitions {
            let mut p = produce_request::PartitionProduceData::default();
            p.index = partition.index;
            p.records = partition.records.clone().map(Bytes::from);
            if version >= 9 {
                p.unknown_tagged_fields = partition.tags.clone();
            }
            t.partition_data.push(p);
        }
        if version >= 9 {
            t.unknown_tagged_fields = topic.tags.clone();
        }
        request.topic_data.push(t);
    }
    request
}

fn topic_ref(topic: &Topic, version: i16) -> TopicRef<'_> {
    if version >= 13 { TopicRef::Id(topic.id) } else { TopicRef::Name(&topic.name) }
}

proptest! {
    #[test]
    fn request_is_read_field_by_field(
        topics in topics(),
        version in 3i16..=13,
        transactional_id in prop::option::of(names()),
        correlation_id in any::<i32>(),
    ) {
        let frame = frame(&oracle_request(&topics, version, transactional_id.as_deref()), version, correlation_id);
        let header = header(&frame);
        prop_assert_eq!((header.api_key, header.api_version), (ApiKey::PRODUCE, version));
        prop_assert_eq!(header.correlation_id, correlation_id);
        let request = ProduceRequest::parse(&header, &frame).unwrap();
        prop_assert_eq!(request.transactional_id, transactional_id.as_deref());
        prop_assert_eq!((request.acks, request.timeout_ms), (-1, 30_000));
        prop_assert_eq!(request.topic_count, topics.len());
        prop_assert_eq!(request.topics().count(), topics.len());
        let (mut partitions_seen, mut bytes_seen) = (0, 0);
        for (ours, theirs) in request.topics().zip(&topics) {
            prop_assert_eq!(ours.topic, topic_ref(theirs, version));
            prop_assert_eq!(ours.partition_count, theirs.partitions.len());
            prop_assert_eq!(ours.partitions().count(), theirs.partitions.len());
            for (ours, theirs) in ours.partitions().zip(&theirs.partitions) {
                prop_assert_eq!(ours.index, theirs.index);
                prop_assert_eq!(ours.records, theirs.records.as_deref());
                if let Some(records) = ours.records {
                    prop_assert_eq!(&frame[ours.records_at..ours.records_at + records.len()], records);
                    bytes_seen += records.len();
                }
                partitions_seen += 1;
            }
        }
        prop_assert_eq!((request.partition_count, request.records_bytes), (partitions_seen, bytes_seen));
    }

    #[test]
    fn a_request_cut_anywhere_is_an_error(topics in topics(), version in 3i16..=13) {
        let frame = frame(&oracle_request(&topics, version, Some("t")), version, 1);
        for end in 0..frame.len() {
            let cut = &frame[..end];
            if let Ok(header) = RequestHeader::parse(cut) {
                prop_assert!(ProduceRequest::parse(&header, cut).is_err(), "cut at {}", end);
            }
        }
    }
}

/// Answers for `topics`: errors, record errors, messages and leaders vary with the partition.
fn write_answer(topics: &[Topic], version: i16, correlation_id: i32, out: &mut Vec<u8>) {
    let head = ResponseHead { api_key: ApiKey::PRODUCE, api_version: version, correlation_id };
    let mut response = ProduceResponse::begin(out, head, topics.len());
    for topic in topics {
        response.topic(topic_ref(topic, version), topic.partitions.len());
        for partition in &topic.partitions {
            let index = partition.index;
            response.partition(&match index & 3 {
                0 => ProducePartitionAnswer::error(index, ErrorCode::CorruptMessage),
                1 => ProducePartitionAnswer {
                    record_errors: &[
                        RecordError { batch_index: 3, message: Some("null key") },
                        RecordError { batch_index: 4, message: None },
                    ],
                    error_message: Some("one or more records have been rejected"),
                    ..ProducePartitionAnswer::error(index, ErrorCode::InvalidRecord)
                },
                2 => ProducePartitionAnswer {
                    current_leader: Some(LeaderAndEpoch { leader_id: 7, epoch: LeaderEpoch(11) }),
                    ..ProducePartitionAnswer::error(index, ErrorCode::NotLeaderOrFollower)
                },
                _ => ProducePartitionAnswer {
                    base_offset: Offset(1 << 40),
                    log_append_time_ms: 1_700_000_000_123,
                    log_start_offset: Offset(17),
                    ..ProducePartitionAnswer::error(index, ErrorCode::None)
                },
            });
        }
    }
    let endpoints = [
        NodeEndpoint { node_id: 7, host: "leader.example", port: 9092, rack: Some("r1") },
        NodeEndpoint { node_id: 8, host: "::1", port: 65_535, rack: None },
    ];
    response.finish(250, &endpoints);
}

proptest! {
    #[test]
    fn answer_is_what_the_oracle_reads(topics in topics(), version in 3i16..=13, correlation_id in any::<i32>()) {
        let mut out = b"earlier answer".to_vec();
        write_answer(&topics, version, correlation_id, &mut out);
        let read: OracleResponse = answer::<OracleRequest, _>(&out[14..], version, correlation_id);
        prop_assert_eq!(read.throttle_time_ms, 250);
        prop_assert_eq!(read.responses.len(), topics.len());
        for (theirs, ours) in read.responses.iter().zip(&topics) {
            if version >= 13 {
                prop_assert_eq!(theirs.topic_id, uuid(ours.id));
            } else {
                prop_assert_eq!(theirs.name.as_str(), &ours.name);
            }
            prop_assert_eq!(theirs.partition_responses.len(), ours.partitions.len());
            for (theirs, ours) in theirs.partition_responses.iter().zip(&ours.partitions) {
                prop_assert_eq!(theirs.index, ours.index);
                let good = ours.index & 3 == 3;
                prop_assert_eq!(theirs.error_code, [2, 87, 6, 0][(ours.index & 3) as usize]);
                prop_assert_eq!(theirs.base_offset, if good { 1 << 40 } else { -1 });
                prop_assert_eq!(theirs.log_append_time_ms, if good { 1_700_000_000_123 } else { -1 });
                prop_assert_eq!(theirs.log_start_offset, if good && version >= 5 { 17 } else { -1 });
                let named = version >= 8 && ours.index & 3 == 1;
                let errors: Vec<_> = theirs
                    .record_errors
                    .iter()
                    .map(|e| (e.batch_index, e.batch_index_error_message.as_deref().map(str::to_owned)))
                    .collect();
                let expected = if named { vec![(3, Some("null key".to_owned())), (4, None)] } else { vec![] };
                prop_assert_eq!(errors, expected);
                prop_assert_eq!(theirs.error_message.is_some(), named);
                let leader = (theirs.current_leader.leader_id, theirs.current_leader.leader_epoch);
                let moved = version >= 10 && ours.index & 3 == 2;
                prop_assert_eq!(leader, if moved { (7, 11) } else { (-1, -1) });
            }
        }
        if version >= 10 {
            let nodes: Vec<_> =
                read.node_endpoints.iter().map(|n| (n.node_id, n.host.as_str(), n.port, n.rack.as_deref())).collect();
            let expected = vec![(7, "leader.example", 9092, Some("r1")), (8, "::1", 65_535, None)];
            prop_assert_eq!(nodes, expected);
        } else {
            prop_assert!(read.node_endpoints.is_empty());
        }
    }
}

#[test]
fn versions_outside_the_codec_are_errors() {
    for version in [0i16, 2, 14, -1, i16::MIN, i16::MAX] {
        let mut frame = 0i16.to_be_bytes().to_vec();
        frame.extend(version.to_be_bytes());
        frame.extend([0; 64]);
        let header = RequestHeader::parse(&frame).unwrap();
        let error = ProduceRequest::parse(&header, &frame).unwrap_err();
        assert_eq!(error.kind, WireErrorKind::Version(ApiKey::PRODUCE, version));
        assert_eq!(error.to_string(), format!("version {version} of Produce is not served"));
    }
}

#[test]
fn an_empty_request_is_ten_bytes_of_body() {
    // Null transactional id, acks 1, timeout 1500, no topics.
    let mut frame = vec![0, 0, 0, 3, 0, 0, 0, 1, 0xff, 0xff];
    frame.extend([0xff, 0xff, 0, 1, 0, 0, 0x05, 0xdc, 0, 0, 0, 0]);
    let request = ProduceRequest::parse(&RequestHeader::parse(&frame).unwrap(), &frame).unwrap();
    assert_eq!((request.acks, request.timeout_ms, request.topic_count), (1, 1500, 0));
    assert_eq!(request.topics().next().map(|t| t.topic), None);
}

#[test]
#[should_panic(expected = "a partition of the topic before has no answer")]
fn an_answer_without_a_partition_is_our_own_bug() {
    let mut out = Vec::new();
    let head = ResponseHead { api_key: ApiKey::PRODUCE, api_version: 9, correlation_id: 1 };
    let mut response = ProduceResponse::begin(&mut out, head, 1);
    response.topic(TopicRef::Name("t"), 1);
    response.finish(0, &[]);
}
