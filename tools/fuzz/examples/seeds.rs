//! Writes the corpora's seeds: one small input per target, version and shape. `cargo run --example seeds` in tools/fuzz.

use bytes::Bytes;
use kafka_wire::{
    alter_client_quotas_request, consumer_group_heartbeat_request, fetch_request, join_group_request, metadata_request,
    offset_commit_request, offset_fetch_request, produce_request, sync_group_request,
};
use kafka_wire_core::{ApiVersion, KafkaEncode, StrBytes, Uuid};
use ringmill_log::format::{checkpoint, group};
use ringmill_metadata::records::{PartitionRecord, Record};
use ringmill_types::{CoreId, LeaderEpoch, PartitionId, TopicId};
use std::fs;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let write = |target: &str, name: String, bytes: &[u8]| {
        let folder = root.join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)
    };
    for version in 3..=13 {
        write("produce_request", format!("v{version}"), &body(&produce(version), version))?;
    }
    for version in 4..=18 {
        write("fetch_request", format!("v{version}"), &body(&fetch(version), version))?;
    }
    for version in 0..=13 {
        write("metadata_request", format!("v{version}"), &body(&metadata_of(version), version))?;
    }
    for version in [1, 13] {
        let all = kafka_wire::MetadataRequest::default();
        write("metadata_request", format!("v{version}-all"), &body(&all, version))?;
    }
    for version in 0..=4 {
        let mut request = kafka_wire::ApiVersionsRequest::default();
        if version >= 3 {
            request.client_software_name = StrBytes::from("seed");
            request.client_software_version = StrBytes::from("1.0");
        }
        write("api_versions", format!("v{version}"), &body(&request, version))?;
    }
    write("api_versions", "v99".into(), &[99])?;
    for (name, frame) in control().into_iter().chain(groups()) {
        write("control_request", name, &frame)?;
    }
    for name in ["consumer_offsets", "consumer_protocol", "migration"] {
        let golden = root.join("../../replication/groups/tests/golden").join(format!("{name}.txt"));
        write("group_records", name.into(), &group_records(&fs::read_to_string(golden)?))?;
    }
    let header =
        |key: u8, version: u8, rest: &[u8]| [&[0, 0, 0, 64, 0, key, 0, version, 0, 0, 0, 1], rest].concat();
    write("request_header", "metadata-classic".into(), &header(3, 1, b"\0\x06client"))?;
    write("request_header", "metadata-flexible".into(), &header(3, 12, b"\0\x06client\x01\x05\x02ab"))?;
    write("request_header", "api-versions-future".into(), &header(18, 9, b"\xff\xff"))?;
    let golden = root.join("../../engine/record/tests/golden");
    for entry in fs::read_dir(golden)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "log") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let bytes = fs::read(&path)?;
            write("stored_batches", name.clone(), &bytes)?;
            let first = ringmill_record::Batches::new(&bytes).next().map(|(_, batch)| batch.to_vec());
            let mut produced = [vec![8], first.unwrap_or_default()].concat();
            produced[1..9].fill(0);
            write("produced_batch", name, &produced)?;
        }
    }
    for (name, bytes) in own_formats(root)? {
        let target = match &bytes {
            b if group::GroupHeader::decode(b).is_ok() => "core_log_group",
            b if checkpoint::decode(b).is_ok() => "checkpoint",
            _ => continue,
        };
        write(target, name, &bytes)?;
    }
    for (name, record) in metadata() {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        write("metadata_record", name.into(), &bytes)?;
    }
    Ok(())
}

