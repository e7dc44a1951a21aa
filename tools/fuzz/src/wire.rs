//! Bytes from a socket. Whatever the independent codec (kafka-wire) accepts must be accepted here with the same counts.

use bytes::Bytes;
use kafka_wire_core::{ApiVersion, DecodeLimits, KafkaDecode, KafkaEncode};
use ringmill_wire::api_versions::{ApiVersionsAnswers, Features};
use ringmill_wire::fetch::FetchRequest;
use ringmill_wire::metadata::MetadataRequest;
use ringmill_wire::produce::ProduceRequest;
use ringmill_wire::supported::is_served;
use ringmill_wire::{ApiKey, FrameLength, RequestHeader, WireErrorKind};

/// A frame with its length prefix.
pub fn request_header(data: &[u8]) {
    const MAX: usize = 1 << 20;
    let Some((prefix, frame)) = data.split_first_chunk::<4>() else { return };
    if let Ok(length) = FrameLength::parse(*prefix, MAX) {
        assert!(length <= MAX);
    }
    if let Ok(header) = RequestHeader::parse(frame) {
        assert!(header.api_key.exists());
        assert!(header.body_at <= frame.len());
        assert!(header.client_id.is_none_or(|id| id.len() < header.body_at));
        let _ = (header.client_id_text(), header.response_head());
    } else if let Err(error) = RequestHeader::parse(frame) {
        assert!(error.at <= frame.len(), "{error}");
    }
}

/// The oracle's view of the body behind `header`, when it has one. It wants nothing after the body.
fn oracle<R: KafkaDecode>(header: &RequestHeader<'_>, frame: &[u8]) -> Option<R> {
    let body = Bytes::copy_from_slice(frame.get(header.body_at..)?);
    R::decode_from_bytes(body, ApiVersion::new(header.api_version), DecodeLimits::default()).ok()
}

