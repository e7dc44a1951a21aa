//! The one table of what this broker advertises. ApiVersions sends it, control dispatches by it, COMPATIBILITY is
//! generated from it: an API is here exactly when it works.

use crate::api::ApiKey;

/// One row of ApiVersions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supported {
    pub key: ApiKey,
    /// Lowest version shown to clients.
    pub min: i16,
    pub max: i16,
    /// Lowest version that is answered; above `min` for Produce alone, whose versions 0–2 older librdkafka wants to
    /// see before it compresses (KAFKA-18659).
    pub served_min: i16,
}

const fn api(key: ApiKey, min: i16, max: i16) -> Supported {
    Supported { key, min, max, served_min: min }
}

/// In order of the keys.
pub static SUPPORTED: &[Supported] = &[
    Supported { key: ApiKey::PRODUCE, min: 0, max: 13, served_min: 3 },
    api(ApiKey::FETCH, 4, 18),
    api(ApiKey::LIST_OFFSETS, 1, 11),
    api(ApiKey::METADATA, 0, 13),
    api(ApiKey::OFFSET_COMMIT, 2, 10),
    api(ApiKey::OFFSET_FETCH, 1, 10),
    api(ApiKey::FIND_COORDINATOR, 0, 6),
    api(ApiKey::JOIN_GROUP, 0, 9),
    api(ApiKey::HEARTBEAT, 0, 4),
    api(ApiKey::LEAVE_GROUP, 0, 5),
    api(ApiKey::SYNC_GROUP, 0, 5),
    api(ApiKey::DESCRIBE_GROUPS, 0, 6),
    api(ApiKey::LIST_GROUPS, 0, 5),
    api(ApiKey::API_VERSIONS, 0, 4),
    api(ApiKey::CREATE_TOPICS, 2, 7),
    api(ApiKey::DELETE_TOPICS, 1, 6),
    api(ApiKey::DELETE_RECORDS, 0, 2),
    api(ApiKey::INIT_PRODUCER_ID, 0, 5),
    api(ApiKey::OFFSET_FOR_LEADER_EPOCH, 2, 4),
    api(ApiKey::DESCRIBE_CONFIGS, 1, 4),
    api(ApiKey::ALTER_CONFIGS, 0, 2),
    api(ApiKey::ALTER_REPLICA_LOG_DIRS, 1, 2),
    api(ApiKey::DESCRIBE_LOG_DIRS, 1, 5),
    api(ApiKey::CREATE_PARTITIONS, 0, 3),
    api(ApiKey::DELETE_GROUPS, 0, 2),
    api(ApiKey::ELECT_LEADERS, 0, 2),
    api(ApiKey::INCREMENTAL_ALTER_CONFIGS, 0, 1),
    api(ApiKey::LIST_PARTITION_REASSIGNMENTS, 0, 0),
    api(ApiKey::OFFSET_DELETE, 0, 0),
    api(ApiKey::DESCRIBE_CLIENT_QUOTAS, 0, 1),
    api(ApiKey::ALTER_CLIENT_QUOTAS, 0, 1),
    api(ApiKey::DESCRIBE_USER_SCRAM_CREDENTIALS, 0, 0),
    api(ApiKey::UPDATE_FEATURES, 0, 2),
    api(ApiKey::DESCRIBE_CLUSTER, 0, 2),
    api(ApiKey::DESCRIBE_PRODUCERS, 0, 0),
    api(ApiKey::CONSUMER_GROUP_HEARTBEAT, 0, 1),
    api(ApiKey::CONSUMER_GROUP_DESCRIBE, 0, 1),
    api(ApiKey::LIST_CONFIG_RESOURCES, 0, 1),
    api(ApiKey::DESCRIBE_TOPIC_PARTITIONS, 0, 0),
];

/// The row of an API; `None` when it is not advertised.
pub fn find(key: ApiKey) -> Option<&'static Supported> {
    SUPPORTED.iter().find(|row| row.key == key)
}

/// A request of this API and version is answered. Others close the connection, as Kafka does, except ApiVersions.
pub fn is_served(key: ApiKey, version: i16) -> bool {
    find(key).is_some_and(|row| (row.served_min..=row.max).contains(&version))
}