/// First and last version of every API that control answers, with defaults.
fn control() -> Vec<(String, Vec<u8>)> {
    macro_rules! frames {
        ($($request:ident)*) => {{
            let mut frames = Vec::new();
            $(frames.extend(edges(&kafka_wire::$request::default()));)*
            frames
        }};
    }
    frames!(ListOffsetsRequest FindCoordinatorRequest CreateTopicsRequest DeleteTopicsRequest
        InitProducerIdRequest OffsetForLeaderEpochRequest DescribeConfigsRequest AlterConfigsRequest
        DescribeLogDirsRequest CreatePartitionsRequest IncrementalAlterConfigsRequest
        ListPartitionReassignmentsRequest DescribeClusterRequest DescribeTopicPartitionsRequest
        DeleteRecordsRequest ElectLeadersRequest AlterReplicaLogDirsRequest DescribeUserScramCredentialsRequest
        UpdateFeaturesRequest DescribeProducersRequest ListConfigResourcesRequest DescribeClientQuotasRequest
        AlterClientQuotasRequest JoinGroupRequest SyncGroupRequest HeartbeatRequest LeaveGroupRequest
        OffsetCommitRequest OffsetFetchRequest OffsetDeleteRequest ListGroupsRequest DescribeGroupsRequest
        DeleteGroupsRequest ConsumerGroupHeartbeatRequest ConsumerGroupDescribeRequest)
}

fn edges<R: kafka_wire::KafkaRequest + KafkaEncode>(request: &R) -> Vec<(String, Vec<u8>)> {
    let key = ringmill_wire::ApiKey(R::API_KEY.value());
    let row = ringmill_wire::supported::find(key).expect("an API that control answers");
    [row.min, row.max].into_iter().map(|version| frame(request, version, "")).collect()
}

/// A named frame without its length.
fn frame<R: kafka_wire::KafkaRequest + KafkaEncode>(
    request: &R,
    version: i16,
    what: &str,
) -> (String, Vec<u8>) {
    let key = ringmill_wire::ApiKey(R::API_KEY.value());
    let mut frame = bytes::BytesMut::new();
    let limits = kafka_wire::OutboundFrameLimits::new(1 << 20);
    kafka_wire::encode_request(&mut frame, 1, None, request, ApiVersion::new(version), limits)
        .unwrap_or_else(|error| panic!("{key} of version {version}: {error}"));
    (format!("{key}-v{version}{what}"), frame[4..].to_vec())
}

