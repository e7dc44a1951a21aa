//! The one table of every configuration key: name, type, unit, default, bounds, effect, example.
//!
//! The `settings!` list below is the only place where a key exists. It makes the typed [`Settings`] the rest of the
//! broker reads, the parser's rules, CONFIG.md and the text of `--help`, so they cannot disagree.

use super::units::{CPU_MAX, TimeUnit, parse_bytes, parse_cpus, parse_time, show_bytes};
use ringmill_control::groups::Migration;
use ringmill_types::{TimestampType, limits};
use std::path::PathBuf;

/// Whose name a key carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Kafka's name, Kafka's unit, Kafka's meaning.
    Kafka,
    /// Ours: what Kafka has no word for.
    Ringmill,
}

/// Chapters of CONFIG.md, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Identity,
    Network,
    Topics,
    Retention,
    Groups,
    Durability,
    Resources,
    Upkeep,
    Diagnostics,
}

impl Section {
    pub const ALL: &[Section] = &[
        Section::Identity,
        Section::Network,
        Section::Topics,
        Section::Retention,
        Section::Groups,
        Section::Durability,
        Section::Resources,
        Section::Upkeep,
        Section::Diagnostics,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Section::Identity => "Identity and files",
            Section::Network => "Network",
            Section::Topics => "Topics",
            Section::Retention => "Retention",
            Section::Groups => "Consumer groups",
            Section::Durability => "Durability",
            Section::Resources => "Threads and memory",
            Section::Upkeep => "Upkeep",
            Section::Diagnostics => "Diagnostics",
        }
    }
}

/// Type and bounds of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int {
        min: i64,
        max: i64,
    },
    /// Bytes; `-1` where the minimum allows it means no limit.
    Bytes {
        min: i64,
        max: i64,
    },
    Time {
        unit: TimeUnit,
        min: i64,
        max: i64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// One of these words, in capitals or not: Kafka takes some either way.
    AnyCase(&'static [&'static str]),
    /// Any of these words, separated by commas.
    Choices(&'static [&'static str]),
    Text,
    Path,
    /// `HOST:PORT`, or Kafka's `PLAINTEXT://HOST:PORT`.
    Address,
    /// A CPU list such as `0-3`.
    Cpus,
    /// A count of cores, or a CPU list to pin them to.
    Cores,
}

/// A value that passed its key's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Bool(bool),
    Int(i64),
    Text(String),
    Cpus(Vec<usize>),
    Words(Vec<String>),
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub name: &'static str,
    pub section: Section,
    pub origin: Origin,
    pub kind: Kind,
    /// As it would be written; `None`: not set, the effect says what happens then.
    pub default: Option<&'static str>,
    pub effect: &'static str,
    pub example: &'static str,
}

