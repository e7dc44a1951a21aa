//! What the operator may set. Names and defaults are Kafka's.

/// `group.consumer.migration.policy`: which way a group with members may go over to the other protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Migration {
    Disabled,
    /// From the consumer protocol to the classic one, with its last member of the former.
    Downgrade,
    /// From the classic protocol to the consumer's, with the first member of the latter.
    Upgrade,
    #[default]
    Bidirectional,
}

impl Migration {
    pub(crate) fn upgrades(self) -> bool {
        match self {
            Migration::Upgrade | Migration::Bidirectional => true,
            Migration::Disabled | Migration::Downgrade => false,
        }
    }

    pub(crate) fn downgrades(self) -> bool {
        match self {
            Migration::Downgrade | Migration::Bidirectional => true,
            Migration::Disabled | Migration::Upgrade => false,
        }
    }
}

/// Limits and times of the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`
    pub session_timeout_ms_max: i32,
    /// `group.initial.rebalance.delay.ms`: an empty group waits this long for more members.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`
    pub size_max: usize,
    /// `group.consumer.session.timeout.ms`
    pub consumer_session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`
    pub consumer_heartbeat_interval_ms: i32,
    /// `group.consumer.max.size`
    pub consumer_size_max: usize,
    /// `group.consumer.migration.policy`
    pub migration: Migration,
    /// A new member that waits longer than this for its group to form has most likely gone; Kafka's fixed five minutes.
    pub new_member_join_timeout_ms: i32,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub retention_check_ms: u64,
    /// `offset.metadata.max.bytes`
    pub offset_metadata_bytes_max: usize,
    /// Largest batch that `__consumer_offsets` takes.
    pub record_bytes_max: u64,
    /// What the members of all groups may say of themselves together, in bytes.
    pub said_bytes_max: u64,
}

/// What one group has in place of the coordinator's, from its next heartbeats on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnConfig {
    /// `consumer.session.timeout.ms`
    pub consumer_session_timeout_ms: Option<i32>,
    /// `consumer.heartbeat.interval.ms`
    pub consumer_heartbeat_interval_ms: Option<i32>,
}

impl Default for GroupConfig {
    /// Kafka 4.3's defaults.
    fn default() -> GroupConfig {
        GroupConfig {
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            size_max: i32::MAX as usize,
            consumer_session_timeout_ms: 45_000,
            consumer_heartbeat_interval_ms: 5_000,
            consumer_size_max: i32::MAX as usize,
            migration: Migration::default(),
            new_member_join_timeout_ms: 300_000,
            offsets_retention_ms: 7 * 24 * 3600 * 1000,
            retention_check_ms: 600_000,
            offset_metadata_bytes_max: 4096,
            record_bytes_max: ringmill_types::limits::MESSAGE_MAX_BYTES_DEFAULT as u64,
            said_bytes_max: 128 << 20,
        }
    }
}