/// Requests of members, of their coordinator's clients and about quotas, with something in every list.
fn groups() -> Vec<(String, Vec<u8>)> {
    macro_rules! full {
        ($request:ident, $versions:expr, |$it:ident, $version:ident| $fill:block) => {{
            let with = |$version: i16| {
                let mut $it = kafka_wire::$request::default();
                $fill
                $it
            };
            $versions.map(|version: i16| frame(&with(version), version, "-full")).to_vec()
        }};
    }
    let joins = full!(JoinGroupRequest, [1, 5, 9], |it, version| {
        let mut protocol = join_group_request::JoinGroupRequestProtocol::default();
        (protocol.name, protocol.metadata) = ("range".into(), Bytes::from_static(b"\0\x01\0\0\0\0"));
        (it.group_id, it.member_id, it.protocol_type) = ("group".into(), "member".into(), "consumer".into());
        (it.session_timeout_ms, it.rebalance_timeout_ms) = (6_000, 60_000);
        it.group_instance_id = (version >= 5).then(|| "instance".into());
        it.reason = (version >= 8).then(|| "reason".into());
        it.protocols = vec![protocol.clone(), protocol];
    });
    let syncs = full!(SyncGroupRequest, [0, 3, 5], |it, version| {
        let mut given = sync_group_request::SyncGroupRequestAssignment::default();
        (given.member_id, given.assignment) = ("member".into(), Bytes::from_static(b"\0\0\0\0\0\0"));
        (it.group_id, it.member_id, it.generation_id) = ("group".into(), "member".into(), 3);
        it.group_instance_id = (version >= 3).then(|| "instance".into());
        it.protocol_type = (version >= 5).then(|| "consumer".into());
        it.protocol_name = (version >= 5).then(|| "range".into());
        it.assignments = vec![given.clone(), given];
    });
    let commits = full!(OffsetCommitRequest, [2, 7, 10], |it, version| {
        let mut partition = offset_commit_request::OffsetCommitRequestPartition::default();
        (partition.partition_index, partition.committed_offset) = (1, 9);
        partition.committed_metadata = Some("said".into());
        let mut topic = offset_commit_request::OffsetCommitRequestTopic::default();
        if version >= 10 {
            topic.topic_id = Uuid::from_bytes([7; 16]);
        } else {
            topic.name = "topic".into();
        }
        topic.partitions = vec![partition.clone(), partition];
        (it.group_id, it.member_id, it.generation_id_or_member_epoch) = ("group".into(), "member".into(), 3);
        it.topics = vec![topic.clone(), topic];
    });
    let fetches = full!(OffsetFetchRequest, [1, 7, 9, 10], |it, version| {
        let mut topic = offset_fetch_request::OffsetFetchRequestTopics::default();
        if version >= 10 {
            topic.topic_id = Uuid::from_bytes([7; 16]);
        } else {
            topic.name = "topic".into();
        }
        topic.partition_indexes = vec![0, 1];
        let mut old = offset_fetch_request::OffsetFetchRequestTopic::default();
        (old.name, old.partition_indexes) = ("topic".into(), vec![0, 1]);
        let mut group = offset_fetch_request::OffsetFetchRequestGroup::default();
        (group.group_id, group.topics) = ("group".into(), Some(vec![topic]));
        if version >= 9 {
            (group.member_id, group.member_epoch) = (Some("member".into()), 3);
        }
        if version >= 8 {
            it.groups = vec![group.clone(), group];
        } else {
            (it.group_id, it.topics) = ("group".into(), Some(vec![old.clone(), old]));
        }
    });
    let beats = full!(ConsumerGroupHeartbeatRequest, [0, 1], |it, version| {
        let mut owned = consumer_group_heartbeat_request::TopicPartitions::default();
        (owned.topic_id, owned.partitions) = (Uuid::from_bytes([7; 16]), vec![0, 1]);
        (it.group_id, it.member_id, it.rebalance_timeout_ms) = ("group".into(), "member".into(), 60_000);
        (it.instance_id, it.rack_id) = (Some("instance".into()), Some("rack".into()));
        it.subscribed_topic_names = Some(vec!["topic".into(), "other".into()]);
        it.subscribed_topic_regex = (version >= 1).then(|| "to.*|(o+)+".into());
        it.server_assignor = Some("uniform".into());
        it.topic_partitions = Some(vec![owned]);
    });
    let quotas = full!(AlterClientQuotasRequest, [0, 1], |it, _version| {
        let mut entity = alter_client_quotas_request::EntityData::default();
        (entity.entity_type, entity.entity_name) = ("client-id".into(), None);
        let mut op = alter_client_quotas_request::OpData::default();
        (op.key, op.value) = ("producer_byte_rate".into(), 1e6);
        let mut entry = alter_client_quotas_request::EntryData::default();
        (entry.entity, entry.ops) = (vec![entity], vec![op]);
        it.entries = vec![entry.clone(), entry];
    });
    [joins, syncs, commits, fetches, beats, quotas].concat()
}

/// Records as the target reads them: a length and a key, a length and a value, or the largest length for none.
fn group_records(golden: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let bytes = |hex: &str| -> Vec<u8> {
        let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
        digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    };
    for line in golden.lines() {
        let mut fields = line.split(' ').skip(2);
        for field in [fields.next(), fields.next()] {
            let value = field.filter(|field| *field != "null").map(bytes);
            let length = value.as_ref().map_or(u16::MAX, |value| value.len() as u16);
            out.extend(length.to_be_bytes());
            out.extend(value.unwrap_or_default());
        }
    }
    out
}

/// A metadata record of every kind.
fn metadata() -> Vec<(&'static str, Record)> {
    let id = TopicId([7; 16]);
    let partitions = vec![PartitionRecord { id: PartitionId(3), core: CoreId(1), epoch: LeaderEpoch(2) }];
    let configs = [("retention.ms".to_owned(), "1000".to_owned())].into();
    let created = Record::TopicCreated {
        name: "topic".into(),
        id,
        created_ms: 5,
        configs,
        partitions: partitions.clone(),
    };
    let configs = || [("flush.ms".to_owned(), "5".to_owned())].into();
    vec![
        ("topic-created", created),
        ("partitions-added", Record::PartitionsAdded { id, partitions }),
        ("topic-deleted", Record::TopicDeleted { id }),
        ("topic-configs", Record::TopicConfigs { id, configs: configs() }),
        ("resource-configs", Record::ResourceConfigs { kind: 4, name: "1".into(), configs: configs() }),
        ("producer-ids", Record::ProducerIds { next: 1000 }),
        ("partition-ids", Record::PartitionIds { next: 9 }),
        ("placed", Record::Placed { moves: vec![(PartitionId(3), CoreId(0))] }),
    ]
}