impl Key {
    /// Reads `text` by this key's rules.
    ///
    /// # Errors
    /// A sentence without the key's name.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        match self.kind {
            Kind::Bool => match text {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err(format!("`{text}` is neither true nor false")),
            },
            Kind::Int { min, max } => {
                let number = text.parse().map_err(|_| format!("`{text}` is not a whole number"))?;
                self.bounded(number, min, max)
            }
            Kind::Bytes { min, max } => self.bounded(parse_bytes(text)?, min, max),
            Kind::Time { unit, min, max } => self.bounded(parse_time(text, unit)?, min, max),
            Kind::Choice(words) | Kind::AnyCase(words) => {
                let any_case = matches!(self.kind, Kind::AnyCase(_));
                words
                    .iter()
                    .find(|word| **word == text || any_case && word.eq_ignore_ascii_case(text))
                    .map(|word| Value::Text((*word).into()))
                    .ok_or_else(|| format!("`{text}` is not one of {}", words.join(", ")))
            }
            Kind::Choices(words) => {
                let list: Vec<String> =
                    text.split(',').map(str::trim).filter(|w| !w.is_empty()).map(Into::into).collect();
                match list.iter().find(|word| !words.contains(&word.as_str())) {
                    Some(word) => Err(format!("`{word}` is not one of {}", words.join(", "))),
                    None => Ok(Value::Words(list)),
                }
            }
            Kind::Text | Kind::Path | Kind::Address if text.is_empty() => Err("the value is empty".into()),
            Kind::Text | Kind::Path | Kind::Address => Ok(Value::Text(text.into())),
            Kind::Cpus => parse_cpus(text).map(Value::Cpus),
            Kind::Cores => match text.parse::<usize>() {
                Ok(count) if (1..=CORES_MAX).contains(&count) => Ok(Value::Text(text.into())),
                Ok(_) => Err(format!("`{text}` is not a number of cores: 1 to {CORES_MAX}")),
                Err(_) if text.contains([',', '-']) => parse_cpus(text).map(|_| Value::Text(text.into())),
                Err(_) => Err(format!("`{text}` is neither a count nor a list such as `0-3` or `0,2`")),
            },
        }
    }

    fn bounded(&self, number: i64, min: i64, max: i64) -> Result<Value, String> {
        if number < min {
            return Err(format!("{number} is below the minimum, {}", self.show(min)));
        }
        if number > max {
            return Err(format!("{number} is above the maximum, {}", self.show(max)));
        }
        Ok(Value::Int(number))
    }

    fn show(&self, number: i64) -> String {
        match self.kind {
            Kind::Bytes { .. } => show_bytes(number),
            Kind::Time { unit, .. } => format!("{number} {}", unit.name()),
            _ => number.to_string(),
        }
    }

    /// Type and unit, for the documentation.
    pub fn kind_text(&self) -> String {
        match self.kind {
            Kind::Bool => "true or false".into(),
            Kind::Int { .. } => "number".into(),
            Kind::Bytes { .. } => "bytes".into(),
            Kind::Time { unit, .. } => unit.name().into(),
            Kind::Choice(words) | Kind::AnyCase(words) => words.join(" or "),
            Kind::Choices(words) => format!("any of {}", words.join(", ")),
            Kind::Text => "text".into(),
            Kind::Path => "folder".into(),
            Kind::Address => "HOST:PORT".into(),
            Kind::Cpus => "CPU list".into(),
            Kind::Cores => "count or CPU list".into(),
        }
    }

    /// `min … max`, empty where there is nothing to bound.
    pub fn range_text(&self) -> String {
        match self.kind {
            Kind::Int { min, max } | Kind::Bytes { min, max } | Kind::Time { min, max, .. } => {
                let limit = |n: i64| match n {
                    i64::MAX => "2^63-1".to_string(),
                    2_147_483_647 => "2^31-1".to_string(),
                    _ => match self.kind {
                        Kind::Bytes { .. } => show_bytes(n),
                        _ => n.to_string(),
                    },
                };
                format!("{} … {}", limit(min), limit(max))
            }
            Kind::Cores => format!("1 … {CORES_MAX}"),
            Kind::Cpus => format!("0 … {CPU_MAX}"),
            Kind::Bool
            | Kind::Choice(_)
            | Kind::AnyCase(_)
            | Kind::Choices(_)
            | Kind::Text
            | Kind::Path
            | Kind::Address => String::new(),
        }
    }

    /// The default as it is shown to people.
    pub fn default_text(&self) -> String {
        match (self.default, self.kind) {
            (None, _) => "not set".into(),
            (Some(""), _) => "none".into(),
            (Some(text), _) => text.into(),
        }
    }
}

/// How a flush is made: see kernel-notes on RWF_DSYNC and linked fdatasync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushMethod {
    /// Starts on fdatasync; the probe's result, once there is one.
    Auto,
    /// Write with a linked `fdatasync`.
    Fdatasync,
    /// Write with `RWF_DSYNC`.
    Dsync,
}

/// A field of [`Settings`] made from a checked [`Value`].
trait Field: Sized {
    fn of(value: Option<&Value>) -> Option<Self>;
}

macro_rules! int_fields {
    ($($ty:ty),*) => {$(
        impl Field for $ty {
            fn of(value: Option<&Value>) -> Option<Self> {
                match value? { Value::Int(number) => <$ty>::try_from(*number).ok(), _ => None }
            }
        }
    )*};
}
int_fields!(i64, i32, u64, u32, usize);

impl Field for bool {
    fn of(value: Option<&Value>) -> Option<bool> {
        match value? {
            Value::Bool(yes) => Some(*yes),
            _ => None,
        }
    }
}

