//! Topic configs: Kafka 4.3's names, types, defaults and ranges in one table, and what this broker makes of them.
//!
//! A config that means nothing here is accepted, shown and marked as not honoured; an unknown one is refused.

use ringmill_types::{TimestampType, TopicConfig};
use std::collections::BTreeMap;

/// Kafka's `ConfigDef.Type`, with the code of DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool = 1,
    Str = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Valid {
    Any,
    AtLeast(i64),
    Between(f64, f64),
    OneOf(&'static [&'static str]),
    /// Every item of a list.
    EachOf(&'static [&'static str]),
}

/// One topic config.
#[derive(Clone, Copy, Debug)]
pub struct ConfigDef {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    /// Broker-level key that sets the default.
    pub broker_key: &'static str,
    pub honoured: bool,
    pub doc: &'static str,
    pub valid: Valid,
}

macro_rules! configs {
    ($($name:literal $kind:ident $default:literal $broker:literal $honoured:literal $valid:expr, $doc:literal;)*) => {
        /// The table.
        pub static TOPIC_CONFIGS: &[ConfigDef] = &[$(ConfigDef {
            name: $name, kind: Kind::$kind, default: $default, broker_key: $broker, honoured: $honoured, doc: $doc, valid: $valid,
        }),*];
    };
}


configs! {
    "cleanup.policy" List "delete" "log.cleanup.policy" true Valid::EachOf(&["compact", "delete"]), "delete discards old segments by time and size; compact refuses records without a key.";
    "compression.gzip.level" Int "-1" "compression.gzip.level" false Valid::AtLeast(-1), "Level of broker-side gzip; batches pass through as the producer made them.";
    "compression.lz4.level" Int "9" "compression.lz4.level" false Valid::AtLeast(1), "Level of broker-side lz4; batches pass through as the producer made them.";
    "compression.type" Str "producer" "compression.type" false Valid::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), "Batches keep the producer's compression.";
    "compression.zstd.level" Int "3" "compression.zstd.level" false Valid::AtLeast(-131_072), "Level of broker-side zstd; batches pass through as the producer made them.";
    "delete.retention.ms" Long "86400000" "log.cleaner.delete.retention.ms" false Valid::AtLeast(0), "How long compaction keeps delete markers.";
    "file.delete.delay.ms" Long "60000" "log.segment.delete.delay.ms" false Valid::AtLeast(0), "Files go as soon as no reader can need them.";
    "flush.messages" Long "1" "log.flush.interval.messages" true Valid::AtLeast(1), "1 acks after the flush. Larger values ack earlier, where the broker allows relaxed topics.";
    "flush.ms" Long "1000" "log.flush.interval.ms" true Valid::AtLeast(0), "The longest that an acked record of a relaxed topic may stay unflushed.";
    "follower.replication.throttled.replicas" List "" "follower.replication.throttled.replicas" false Valid::Any, "No replicas yet.";
    "index.interval.bytes" Int "4096" "log.index.interval.bytes" true Valid::AtLeast(0), "Bytes of batches between two index entries.";
    "leader.replication.throttled.replicas" List "" "leader.replication.throttled.replicas" false Valid::Any, "No replicas yet.";
    "local.retention.bytes" Long "-2" "log.local.retention.bytes" false Valid::AtLeast(-2), "No tiered storage.";
    "local.retention.ms" Long "-2" "log.local.retention.ms" false Valid::AtLeast(-2), "No tiered storage.";
    "max.compaction.lag.ms" Long "9223372036854775807" "log.cleaner.max.compaction.lag.ms" false Valid::AtLeast(1), "Longest time before a record may be compacted.";
    "max.message.bytes" Int "1048588" "message.max.bytes" true Valid::AtLeast(0), "Largest batch the topic takes.";
    "message.timestamp.after.max.ms" Long "3600000" "log.message.timestamp.after.max.ms" true Valid::AtLeast(0), "How far ahead of the broker's clock a timestamp may be.";
    "message.timestamp.before.max.ms" Long "9223372036854775807" "log.message.timestamp.before.max.ms" true Valid::AtLeast(0), "How far behind the broker's clock a timestamp may be.";
    "message.timestamp.type" Str "CreateTime" "log.message.timestamp.type" true Valid::OneOf(&["CreateTime", "LogAppendTime"]), "Who sets a record's timestamp.";
    "min.cleanable.dirty.ratio" Double "0.5" "log.cleaner.min.cleanable.ratio" false Valid::Between(0.0, 1.0), "How much of a log must be dirty before it is compacted.";
    "min.compaction.lag.ms" Long "0" "log.cleaner.min.compaction.lag.ms" false Valid::AtLeast(0), "How long a record stays uncompacted at least.";
    "min.insync.replicas" Int "1" "min.insync.replicas" false Valid::AtLeast(1), "One replica, always in sync.";
    "preallocate" Bool "false" "log.preallocate" false Valid::Any, "Segments are always allocated ahead.";
    "remote.copy.disable" Bool "false" "" false Valid::Any, "No tiered storage.";
    "remote.log.delete.on.disable" Bool "false" "" false Valid::Any, "No tiered storage.";
    "remote.storage.enable" Bool "false" "" false Valid::Any, "No tiered storage.";
    "retention.bytes" Long "-1" "log.retention.bytes" true Valid::AtLeast(-1), "Size of a partition above which its oldest segments go; -1 for no bound.";
    "retention.ms" Long "604800000" "log.retention.ms" true Valid::AtLeast(-1), "Age above which segments go; -1 for no bound.";
    "segment.bytes" Int "1073741824" "log.segment.bytes" true Valid::AtLeast(1_048_576), "Size at which a segment is sealed.";
    "segment.index.bytes" Int "10485760" "log.index.size.max.bytes" true Valid::AtLeast(4), "Size of an index at which its segment is sealed.";
    "segment.jitter.ms" Long "0" "log.roll.jitter.ms" false Valid::AtLeast(0), "Random part of segment.ms; not needed, destaging is spread.";
    "segment.ms" Long "604800000" "log.roll.ms" true Valid::AtLeast(1), "Age at which a segment is sealed.";
    "unclean.leader.election.enable" Bool "false" "unclean.leader.election.enable" false Valid::Any, "One replica.";
}

