//! Cores write throttle times into answers that were encoded here: every version's, where the generated message has it.

use bytes::BytesMut;
use kafka_wire_core::{ApiVersion, Encoder, KafkaEncode};
use ringmill_wire::supported::SUPPORTED;
use ringmill_wire::{ApiKey, ResponseHead, patch_throttle};
use std::collections::BTreeSet;

fn check<T: KafkaEncode>(key: ApiKey, with: impl Fn(i32) -> T) {
    let row = ringmill_wire::supported::find(key).expect("only what is served");
    for version in row.served_min..=row.max {
        let head = ResponseHead { api_key: key, api_version: version, correlation_id: 7 };
        let encoded = |throttle_ms: i32| {
            let mut out = Vec::new();
            head.begin(&mut out);
            let mut body = BytesMut::new();
            // A version without the field does not take a value for it.
            with(throttle_ms).encode(&mut Encoder::new(&mut body), ApiVersion::new(version)).ok()?;
            out.extend_from_slice(&body);
            Some(out)
        };
        let plain = encoded(0).expect("an empty answer");
        let mut patched = plain.clone();
        patch_throttle(head, &mut patched, 0x0102_0304);
        assert_eq!(patched, encoded(0x0102_0304).unwrap_or(plain), "{key} {version}");
    }
}

macro_rules! check_all {
    ($($key:ident $message:ident;)*) => {{
        let mut seen = BTreeSet::from([ApiKey::PRODUCE, ApiKey::FETCH, ApiKey::API_VERSIONS]);
        $(
            seen.insert(ApiKey::$key);
            check(ApiKey::$key, |ms| super::message!(kafka_wire::$message { throttle_time_ms: ms }));
        )*
        seen
    }};
}

#[test]
fn throttle_times_are_written_where_each_version_has_them() {
    let seen = check_all! {
        LIST_OFFSETS ListOffsetsResponse;
        METADATA MetadataResponse;
        OFFSET_COMMIT OffsetCommitResponse;
        OFFSET_FETCH OffsetFetchResponse;
        FIND_COORDINATOR FindCoordinatorResponse;
        JOIN_GROUP JoinGroupResponse;
        HEARTBEAT HeartbeatResponse;
        LEAVE_GROUP LeaveGroupResponse;
        SYNC_GROUP SyncGroupResponse;
        DESCRIBE_GROUPS DescribeGroupsResponse;
        LIST_GROUPS ListGroupsResponse;
        CREATE_TOPICS CreateTopicsResponse;
        DELETE_TOPICS DeleteTopicsResponse;
        DELETE_RECORDS DeleteRecordsResponse;
        INIT_PRODUCER_ID InitProducerIdResponse;
        OFFSET_FOR_LEADER_EPOCH OffsetForLeaderEpochResponse;
        DESCRIBE_CONFIGS DescribeConfigsResponse;
        ALTER_CONFIGS AlterConfigsResponse;
        ALTER_REPLICA_LOG_DIRS AlterReplicaLogDirsResponse;
        DESCRIBE_LOG_DIRS DescribeLogDirsResponse;
        CREATE_PARTITIONS CreatePartitionsResponse;
        DELETE_GROUPS DeleteGroupsResponse;
        ELECT_LEADERS ElectLeadersResponse;
        INCREMENTAL_ALTER_CONFIGS IncrementalAlterConfigsResponse;
        LIST_PARTITION_REASSIGNMENTS ListPartitionReassignmentsResponse;
        OFFSET_DELETE OffsetDeleteResponse;
        DESCRIBE_CLIENT_QUOTAS DescribeClientQuotasResponse;
        ALTER_CLIENT_QUOTAS AlterClientQuotasResponse;
        DESCRIBE_USER_SCRAM_CREDENTIALS DescribeUserScramCredentialsResponse;
        UPDATE_FEATURES UpdateFeaturesResponse;
        DESCRIBE_CLUSTER DescribeClusterResponse;
        DESCRIBE_PRODUCERS DescribeProducersResponse;
        CONSUMER_GROUP_HEARTBEAT ConsumerGroupHeartbeatResponse;
        CONSUMER_GROUP_DESCRIBE ConsumerGroupDescribeResponse;
        LIST_CONFIG_RESOURCES ListConfigResourcesResponse;
        DESCRIBE_TOPIC_PARTITIONS DescribeTopicPartitionsResponse;
    };
    assert_eq!(seen, SUPPORTED.iter().map(|row| row.key).collect(), "an API that is served and not checked");
}
