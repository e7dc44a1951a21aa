//! Metadata 0–13.

use crate::common::{self, header, ids, names, unknown_tags, uuid};
use kafka_wire::metadata_request::MetadataRequestTopic;
use kafka_wire::metadata_response::MetadataResponseTopic;
use kafka_wire::{MetadataRequest as OracleRequest, MetadataResponse};
use kafka_wire_core::TaggedFields;
use proptest::prelude::*;
use ringmill_types::{ErrorCode, LeaderEpoch, TopicId};
use ringmill_wire::frame::patch_length;
use ringmill_wire::metadata::{
    self, CLUSTER_OPERATIONS, ClusterAnswer, MetadataBody, MetadataRequest, PartitionAnswer,
    TOPIC_OPERATIONS, TopicAnswer,
};
use ringmill_wire::{NodeEndpoint, ResponseHead, WireErrorKind, patch_throttle};

#[derive(Clone, Debug)]
pub struct Request {
    topics: Option<Vec<(TopicId, Option<String>)>>,
    may_create: bool,
    operations: (bool, bool),
    tags: TaggedFields,
}

pub fn requests() -> impl Strategy<Value = Request> {
    let topic = (ids(), prop::option::weighted(0.8, names()));
    let topics = prop::option::weighted(0.8, prop::collection::vec(topic, 0..6));
    (topics, any::<bool>(), any::<(bool, bool)>(), unknown_tags())
        .prop_map(|(topics, may_create, operations, tags)| Request { topics, may_create, operations, tags })
}

impl Request {
    /// As far as a version can say it.
    fn within(mut self, version: i16) -> Request {
        for (id, name) in self.topics.iter_mut().flatten() {
            if version < 10 {
                (*id, *name) = (TopicId::ZERO, Some(name.take().unwrap_or_default()));
            }
        }
        if version == 0 {
            self.topics.get_or_insert_default();
        }
        self.may_create |= version < 4;
        self.operations.0 &= (8..=10).contains(&version);
        self.operations.1 &= version >= 8;
        if version < 9 {
            self.tags = TaggedFields::default();
        }
        self
    }
}

/// Says what the version can; see [`Request::within`].
pub fn oracle_request(request: &Request, version: i16) -> OracleRequest {
    let request = request.clone().within(version);
    let topic = |(id, name): (TopicId, Option<String>)| {
        let mut topic = MetadataRequestTopic::default();
        topic.name = name.map(Into::into);
        topic.topic_id = uuid(id);
        topic.unknown_tagged_fields = request.tags.clone();
        topic
    };
    let mut out = OracleRequest::default();
    out.topics = request.topics.map(|topics| topics.into_iter().map(topic).collect());
    out.allow_auto_topic_creation = request.may_create;
    out.include_cluster_authorized_operations = request.operations.0;
    out.include_topic_authorized_operations = request.operations.1;
    out.unknown_tagged_fields = request.tags;
    out
}

#[derive(Clone, Debug)]
struct Topic {
    error: ErrorCode,
    name: Option<String>,
    id: TopicId,
    is_internal: bool,
    operations: Option<i32>,
    partitions: Vec<Partition>,
}

#[derive(Clone, Debug)]
struct Partition {
    numbers: (i32, i32, i32),
    nodes: [Vec<i32>; 3],
}

fn topics() -> impl Strategy<Value = Vec<Topic>> {
    let nodes = || prop::collection::vec(any::<i32>(), 0..4);
    let partition = (any::<(i32, i32, i32)>(), [nodes(), nodes(), nodes()])
        .prop_map(|(numbers, nodes)| Partition { numbers, nodes });
    let error = prop_oneof![
        Just(ErrorCode::None),
        Just(ErrorCode::UnknownTopicOrPartition),
        Just(ErrorCode::InvalidTopicException),
        Just(ErrorCode::UnknownTopicId)
    ];
    let name = prop::option::weighted(0.8, names());
    let operations = prop::option::of(Just(TOPIC_OPERATIONS));
    let partitions = prop::collection::vec(partition, 0..4);
    let topic = (error, name, ids(), any::<bool>(), operations, partitions).prop_map(
        |(error, name, id, is_internal, operations, partitions)| Topic {
            error,
            name,
            id,
            is_internal,
            operations,
            partitions,
        },
    );
    prop::collection::vec(topic, 0..5)
}

fn encode(version: i16, host: &str, rack: Option<&str>, topics: &[Topic]) -> Vec<u8> {
    let head =
        ResponseHead { api_key: ringmill_wire::ApiKey::METADATA, api_version: version, correlation_id: 21 };
    let mut out = b"before".to_vec();
    let start = metadata::begin(head, &mut out);
    patch_throttle(head, &mut out[start..], 77);
    let brokers = [NodeEndpoint { node_id: 3, host, port: 9092, rack }];
    let cluster = ClusterAnswer { brokers: &brokers, id: Some("cluster"), controller_id: 3 };
    let mut body = Vec::new();
    let mut writer = MetadataBody::begin(&mut body, version, &cluster, topics.len());
    for topic in topics {
        let said = TopicAnswer {
            error: topic.error,
            name: topic.name.as_deref(),
            id: topic.id,
            is_internal: topic.is_internal,
            operations: topic.operations,
        };
        let partitions = topic.partitions.iter().map(|partition| PartitionAnswer {
            error: ErrorCode::None,
            index: partition.numbers.0,
            leader_id: partition.numbers.1,
            leader_epoch: LeaderEpoch(partition.numbers.2),
            replicas: &partition.nodes[0],
            isr: &partition.nodes[1],
            offline: &partition.nodes[2],
        });
        writer.topic(&said, partitions);
    }
    writer.finish(Some(CLUSTER_OPERATIONS));
    // The body goes out from elsewhere.
    patch_length(&mut out, start, body.len() as u64).unwrap();
    out.extend(body);
    out.split_off(start)
}