/// What the configuration file and the command line say.
#[derive(Clone, Debug, Default)]
pub struct BrokerDefaults {
    /// Broker-level keys that were set, by Kafka's names.
    pub values: BTreeMap<String, String>,
    pub allow_relaxed: bool,
    /// A larger `max.message.bytes` is capped: no core-log file could hold such a batch.
    pub batch_bytes_max: u64,
}

/// Where a value comes from, with the code of DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    DynamicTopic = 1,
    StaticBroker = 4,
    Default = 5,
}

/// One config as DescribeConfigs shows it.
#[derive(Clone, Debug)]
pub struct Described {
    pub name: String,
    pub value: Option<String>,
    pub source: Source,
    pub is_default: bool,
    pub kind_code: i8,
    pub doc: &'static str,
    pub synonyms: Vec<(String, Option<String>, Source)>,
    pub read_only: bool,
    pub sensitive: bool,
}

pub fn find(name: &str) -> Option<&'static ConfigDef> {
    TOPIC_CONFIGS.iter().find(|c| c.name == name)
}

/// Checks one override.
///
/// # Errors
/// A sentence in Kafka's words.
pub fn validate(name: &str, value: &str) -> Result<(), String> {
    let def = find(name).ok_or_else(|| format!("Unknown topic config name: {name}"))?;
    let invalid = |why: String| Err(format!("Invalid value {value} for configuration {name}: {why}"));
    let number = match def.kind {
        Kind::Int => match value.trim().parse::<i32>() {
            Ok(number) => Some(f64::from(number)),
            Err(_) => return invalid("Not a number of type INT".into()),
        },
        Kind::Long => match value.trim().parse::<i64>() {
            Ok(number) => Some(number as f64),
            Err(_) => return invalid("Not a number of type LONG".into()),
        },
        Kind::Double => match value.trim().parse::<f64>() {
            Ok(number) => Some(number),
            Err(_) => return invalid("Not a number of type DOUBLE".into()),
        },
        Kind::Bool if value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false") => None,
        Kind::Bool => return invalid("Expected value to be either true or false".into()),
        Kind::Str | Kind::List => None,
    };
    match (def.valid, number) {
        (Valid::AtLeast(min), Some(number)) if number < min as f64 => invalid(format!("Value must be at least {min}")),
        (Valid::Between(min, max), Some(number)) if !(min..=max).contains(&number) => invalid(format!("Value must be between {min} and {max}")),
        (Valid::OneOf(values), _) if !values.contains(&value) => invalid(format!("String must be one of: {}", values.join(", "))),
        (Valid::EachOf(values), _) => match value.split(',').map(str::trim).find(|v| !v.is_empty() && !values.contains(v)) {
            Some(other) => Err(format!("Invalid value {other} for configuration {name}: String must be one of: {}", values.join(", "))),
            None => Ok(()),
        },
        (Valid::Any | Valid::AtLeast(_) | Valid::Between(..) | Valid::OneOf(_), _) => Ok(()),
    }
}

impl BrokerDefaults {
    /// The value of a topic config where the topic says nothing, and whether the broker's configuration set it.
    fn default_of(&self, def: &ConfigDef) -> (String, Source) {
        if let Some(value) = self.values.get(def.broker_key) {
            return (value.clone(), Source::StaticBroker);
        }
        let larger = match def.name {
            "retention.ms" => self.in_ms("log.retention.minutes", 60_000).or_else(|| self.in_ms("log.retention.hours", 3_600_000)),
            "segment.ms" => self.in_ms("log.roll.hours", 3_600_000),
            _ => None,
        };
        larger.map_or_else(|| (def.default.to_string(), Source::Default), |value| (value, Source::StaticBroker))
    }

    fn in_ms(&self, key: &str, unit_ms: i64) -> Option<String> {
        let value: i64 = self.values.get(key)?.parse().ok()?;
        Some(if value < 0 { -1 } else { value.saturating_mul(unit_ms) }.to_string())
    }
}