/// `data` is a version and a body: a header is put before it, so that no input is lost on one.
fn with_header(key: ApiKey, data: &[u8]) -> Option<Vec<u8>> {
    let (version, body) = data.split_first()?;
    let version = i16::from(*version as i8);
    let mut frame = Vec::with_capacity(data.len() + 12);
    frame.extend(key.0.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend([0, 0, 0, 7, 0xff, 0xff]);
    if key.encoding(version) == Some(ringmill_wire::api::Encoding::Flexible) {
        frame.push(0);
    }
    frame.extend(body);
    Some(frame)
}

/// A Produce version and body.
pub fn produce_request(data: &[u8]) {
    let Some(frame) = with_header(ApiKey::PRODUCE, data) else { return };
    let header = RequestHeader::parse(&frame).expect("the header is ours");
    let theirs: Option<kafka_wire::ProduceRequest> = oracle(&header, &frame);
    let ours = match ProduceRequest::parse(&header, &frame) {
        Ok(ours) => ours,
        Err(error) => {
            assert!(error.at <= frame.len(), "{error}");
            assert!(theirs.is_none(), "{error}, yet the oracle reads it");
            return;
        }
    };
    let (mut partitions, mut bytes) = (0, 0);
    for topic in ours.topics() {
        for partition in topic.partitions() {
            partitions += 1;
            let records = partition.records.unwrap_or_default();
            bytes += records.len();
            assert_eq!(frame.get(partition.records_at..partition.records_at + records.len()), Some(records));
        }
    }
    assert_eq!(ours.topics().count(), ours.topic_count);
    assert_eq!((partitions, bytes), (ours.partition_count, ours.records_bytes));
    assert!(bytes <= frame.len());
    if let Some(theirs) = theirs {
        assert_eq!((theirs.acks, theirs.timeout_ms), (ours.acks, ours.timeout_ms));
        assert_eq!(theirs.topic_data.len(), ours.topic_count);
        let theirs: Vec<_> = theirs.topic_data.iter().flat_map(|t| &t.partition_data).collect();
        let ours: Vec<_> = ours.topics().flat_map(|t| t.partitions()).collect();
        assert_eq!(theirs.len(), ours.len());
        for (theirs, ours) in theirs.iter().zip(&ours) {
            assert_eq!((theirs.index, theirs.records.as_deref()), (ours.index, ours.records));
        }
    }
}

/// A Fetch version and body.
pub fn fetch_request(data: &[u8]) {
    let Some(frame) = with_header(ApiKey::FETCH, data) else { return };
    let header = RequestHeader::parse(&frame).expect("the header is ours");
    let theirs: Option<kafka_wire::FetchRequest> = oracle(&header, &frame);
    let ours = match FetchRequest::parse(&header, &frame) {
        Ok(ours) => ours,
        Err(error) => {
            assert!(error.at <= frame.len(), "{error}");
            // The oracle takes isolation levels that do not exist.
            let odd = theirs.is_some_and(|r| !(0..=1).contains(&r.isolation_level));
            assert!(odd || oracle::<kafka_wire::FetchRequest>(&header, &frame).is_none(), "{error}");
            return;
        }
    };
    assert_eq!(ours.topics().count(), ours.topic_count);
    assert_eq!(ours.topics().map(|t| t.partitions().count()).sum::<usize>(), ours.partition_count);
    assert_eq!(ours.forgotten().count(), ours.forgotten_count);
    for topic in ours.forgotten() {
        assert_eq!(topic.partitions().count(), topic.partition_count);
    }
    if let Some(theirs) = theirs {
        assert_eq!(theirs.topics.len(), ours.topic_count);
        assert_eq!(theirs.forgotten_topics_data.len(), ours.forgotten_count);
        assert_eq!(
            (theirs.max_wait_ms, theirs.min_bytes, theirs.max_bytes),
            (ours.max_wait_ms, ours.min_bytes, ours.max_bytes)
        );
        assert_eq!((theirs.session_id, theirs.session_epoch), (ours.session_id, ours.session_epoch));
        let theirs: Vec<_> = theirs.topics.iter().flat_map(|t| &t.partitions).collect();
        let ours: Vec<_> = ours.topics().flat_map(|t| t.partitions()).collect();
        assert_eq!(theirs.len(), ours.len());
        for (theirs, ours) in theirs.iter().zip(&ours) {
            assert_eq!((theirs.partition, theirs.fetch_offset), (ours.index, ours.fetch_offset.0));
            assert_eq!(theirs.partition_max_bytes, ours.max_bytes);
            assert_eq!(theirs.high_watermark, ours.high_watermark.0);
            assert_eq!(theirs.replica_directory_id.to_bytes(), ours.replica_directory_id.0);
        }
    }
}

/// A Metadata version and body.
pub fn metadata_request(data: &[u8]) {
    let Some(frame) = with_header(ApiKey::METADATA, data) else { return };
    let header = RequestHeader::parse(&frame).expect("the header is ours");
    let theirs: Option<kafka_wire::MetadataRequest> = oracle(&header, &frame);
    let ours = match MetadataRequest::parse(&header, &frame) {
        Ok(ours) => ours,
        Err(error) => {
            assert!(error.at <= frame.len(), "{error}");
            // The oracle takes longer lists and names.
            let is_limit = matches!(error.kind, WireErrorKind::TooMany { .. } | WireErrorKind::LongString(_));
            assert!(is_limit || theirs.is_none(), "{error}, yet the oracle reads it");
            return;
        }
    };
    assert_eq!(ours.topics().count(), ours.topic_count);
    assert!(ours.topic_count * 2 <= frame.len());
    if let Some(theirs) = theirs {
        let is_empty = theirs.topics.as_ref().is_none_or(Vec::is_empty);
        assert_eq!(ours.all, theirs.topics.is_none() || (header.api_version == 0 && is_empty));
        assert_eq!(ours.may_create, theirs.allow_auto_topic_creation);
        assert_eq!(ours.cluster_operations, theirs.include_cluster_authorized_operations);
        assert_eq!(ours.topic_operations, theirs.include_topic_authorized_operations);
        let theirs: Vec<_> = theirs.topics.unwrap_or_default();
        assert_eq!(theirs.len(), ours.topic_count);
        for (theirs, ours) in theirs.iter().zip(ours.topics()) {
            let name = theirs.name.as_ref().map(|name| name.as_str());
            assert_eq!((theirs.topic_id.to_bytes(), name), (ours.id.0, ours.name));
        }
    }
}

/// A frame of whatever API; ApiVersions is answered, and the answer is one frame.
pub fn api_versions(data: &[u8]) {
    let Some(frame) = with_header(ApiKey::API_VERSIONS, data) else { return };
    let header = RequestHeader::parse(&frame).expect("the header is ours");
    let mut out = Vec::new();
    let answered = ApiVersionsAnswers::new(&Features::default()).answer(&header, &frame, &mut out).is_ok();
    assert_eq!(answered, !out.is_empty());
    if let Some((prefix, rest)) = out.split_first_chunk::<4>() {
        assert_eq!(u32::from_be_bytes(*prefix) as usize, rest.len());
    }
}

/// A frame of any API that control answers, decoded as control does it. What comes out of the decoder must go in again.
pub fn control_request(data: &[u8]) {
    let Ok(header) = RequestHeader::parse(data) else { return };
    if !is_served(header.api_key, header.api_version) {
        return;
    }
    match header.api_key {
        ApiKey::LIST_OFFSETS => again::<kafka_wire::ListOffsetsRequest>(&header, data),
        ApiKey::FIND_COORDINATOR => again::<kafka_wire::FindCoordinatorRequest>(&header, data),
        ApiKey::CREATE_TOPICS => again::<kafka_wire::CreateTopicsRequest>(&header, data),
        ApiKey::DELETE_TOPICS => again::<kafka_wire::DeleteTopicsRequest>(&header, data),
        ApiKey::INIT_PRODUCER_ID => again::<kafka_wire::InitProducerIdRequest>(&header, data),
        ApiKey::OFFSET_FOR_LEADER_EPOCH => again::<kafka_wire::OffsetForLeaderEpochRequest>(&header, data),
        ApiKey::DESCRIBE_CONFIGS => again::<kafka_wire::DescribeConfigsRequest>(&header, data),
        ApiKey::ALTER_CONFIGS => again::<kafka_wire::AlterConfigsRequest>(&header, data),
        ApiKey::DESCRIBE_LOG_DIRS => again::<kafka_wire::DescribeLogDirsRequest>(&header, data),
        ApiKey::CREATE_PARTITIONS => again::<kafka_wire::CreatePartitionsRequest>(&header, data),
        ApiKey::INCREMENTAL_ALTER_CONFIGS => {
            again::<kafka_wire::IncrementalAlterConfigsRequest>(&header, data)
        }
        ApiKey::LIST_PARTITION_REASSIGNMENTS => {
            again::<kafka_wire::ListPartitionReassignmentsRequest>(&header, data);
        }
        ApiKey::DELETE_RECORDS => again::<kafka_wire::DeleteRecordsRequest>(&header, data),
        ApiKey::ELECT_LEADERS => again::<kafka_wire::ElectLeadersRequest>(&header, data),
        ApiKey::ALTER_REPLICA_LOG_DIRS => again::<kafka_wire::AlterReplicaLogDirsRequest>(&header, data),
        ApiKey::DESCRIBE_USER_SCRAM_CREDENTIALS => {
            again::<kafka_wire::DescribeUserScramCredentialsRequest>(&header, data)
        }
        ApiKey::UPDATE_FEATURES => again::<kafka_wire::UpdateFeaturesRequest>(&header, data),
        ApiKey::DESCRIBE_PRODUCERS => again::<kafka_wire::DescribeProducersRequest>(&header, data),
        ApiKey::LIST_CONFIG_RESOURCES => again::<kafka_wire::ListConfigResourcesRequest>(&header, data),
        ApiKey::JOIN_GROUP => again::<kafka_wire::JoinGroupRequest>(&header, data),
        ApiKey::SYNC_GROUP => again::<kafka_wire::SyncGroupRequest>(&header, data),
        ApiKey::HEARTBEAT => again::<kafka_wire::HeartbeatRequest>(&header, data),
        ApiKey::LEAVE_GROUP => again::<kafka_wire::LeaveGroupRequest>(&header, data),
        ApiKey::OFFSET_COMMIT => again::<kafka_wire::OffsetCommitRequest>(&header, data),
        ApiKey::OFFSET_FETCH => again::<kafka_wire::OffsetFetchRequest>(&header, data),
        ApiKey::OFFSET_DELETE => again::<kafka_wire::OffsetDeleteRequest>(&header, data),
        ApiKey::LIST_GROUPS => again::<kafka_wire::ListGroupsRequest>(&header, data),
        ApiKey::DESCRIBE_GROUPS => again::<kafka_wire::DescribeGroupsRequest>(&header, data),
        ApiKey::DELETE_GROUPS => again::<kafka_wire::DeleteGroupsRequest>(&header, data),
        ApiKey::CONSUMER_GROUP_HEARTBEAT => again::<kafka_wire::ConsumerGroupHeartbeatRequest>(&header, data),
        ApiKey::CONSUMER_GROUP_DESCRIBE => again::<kafka_wire::ConsumerGroupDescribeRequest>(&header, data),
        ApiKey::DESCRIBE_CLIENT_QUOTAS => again::<kafka_wire::DescribeClientQuotasRequest>(&header, data),
        ApiKey::ALTER_CLIENT_QUOTAS => again::<kafka_wire::AlterClientQuotasRequest>(&header, data),
        ApiKey::DESCRIBE_CLUSTER => again::<kafka_wire::DescribeClusterRequest>(&header, data),
        ApiKey::DESCRIBE_TOPIC_PARTITIONS => {
            again::<kafka_wire::DescribeTopicPartitionsRequest>(&header, data)
        }
        // Read by cores, each with a target of its own.
        ApiKey::PRODUCE | ApiKey::FETCH | ApiKey::METADATA | ApiKey::API_VERSIONS => {}
        other => panic!("{other} is served, and nothing here decodes it"),
    }
}

fn again<R: KafkaDecode + KafkaEncode>(header: &RequestHeader<'_>, frame: &[u8]) {
    let Some(request) = oracle::<R>(header, frame) else { return };
    let version = ApiVersion::new(header.api_version);
    let bytes = request.encode_to_bytes(version).expect("what was decoded can be encoded in its version");
    assert!(R::decode_from_bytes(bytes, version, DecodeLimits::default()).is_ok());
}