fn check_topic(version: i16, ours: &Topic, theirs: &MetadataResponseTopic) {
    let name = if version >= 12 { ours.name.clone() } else { Some(ours.name.clone().unwrap_or_default()) };
    assert_eq!(theirs.error_code, ours.error.code());
    assert_eq!(theirs.name.as_ref().map(|name| name.to_string()), name);
    assert_eq!(theirs.topic_id, if version >= 10 { uuid(ours.id) } else { uuid(TopicId::ZERO) });
    assert_eq!(theirs.is_internal, version >= 1 && ours.is_internal);
    let operations = ours.operations.filter(|_| version >= 8).unwrap_or(i32::MIN);
    assert_eq!(theirs.topic_authorized_operations, operations);
    assert_eq!(theirs.partitions.len(), ours.partitions.len());
    for (theirs, ours) in theirs.partitions.iter().zip(&ours.partitions) {
        let (index, leader, epoch) = ours.numbers;
        assert_eq!((theirs.error_code, theirs.partition_index, theirs.leader_id), (0, index, leader));
        assert_eq!(theirs.leader_epoch, if version >= 7 { epoch } else { -1 });
        assert_eq!((&theirs.replica_nodes, &theirs.isr_nodes), (&ours.nodes[0], &ours.nodes[1]));
        let offline = if version >= 5 { ours.nodes[2].clone() } else { Vec::new() };
        assert_eq!(theirs.offline_replicas, offline);
    }
}

proptest! {
    #[test]
    fn requests_are_read(request in requests(), version in 0i16..=13) {
        let frame = common::frame(&oracle_request(&request, version), version, 5);
        let ours = MetadataRequest::parse(&header(&frame), &frame).unwrap();
        let said = request.within(version);
        let topics = said.topics.clone().unwrap_or_default();
        prop_assert_eq!(ours.all, if version == 0 { topics.is_empty() } else { said.topics.is_none() });
        prop_assert_eq!(ours.topic_count, topics.len());
        let read: Vec<_> = ours.topics().map(|t| (t.id, t.name.map(str::to_owned))).collect();
        prop_assert_eq!(read, topics);
        prop_assert_eq!(ours.may_create, said.may_create);
        prop_assert_eq!((ours.cluster_operations, ours.topic_operations), said.operations);
    }

    #[test]
    fn answers_are_read(topics in topics(), version in 0i16..=13, host in "[a-z.]{1,30}",
                        rack in prop::option::of("[a-z]{0,5}")) {
        let answer: MetadataResponse =
            common::answer::<OracleRequest, _>(&encode(version, &host, rack.as_deref(), &topics), version, 21);
        prop_assert_eq!(answer.throttle_time_ms, if version >= 3 { 77 } else { 0 });
        let broker = &answer.brokers[0];
        prop_assert_eq!((broker.node_id, broker.host.as_str(), broker.port), (3, host.as_str(), 9092));
        let rack = rack.filter(|_| version >= 1);
        prop_assert_eq!(broker.rack.as_ref().map(|rack| rack.to_string()), rack);
        let id = (version >= 2).then_some("cluster");
        prop_assert_eq!(answer.cluster_id.as_ref().map(|id| id.as_str()), id);
        prop_assert_eq!(answer.controller_id, if version >= 1 { 3 } else { -1 });
        let operations = if (8..=10).contains(&version) { CLUSTER_OPERATIONS } else { i32::MIN };
        prop_assert_eq!((answer.cluster_authorized_operations, answer.error_code), (operations, 0));
        prop_assert_eq!(answer.topics.len(), topics.len());
        for (theirs, ours) in answer.topics.iter().zip(&topics) {
            check_topic(version, ours, theirs);
        }
    }
}

#[test]
fn too_many_topics_and_too_long_names_are_refused() {
    let parse = |version: i16, topics: Vec<(TopicId, Option<String>)>| {
        let request = Request {
            topics: Some(topics),
            may_create: true,
            operations: (false, false),
            tags: TaggedFields::default(),
        };
        let frame = common::frame(&oracle_request(&request, version), version, 1);
        let request = MetadataRequest::parse(&header(&frame), &frame);
        request.map(|request| request.topics().count()).map_err(|error| (error.field, error.kind))
    };
    const MAX: usize = ringmill_types::limits::REQUEST_ITEMS_MAX;
    let empty = |count| vec![(TopicId::ZERO, Some(String::new())); count];
    for version in [0, 8, 9, 13] {
        assert_eq!(parse(version, empty(MAX)), Ok(MAX));
        let many = WireErrorKind::TooMany { count: MAX + 1, max: MAX };
        assert_eq!(parse(version, empty(MAX + 1)), Err(("topics", many)));
    }
    let long = |bytes: usize| vec![(TopicId::ZERO, Some("x".repeat(bytes)))];
    assert_eq!(parse(12, long(i16::MAX as usize)), Ok(1));
    // An encoder that knows the limit would not write it.
    let mut frame = vec![0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0, 2, 0x81, 0x80, 2];
    frame.extend([b'x'; 1 << 15]);
    frame.extend([0, 0, 0, 0, 0]);
    let header = ringmill_wire::RequestHeader::parse(&frame).unwrap();
    let error = MetadataRequest::parse(&header, &frame).unwrap_err();
    assert_eq!((error.field, error.kind), ("topic name", WireErrorKind::LongString(1 << 15)));
}