/// What the cores go by.
pub fn effective(overrides: &BTreeMap<String, String>, defaults: &BrokerDefaults) -> TopicConfig {
    let text = |name: &str| -> String {
        let def = find(name).expect("the names below are in the table");
        overrides.get(name).cloned().unwrap_or_else(|| defaults.default_of(def).0)
    };
    let number = |name: &str| -> i64 { text(name).trim().parse().unwrap_or_else(|_| find(name).and_then(|d| d.default.parse().ok()).unwrap_or(0)) };
    let policy = text("cleanup.policy");
    let has = |word: &str| policy.split(',').any(|p| p.trim() == word);
    let largest = if defaults.batch_bytes_max == 0 { u64::MAX } else { defaults.batch_bytes_max };
    TopicConfig {
        flush_messages: if defaults.allow_relaxed { number("flush.messages").max(1) } else { 1 },
        flush_ms: number("flush.ms"),
        segment_bytes: number("segment.bytes").max(1) as u64,
        segment_ms: number("segment.ms"),
        index_interval_bytes: number("index.interval.bytes").max(0) as u64,
        segment_index_bytes: number("segment.index.bytes").max(12) as u64,
        retention_bytes: number("retention.bytes"),
        retention_ms: number("retention.ms"),
        file_delete_delay_ms: number("file.delete.delay.ms"),
        max_message_bytes: (number("max.message.bytes").max(0) as u64).min(largest),
        timestamp_type: if text("message.timestamp.type") == "LogAppendTime" { TimestampType::LogAppendTime } else { TimestampType::CreateTime },
        timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
        timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
        compacted: has("compact"),
        delete: has("delete"),
    }
}

/// All configs of a topic, by name.
pub fn describe_topic(overrides: &BTreeMap<String, String>, defaults: &BrokerDefaults) -> Vec<Described> {
    let describe = |def: &ConfigDef| {
        let (fallback, fallback_source) = defaults.default_of(def);
        let mut synonyms = Vec::new();
        if let Some(value) = overrides.get(def.name) {
            synonyms.push((def.name.to_string(), Some(value.clone()), Source::DynamicTopic));
        }
        if fallback_source == Source::StaticBroker {
            synonyms.push((def.broker_key.to_string(), Some(fallback.clone()), Source::StaticBroker));
        }
        if !def.broker_key.is_empty() {
            synonyms.push((def.broker_key.to_string(), Some(def.default.to_string()), Source::Default));
        }
        let (value, source) = match overrides.get(def.name) {
            Some(value) => (value.clone(), Source::DynamicTopic),
            None => (fallback, fallback_source),
        };
        Described {
            name: def.name.to_string(),
            value: Some(value),
            source,
            is_default: source == Source::Default,
            kind_code: def.kind as i8,
            doc: def.doc,
            synonyms,
            read_only: false,
            sensitive: false,
        }
    };
    TOPIC_CONFIGS.iter().map(describe).collect()
}

/// The broker's own configs: what its file and command line set, and the defaults of topics.
pub fn describe_broker(defaults: &BrokerDefaults, node_id: i32) -> Vec<Described> {
    let mut all: BTreeMap<String, (String, Source, Kind, &'static str)> = BTreeMap::new();
    for def in TOPIC_CONFIGS.iter().filter(|d| !d.broker_key.is_empty()) {
        let (value, source) = defaults.default_of(def);
        all.insert(def.broker_key.to_string(), (value, source, def.kind, def.doc));
    }
    for (name, value) in &defaults.values {
        all.entry(name.clone()).or_insert((value.clone(), Source::StaticBroker, Kind::Str, ""));
    }
    all.insert("node.id".into(), (node_id.to_string(), Source::StaticBroker, Kind::Int, "Number of this node."));
    all.insert("broker.id".into(), (node_id.to_string(), Source::StaticBroker, Kind::Int, "Number of this node."));
    let described = all.into_iter().map(|(name, (value, source, kind, doc))| Described {
        synonyms: vec![(name.clone(), Some(value.clone()), source)],
        name,
        value: Some(value),
        source,
        is_default: source == Source::Default,
        kind_code: kind as i8,
        doc,
        read_only: true,
        sensitive: false,
    });
    described.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: &str = "9223372036854775807";

    #[test]
    fn every_default_is_valid_and_matches_the_type() {
        for def in TOPIC_CONFIGS {
            assert_eq!(validate(def.name, def.default), Ok(()), "{}", def.name);
        }
        assert_eq!(effective(&BTreeMap::new(), &BrokerDefaults::default()), TopicConfig::default());
        assert!(TOPIC_CONFIGS.is_sorted_by_key(|d| d.name), "shown by name");
        assert_eq!(MAX.parse(), Ok(i64::MAX));
    }

    #[test]
    fn relaxed_topics_need_the_brokers_consent() {
        let overrides = BTreeMap::from([("flush.messages".to_string(), MAX.to_string())]);
        let mut defaults = BrokerDefaults::default();
        assert!(effective(&overrides, &defaults).is_durable());
        defaults.allow_relaxed = true;
        assert!(!effective(&overrides, &defaults).is_durable());
    }
}