impl Field for String {
    fn of(value: Option<&Value>) -> Option<String> {
        match value? {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }
}

impl Field for PathBuf {
    fn of(value: Option<&Value>) -> Option<PathBuf> {
        String::of(value).map(PathBuf::from)
    }
}

impl Field for Vec<usize> {
    fn of(value: Option<&Value>) -> Option<Vec<usize>> {
        match value? {
            Value::Cpus(cpus) => Some(cpus.clone()),
            _ => None,
        }
    }
}

impl Field for Vec<String> {
    fn of(value: Option<&Value>) -> Option<Vec<String>> {
        match value? {
            Value::Words(words) => Some(words.clone()),
            _ => None,
        }
    }
}

impl Field for TimestampType {
    fn of(value: Option<&Value>) -> Option<TimestampType> {
        match String::of(value)?.as_str() {
            "CreateTime" => Some(TimestampType::CreateTime),
            "LogAppendTime" => Some(TimestampType::LogAppendTime),
            _ => None,
        }
    }
}

impl Field for FlushMethod {
    fn of(value: Option<&Value>) -> Option<FlushMethod> {
        match String::of(value)?.as_str() {
            "auto" => Some(FlushMethod::Auto),
            "fdatasync" => Some(FlushMethod::Fdatasync),
            "dsync" => Some(FlushMethod::Dsync),
            _ => None,
        }
    }
}

impl Field for Migration {
    fn of(value: Option<&Value>) -> Option<Migration> {
        match String::of(value)?.as_str() {
            "bidirectional" => Some(Migration::Bidirectional),
            "upgrade" => Some(Migration::Upgrade),
            "downgrade" => Some(Migration::Downgrade),
            "disabled" => Some(Migration::Disabled),
            _ => None,
        }
    }
}

impl<T: Field> Field for Option<T> {
    fn of(value: Option<&Value>) -> Option<Option<T>> {
        match value {
            None => Some(None),
            some => T::of(some).map(Some),
        }
    }
}

macro_rules! settings {
    ($($section:ident { $(
        $field:ident: $ty:ty, $name:literal, $origin:ident, $kind:expr, $default:expr,
            $effect:literal, $example:literal;
    )* })*) => {
        /// Every key's value, checked. Fields are named as the keys are, dots turned to underscores.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Settings {
            $($(#[doc = $effect] pub $field: $ty,)*)*
        }

        /// All keys, in the order of CONFIG.md.
        pub const KEYS: &[Key] = &[
            $($(Key {
                name: $name,
                section: Section::$section,
                origin: Origin::$origin,
                kind: $kind,
                default: $default,
                effect: $effect,
                example: $example,
            },)*)*
        ];

        impl Settings {
            /// Builds the settings from a look-up of checked values, defaults already filled in.
            pub(super) fn build<'a>(value_of: impl Fn(&str) -> Option<&'a Value>) -> Settings {
                Settings {
                    $($($field: Field::of(value_of($name)).expect(concat!($name, ": the table's bounds fit the field")),)*)*
                }
            }
        }
    };
}

/// Core threads one process may have.
pub const CORES_MAX: usize = 256;

/// Kernel features that `features.off` can name: those of `RingFeatures` and `HostFeature` in `ringmill_reactor::ring`.
pub const FEATURES: &[&str] = &[
    "defer_taskrun",
    "provided_buffers",
    "multishot_accept",
    "zero_copy",
    "direct_io",
    "huge_pages",
    "nocow",
    "fallocate",
];

const BYTES_MAX: i64 = 1 << 50;
const MS_MAX: i64 = i64::MAX;
const INT_MAX: i64 = i32::MAX as i64;

settings! {
    Identity {
        node_id: Option<i32>, "node.id", Kafka, Kind::Int { min: 0, max: INT_MAX }, None,
            "Number of this broker, shown to clients. Fixed by the first start in a data folder (1 when not set then); a later start with another number is refused.", "1";
        cluster_id: Option<String>, "cluster.id", Kafka, Kind::Text, None,
            "Name of the cluster, shown to clients. Fixed by the first start in a data folder, which draws a random one when this is not set.", "hF4qyWm7RcmBhx1pYqGBtQ";
        log_dirs: Option<String>, "log.dirs", Kafka, Kind::Path, None,
            "The data folder; the same as --data, and ./ringmill-data when neither is given. One folder: several are refused.", "/var/lib/ringmill";
        log_dir: Option<String>, "log.dir", Kafka, Kind::Path, None,
            "Kafka's older name of log.dirs.", "/var/lib/ringmill";
    }
    Network {
        listeners: Option<String>, "listeners", Kafka, Kind::Address, None,
            "Where Kafka clients connect; the same as --listen, and 127.0.0.1:9092 when neither is given. Port 0 takes a free port and prints it. One plaintext listener.", "0.0.0.0:9092";
        advertised_listeners: Option<String>, "advertised.listeners", Kafka, Kind::Address, None,
            "What clients are told to connect to; the same as --advertise. Not set: the address listened on, or the host's name when that is a wildcard.", "broker1.example.com:9092";
        admin_listen: Option<String>, "admin.listen", Ringmill, Kind::Address, None,
            "Where metrics, health and dumps are served over HTTP; the same as --admin, and 127.0.0.1:9644 when neither is given.", "127.0.0.1:9644";
        max_connections: u32, "max.connections", Kafka, Kind::Int { min: 1, max: INT_MAX }, Some("2147483647"),
            "Connections to Kafka listeners at one time; a further one is closed at once. The limit on open files bounds it too.", "20000";
        connections_max_idle_ms: i64, "connections.max.idle.ms", Kafka, Kind::Time { unit: TimeUnit::Millis, min: -1, max: MS_MAX }, Some("600000"),
            "A connection without a request for this long is closed; -1 never closes one.", "600000";
        socket_request_max_bytes: u64, "socket.request.max.bytes", Kafka, Kind::Bytes { min: 1 << 10, max: INT_MAX }, Some("104857600"),
            "Largest request; a longer one closes the connection before memory is spent on it.", "104857600";
    }
    Topics {
        num_partitions: i32, "num.partitions", Kafka, Kind::Int { min: 1, max: limits::PARTITIONS_MAX as i64 }, Some("1"),
            "Partitions of a topic that is created without a number.", "8";
        auto_create_topics_enable: bool, "auto.create.topics.enable", Kafka, Kind::Bool, Some("true"),
            "A topic is created when a client that allows it asks for one that does not exist.", "false";
        delete_topic_enable: bool, "delete.topic.enable", Kafka, Kind::Bool, Some("true"),
            "Topics may be deleted; otherwise DeleteTopics answers TOPIC_DELETION_DISABLED.", "true";
        message_max_bytes: u64, "message.max.bytes", Kafka, Kind::Bytes { min: 0, max: 1 << 30 }, Some("1048588"),
            "Largest record batch, as sent (compressed). A topic's max.message.bytes overrides it.", "10485880";
        log_message_timestamp_type: TimestampType, "log.message.timestamp.type", Kafka, Kind::Choice(&["CreateTime", "LogAppendTime"]), Some("CreateTime"),
            "Whose clock stamps a record: the producer's, or the broker's at append. A topic's message.timestamp.type overrides it.", "LogAppendTime";
        log_message_timestamp_before_max_ms: i64, "log.message.timestamp.before.max.ms", Kafka, Kind::Time { unit: TimeUnit::Millis, min: 0, max: MS_MAX }, Some("9223372036854775807"),
            "How far a producer's timestamp may lie behind the broker's clock.", "604800000";
        log_message_timestamp_after_max_ms: i64, "log.message.timestamp.after.max.ms", Kafka, Kind::Time { unit: TimeUnit::Millis, min: 0, max: MS_MAX }, Some("3600000"),
            "How far a producer's timestamp may lie ahead of the broker's clock.", "3600000";
        log_segment_bytes: u64, "log.segment.bytes", Kafka, Kind::Bytes { min: 1 << 20, max: INT_MAX }, Some("1073741824"),
            "A segment is sealed when the next batch would make it larger. A topic's segment.bytes overrides it.", "268435456";
        log_roll_ms: Option<i64>, "log.roll.ms", Kafka, Kind::Time { unit: TimeUnit::Millis, min: 1, max: MS_MAX }, None,
            "A segment is sealed when its first record is this old. Not set: log.roll.hours. A topic's segment.ms overrides it.", "3600000";
        log_roll_hours: i64, "log.roll.hours", Kafka, Kind::Time { unit: TimeUnit::Hours, min: 1, max: INT_MAX }, Some("168"),
            "As log.roll.ms, which goes before it.", "24";
        log_index_interval_bytes: u64, "log.index.interval.bytes", Kafka, Kind::Bytes { min: 0, max: INT_MAX }, Some("4096"),
            "Bytes of batches between two entries of an offset index: smaller finds an offset with less reading, larger keeps less in memory.", "4096";
        log_index_size_max_bytes: u64, "log.index.size.max.bytes", Kafka, Kind::Bytes { min: 4, max: INT_MAX }, Some("10485760"),
            "Largest index of a segment; a full index seals the segment.", "10485760";
        producer_id_expiration_ms: i64, "producer.id.expiration.ms", Kafka, Kind::Time { unit: TimeUnit::Millis, min: 1, max: INT_MAX }, Some("86400000"),
            "An idempotent producer that wrote nothing for this long is forgotten, and with it what its duplicates would be compared to.", "86400000";
    }
    Retention {
        log_cleanup_policy: Vec<String>, "log.cleanup.policy", Kafka, Kind::Choices(&["delete", "compact"]), Some("delete"),
            "What becomes of old segments: delete removes them by age and size; compact refuses null keys and removes what newer records of the same key supersede. A topic's cleanup.policy overrides it.", "delete";
        log_retention_bytes: i64, "log.retention.bytes", Kafka, Kind::Bytes { min: -1, max: BYTES_MAX }, Some("-1"),
            "A partition larger than this loses its oldest segments; -1: no limit. A topic's retention.bytes overrides it.", "10737418240";
        log_retention_ms: Option<i64>, "log.retention.ms", Kafka, Kind::Time { unit: TimeUnit::Millis, min: -1, max: MS_MAX }, None,
            "A segment whose newest record is older is deleted; -1: never. Not set: log.retention.minutes, then log.retention.hours. A topic's retention.ms overrides it.", "86400000";
        log_retention_minutes: Option<i64>, "log.retention.minutes", Kafka, Kind::Time { unit: TimeUnit::Minutes, min: -1, max: INT_MAX }, None,
            "As log.retention.ms, which goes before it.", "1440";
        log_retention_hours: i64, "log.retention.hours", Kafka, Kind::Time { unit: TimeUnit::Hours, min: -1, max: INT_MAX }, Some("168"),
            "As log.retention.ms and log.retention.minutes, which go before it.", "168";
        log_retention_check_interval_ms: i64, "log.retention.check.interval.ms", Kafka, Kind::Time { unit: TimeUnit::Millis, min: 1, max: MS_MAX }, Some("300000"),
            "Time between two looks for segments to delete; changed settings of a topic are looked at when they come.", "300000";
        log_segment_delete_delay_ms: i64, "log.segment.delete.delay.ms", Kafka, Kind::Time { unit: TimeUnit::Millis, min: 0, max: MS_MAX }, Some("60000"),
            "Within about how long the disk space of removed segments comes back: in small steps, since much at once keeps flushes waiting. 0: at once. Names go as soon as no reader can need them; a topic's file.delete.delay.ms has no effect.", "60000";
    }
    Groups {
        group_initial_rebalance_delay_ms: i32, "group.initial.rebalance.delay.ms", Kafka, Kind::Int { min: 0, max: INT_MAX }, Some("0"),
            "How long an empty group waits for more members before its first generation, in milliseconds. Each that comes makes it wait again, up to its rebalance timeout. 0 as in the server.properties that Kafka ships; its code says 3000, which spares rebalances where many members start together.", "3000";
        group_min_session_timeout_ms: i32, "group.min.session.timeout.ms", Kafka, Kind::Int { min: 1, max: INT_MAX }, Some("6000"),
            "Shortest session timeout a member may ask for, in milliseconds.", "6000";
        group_max_session_timeout_ms: i32, "group.max.session.timeout.ms", Kafka, Kind::Int { min: 1, max: INT_MAX }, Some("1800000"),
            "Longest session timeout a member may ask for, in milliseconds.", "1800000";
        group_max_size: i32, "group.max.size", Kafka, Kind::Int { min: 1, max: INT_MAX }, Some("2147483647"),
            "Members of one group; a further one is refused.", "1000";
        group_consumer_session_timeout_ms: i32, "group.consumer.session.timeout.ms", Kafka, Kind::Int { min: 1, max: INT_MAX }, Some("45000"),
            "A member of a group of the consumer protocol (KIP-848) that says nothing for this long is out.", "45000";
        group_consumer_heartbeat_interval_ms: i32, "group.consumer.heartbeat.interval.ms", Kafka, Kind::Int { min: 1, max: INT_MAX }, Some("5000"),
            "How often members of groups of the consumer protocol are told to send heartbeats.", "5000";
        group_consumer_max_size: i32, "group.consumer.max.size", Kafka, Kind::Int { min: 1, max: INT_MAX }, Some("2147483647"),
            "Members of one group of the consumer protocol; a further one is refused.", "1000";
        group_consumer_migration_policy: Migration, "group.consumer.migration.policy", Kafka, Kind::AnyCase(&["bidirectional", "upgrade", "downgrade", "disabled"]), Some("bidirectional"),
            "Which way a group goes over with members: upgrade, from the classic to the consumer protocol, when the first member of the latter joins; downgrade, back, when the last one is gone. An empty group always takes the protocol of who comes.", "disabled";
        offset_metadata_max_bytes: i32, "offset.metadata.max.bytes", Kafka, Kind::Int { min: 0, max: INT_MAX }, Some("4096"),
            "Text that a consumer may store with an offset.", "4096";
        offsets_retention_minutes: i64, "offsets.retention.minutes", Kafka, Kind::Time { unit: TimeUnit::Minutes, min: 1, max: INT_MAX }, Some("10080"),
            "Offsets are forgotten this long after their group lost its last member, or after they were committed where there is no group.", "10080";
        offsets_retention_check_interval_ms: i64, "offsets.retention.check.interval.ms", Kafka, Kind::Time { unit: TimeUnit::Millis, min: 1, max: INT_MAX }, Some("600000"),
            "Time between two looks for offsets to forget.", "600000";
        offsets_topic_num_partitions: i32, "offsets.topic.num.partitions", Kafka, Kind::Int { min: 1, max: 10_000 }, Some("50"),
            "Partitions of __consumer_offsets when it is created; later only the topic counts.", "50";
        offsets_topic_segment_bytes: u64, "offsets.topic.segment.bytes", Kafka, Kind::Bytes { min: 1 << 20, max: INT_MAX }, Some("104857600"),
            "segment.bytes of __consumer_offsets when it is created.", "104857600";
    }
    Durability {
        log_flush_interval_messages: i64, "log.flush.interval.messages", Kafka, Kind::Int { min: 1, max: i64::MAX }, Some("1"),
            "1: an ack leaves after the flush that covers its records. Any larger number makes topics relaxed (only with relaxed.topics.enable): an ack leaves once its records are in a group that was handed to the disk. That group is flushed with the flush under way or the next one, however large the number, so a power cut can take what was acked during the last two flushes. A topic's flush.messages overrides it.", "1";
        log_flush_interval_ms: i64, "log.flush.interval.ms", Kafka, Kind::Time { unit: TimeUnit::Millis, min: 0, max: MS_MAX }, Some("1000"),
            "Kept and shown, without effect: records of relaxed topics are flushed with everything else as soon as the device allows, which is sooner than any interval. A topic's flush.ms is the same.", "1000";
        relaxed_topics_enable: bool, "relaxed.topics.enable", Ringmill, Kind::Bool, Some("false"),
            "Whether flush.messages above 1 has its effect. Off, the value is kept and shown, and the topic stays durable: tools copy Kafka's default, 9223372036854775807, without meaning it.", "true";
        flush_method: FlushMethod, "flush.method", Ringmill, Kind::Choice(&["auto", "fdatasync", "dsync"]), Some("auto"),
            "How a flush group becomes durable: a write with a linked fdatasync, or a write with RWF_DSYNC. auto starts on fdatasync. A device with a volatile write cache and no FUA keeps it; elsewhere the broker measures both at quiet moments and changes to dsync, at the next start, only where that was faster by a fifth or more with idle and with busy CPUs, in each of three rounds. The wrong one costs a factor of ten or more.", "auto";
        flush_depth: u32, "flush.depth", Ringmill, Kind::Int { min: 1, max: 64 }, Some("1"),
            "Flushes under way at one time on a core. 1 is best with fdatasync; devices with RWF_DSYNC through FUA may gain from 2 to 4.", "1";
        group_linger_us: u64, "group.linger.us", Ringmill, Kind::Time { unit: TimeUnit::Micros, min: 0, max: 1_000_000 }, Some("0"),
            "How long a flush group waits for company when no flush is under way. 0 sends the first one at once; the next collects what arrives meanwhile anyway.", "200";
        group_bytes: u64, "group.bytes", Ringmill, Kind::Bytes { min: 64 << 10, max: limits::GROUP_BYTES_MAX as i64 }, Some("4032KiB"),
            "A flush group is sealed when it holds this much. A larger batch travels alone. Smaller groups cost more flushes and more CPU under a heavy load; what comes while one is written and flushed waits less. Under a light load nothing changes.", "1MiB";
        core_log_bytes: Option<u64>, "core.log.bytes", Ringmill, Kind::Bytes { min: 16 << 20, max: 1 << 40 }, None,
            "Size of one core's log, a ring of recycled files. Not set: eight files of core.log.file.bytes. Larger gives destaging more slack and takes longer to replay.", "512MiB";
        core_log_file_bytes: Option<u64>, "core.log.file.bytes", Ringmill, Kind::Bytes { min: limits::CORE_LOG_FIRST_FILE_BYTES as i64, max: 4 << 30 }, None,
            "Size of one file of a core log; it bounds the largest batch. Not set: 64MiB, or what message.max.bytes asks for.", "64MiB";
        core_log_dir: Option<PathBuf>, "core.log.dir", Ringmill, Kind::Path, None,
            "Folder of the core logs, best on a device of its own: flushes then do not wait for destaged bytes. Not set: the data folder.", "/mnt/nvme1/ringmill";
    }
    Resources {
        cores: Option<String>, "cores", Ringmill, Kind::Cores, None,
            "Core threads: a count, or a list of CPUs to pin them to; the same as --cores. Not set: one for each CPU this process may run on. A count is not pinned, unless control.cpus or upkeep.cpus say which CPUs are not for cores.", "0-3";
        memory: Option<i64>, "memory", Ringmill, Kind::Bytes { min: 64 << 20, max: 1 << 42 }, None,
            "Bound on buffers, tail rings and caches of all cores; the same as --memory. Not set: 1 GiB, or a quarter of the memory where that is less.", "1GiB";
        tail_bytes: Option<u64>, "tail.bytes", Ringmill, Kind::Bytes { min: 8 << 20, max: 1 << 42 }, None,
            "Of the memory, what tail rings may take, all cores together: newest data, read from there. Not set: half.", "512MiB";
        cache_bytes: Option<u64>, "cache.bytes", Ringmill, Kind::Bytes { min: 1 << 20, max: 1 << 42 }, None,
            "Of the memory, what cached blocks of older data may take, all cores together. Not set: a quarter.", "256MiB";
        control_cpus: Option<Vec<usize>>, "control.cpus", Ringmill, Kind::Cpus, None,
            "CPUs of the control thread. Not set: any.", "0";
        upkeep_cpus: Option<Vec<usize>>, "upkeep.cpus", Ringmill, Kind::Cpus, None,
            "CPUs of the upkeep thread. Not set: any.", "3";
        features_off: Vec<String>, "features.off", Ringmill, Kind::Choices(FEATURES), Some(""),
            "Kernel features not to use although the kernel has them: to find out what one of them does, or to avoid a kernel bug.", "zero_copy,multishot_accept";
    }
    Upkeep {
        log_cleaner_backoff_ms: i64, "log.cleaner.backoff.ms", Kafka, Kind::Time { unit: TimeUnit::Millis, min: 0, max: MS_MAX }, Some("15000"),
            "Time between looks for a compacted partition that is worth a pass.", "1000";
        log_cleaner_bytes_per_second: u64, "log.cleaner.io.max.bytes.per.second", Kafka, Kind::Bytes { min: 1, max: 1 << 40 }, Some("64MiB"),
            "How fast compaction reads and writes, both together.", "16MiB";
        scrub_bytes_per_second: u64, "scrub.bytes.per.second", Ringmill, Kind::Bytes { min: 0, max: 1 << 40 }, Some("16MiB"),
            "How fast sealed segments are read to check the CRCs of their batches; 0 switches the scrub off.", "64MiB";
        scrub_interval_ms: i64, "scrub.interval.ms", Ringmill, Kind::Time { unit: TimeUnit::Millis, min: 1_000, max: MS_MAX }, Some("604800000"),
            "Time between two scrubs of the same segment; the first begins five minutes after the start, or after this time if that is less.", "7d";
    }
    Diagnostics {
        slow_request_ms: i64, "slow.request.ms", Ringmill, Kind::Time { unit: TimeUnit::Millis, min: 0, max: MS_MAX }, Some("1000"),
            "A request that takes longer from its last byte to the last byte of its answer is logged with where its time went, ten lines a second and core. What a Fetch waits for records within its max wait, and JoinGroup and SyncGroup for other members, does not count. 0 switches that off.", "200";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_and_example_obeys_its_own_row() {
        for key in KEYS {
            if let Some(default) = key.default {
                assert!(
                    key.parse(default).is_ok(),
                    "{}: default {default}: {:?}",
                    key.name,
                    key.parse(default)
                );
            }
            assert!(key.parse(key.example).is_ok(), "{}: example {}", key.name, key.example);
            assert!(key.effect.ends_with('.'), "{}: the effect is a sentence", key.name);
        }
    }

    #[test]
    fn features_off_names_what_the_reactor_knows() {
        use ringmill_reactor::ring::{HostFeature, RingFeatures};
        let of_rings = RingFeatures::ALL.list().into_iter().map(|(name, _)| name);
        let known: Vec<&str> =
            of_rings.chain(HostFeature::ALL.iter().map(|feature| feature.name())).collect();
        assert_eq!(FEATURES, known);
    }

    #[test]
    fn no_key_is_a_folder_of_another() {
        for key in KEYS {
            let folder = format!("{}.", key.name);
            let below: Vec<_> = KEYS.iter().filter(|other| other.name.starts_with(&folder)).collect();
            assert!(below.is_empty(), "TOML could not hold both {} and {below:?}", key.name);
            assert_eq!(KEYS.iter().filter(|other| other.name == key.name).count(), 1, "{}", key.name);
        }
    }

    /// Kafka 4.3.1 takes the words of one key in capitals too, of its other keys only as they are.
    #[test]
    fn words_are_in_capitals_where_kafka_takes_that() {
        let parsed = |name: &str, text: &str| {
            KEYS.iter().find(|key| key.name == name).expect("in the table").parse(text)
        };
        let policy = parsed("group.consumer.migration.policy", "Upgrade");
        assert_eq!(policy, Ok(Value::Text("upgrade".into())));
        assert!(parsed("group.consumer.migration.policy", "up").is_err());
        for (name, text) in
            [("log.message.timestamp.type", "logappendtime"), ("log.cleanup.policy", "COMPACT")]
        {
            assert!(parsed(name, text).is_err(), "{name}={text}");
        }
    }

    #[test]
    fn bounds_are_enforced_with_their_unit() {
        let key = KEYS.iter().find(|key| key.name == "group.bytes").expect("in the table");
        assert_eq!(key.parse("1KiB"), Err("1024 is below the minimum, 64KiB".into()));
        let default = i64::try_from(limits::GROUP_BYTES_DEFAULT).expect("fits");
        assert_eq!(key.parse(&key.default_text()), Ok(Value::Int(default)), "what plan and tune go by");
        let key = KEYS.iter().find(|key| key.name == "cores").expect("in the table");
        for good in ["4", "0-3", "0,2"] {
            assert!(key.parse(good).is_ok(), "{good}");
        }
        for bad in ["0", "none", "3-1", "1,1", "100000"] {
            assert!(key.parse(bad).is_err(), "{bad}");
        }
    }
}