/// The golden files of our own formats.
fn own_formats(root: &Path) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut folders = vec![root.join("../../engine/log/tests/golden")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.metadata()?.len() <= 64 << 10 {
                found.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
            }
        }
    }
    Ok(found)
}

fn body(request: &impl KafkaEncode, version: i16) -> Vec<u8> {
    let body = request.encode_to_bytes(ApiVersion::new(version)).expect("a request of this version");
    [&[version as u8], &body[..]].concat()
}

fn produce(version: i16) -> kafka_wire::ProduceRequest {
    let mut partition = produce_request::PartitionProduceData::default();
    partition.index = 1;
    partition.records = Some(Bytes::from_static(b"records"));
    let mut empty = produce_request::PartitionProduceData::default();
    empty.records = None;
    let mut topic = produce_request::TopicProduceData::default();
    if version >= 13 {
        topic.topic_id = Uuid::from_bytes([7; 16]);
    } else {
        topic.name = StrBytes::from("topic");
    }
    topic.partition_data = vec![partition, empty];
    let mut request = kafka_wire::ProduceRequest::default();
    request.transactional_id = Some(StrBytes::from("tx"));
    (request.acks, request.timeout_ms) = (-1, 30_000);
    request.topic_data = vec![topic.clone(), topic];
    request
}

fn metadata_of(version: i16) -> kafka_wire::MetadataRequest {
    let mut topic = metadata_request::MetadataRequestTopic::default();
    topic.name = Some(StrBytes::from("topic"));
    let mut by_id = topic.clone();
    if version >= 10 {
        (by_id.name, by_id.topic_id) = (None, Uuid::from_bytes([7; 16]));
    }
    let mut request = kafka_wire::MetadataRequest::default();
    request.topics = Some(vec![topic, by_id]);
    request.allow_auto_topic_creation = version < 4;
    request.include_cluster_authorized_operations = (8..=10).contains(&version);
    request.include_topic_authorized_operations = version >= 8;
    request
}

fn fetch(version: i16) -> kafka_wire::FetchRequest {
    let mut partition = fetch_request::FetchPartition::default();
    (partition.partition, partition.fetch_offset, partition.partition_max_bytes) = (1, 9, 1 << 20);
    if version >= 17 {
        partition.replica_directory_id = Uuid::from_bytes([9; 16]);
    }
    if version >= 18 {
        partition.high_watermark = 5;
    }
    let mut topic = fetch_request::FetchTopic::default();
    let mut forgotten = fetch_request::ForgottenTopic::default();
    if version >= 13 {
        topic.topic_id = Uuid::from_bytes([7; 16]);
        forgotten.topic_id = Uuid::from_bytes([8; 16]);
    } else {
        topic.topic = StrBytes::from("topic");
        forgotten.topic = StrBytes::from("gone");
    }
    topic.partitions = vec![partition.clone(), partition];
    forgotten.partitions = vec![0, 1];
    let mut request = kafka_wire::FetchRequest::default();
    (request.max_wait_ms, request.min_bytes, request.max_bytes) = (500, 1, 1 << 20);
    request.topics = vec![topic];
    if version >= 7 {
        (request.session_id, request.session_epoch) = (3, 4);
        request.forgotten_topics_data = vec![forgotten];
    }
    if version >= 11 {
        request.rack_id = StrBytes::from("rack");
    }
    if version >= 12 {
        request.cluster_id = Some(StrBytes::from("cluster"));
    }
    if version >= 15 {
        (request.replica_state.replica_id, request.replica_state.replica_epoch) = (2, 3);
    }
    request
}
