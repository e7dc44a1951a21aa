//! Configs of groups (KIP-848) and of client-metrics subscriptions (KIP-714): the tables, and what is valid.

use super::{Described, Kind, Source, Valid, plain, validate_as};
use ringmill_types::ErrorCode;
use std::collections::BTreeMap;

/// One config of a group.
#[derive(Clone, Copy, Debug)]
pub struct GroupDef {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub valid: Valid,
    /// Broker keys of the least and the greatest value, with what they are.
    pub bounds: Option<(&'static str, i64, &'static str, i64)>,
    pub doc: &'static str,
}

macro_rules! group {
    ($($name:literal: $kind:ident = $default:literal, $valid:expr, $bounds:expr, $doc:literal;)*) => {
        /// All of them, by name.
        pub static GROUP_CONFIGS: &[GroupDef] = &[$(GroupDef {
            name: $name,
            kind: Kind::$kind,
            default: $default,
            valid: $valid,
            bounds: $bounds,
            doc: $doc,
        }),*];
    };
}

const ANY: Valid = Valid::Any;

group! {
    "consumer.assignment.interval.ms": Int = "1000", Valid::AtLeast(0), Some(("group.consumer.min.assignment.interval.ms", 0, "group.consumer.max.assignment.interval.ms", 15_000)),
        "No effect: a target is made with the change that calls for it, which makes it part of the same write.";
    "consumer.heartbeat.interval.ms": Int = "5000", Valid::AtLeast(1), Some(("group.consumer.min.heartbeat.interval.ms", 5_000, "group.consumer.max.heartbeat.interval.ms", 15_000)),
        "The heartbeat interval given to the members of a consumer group.";
    "consumer.session.timeout.ms": Int = "45000", Valid::AtLeast(1), Some(("group.consumer.min.session.timeout.ms", 45_000, "group.consumer.max.session.timeout.ms", 60_000)),
        "The timeout to detect client failures when using the consumer group protocol.";
    "share.assignment.interval.ms": Int = "1000", ANY, None, "No effect: there are no share groups.";
    "share.auto.offset.reset": Str = "latest", ANY, None, "No effect: there are no share groups.";
    "share.delivery.count.limit": Int = "5", ANY, None, "No effect: there are no share groups.";
    "share.heartbeat.interval.ms": Int = "5000", ANY, None, "No effect: there are no share groups.";
    "share.isolation.level": Str = "read_uncommitted", Valid::OneOf(&["read_committed", "read_uncommitted"]), None, "No effect: there are no share groups.";
    "share.partition.max.record.locks": Int = "2000", ANY, None, "No effect: there are no share groups.";
    "share.record.lock.duration.ms": Int = "30000", ANY, None, "No effect: there are no share groups.";
    "share.renew.acknowledge.enable": Bool = "true", ANY, None, "No effect: there are no share groups.";
    "share.session.timeout.ms": Int = "45000", ANY, None, "No effect: there are no share groups.";
    "streams.assignment.interval.ms": Int = "1000", ANY, None, "No effect: there are no streams groups.";
    "streams.heartbeat.interval.ms": Int = "5000", ANY, None, "No effect: there are no streams groups.";
    "streams.initial.rebalance.delay.ms": Int = "3000", ANY, None, "No effect: there are no streams groups.";
    "streams.num.standby.replicas": Int = "0", ANY, None, "No effect: there are no streams groups.";
    "streams.session.timeout.ms": Int = "45000", ANY, None, "No effect: there are no streams groups.";
}

/// Checks the configs of a group.
///
/// # Errors
/// A sentence in Kafka's words.
pub fn check_group(configs: &BTreeMap<String, String>) -> Result<(), String> {
    for (name, value) in configs {
        let def = GROUP_CONFIGS.iter().find(|def| def.name == name);
        let def = def.ok_or_else(|| format!("Unknown group config name: {name}"))?;
        validate_as(name, def.kind, def.valid, value)?;
        let (Some((low_key, low, high_key, high)), Ok(number)) = (def.bounds, value.trim().parse::<i64>())
        else {
            continue;
        };
        if number < low {
            return Err(format!("{name} must be greater than or equal to {low_key}"));
        }
        if number > high {
            return Err(format!("{name} must be less than or equal to {high_key}"));
        }
    }
    Ok(())
}

/// All configs of a group, set or not.
pub fn describe_group(configs: Option<&BTreeMap<String, String>>) -> Vec<Described> {
    let each = GROUP_CONFIGS.iter().map(|def| {
        let own = configs.and_then(|configs| configs.get(def.name)).map(|value| plain(def.kind, value));
        let own_row = own.iter().map(|value| (def.name.to_string(), Some(value.clone()), Source::Group));
        // Only group.* keys of the broker stand behind a default; those of share groups alone have none.
        let key = match def.name {
            "share.auto.offset.reset" | "share.isolation.level" | "share.renew.acknowledge.enable" => {
                def.name.to_string()
            }
            name => format!("group.{name}"),
        };
        let synonyms = own_row.chain([(key, Some(def.default.to_string()), Source::Default)]).collect();
        row(def.name, def.kind, def.doc, own, def.default, Source::Group, synonyms)
    });
    each.collect()
}

/// Name, type, default, sentence.
const METRICS_CONFIGS: [(&str, Kind, &str, &str); 3] = [
    ("interval.ms", Kind::Int, "300000", "Metrics push interval in milliseconds"),
    ("match", Kind::List, "", "Client match criteria"),
    ("metrics", Kind::List, "", "Telemetry metric name prefix list"),
];

/// What `match` may look at.
const MATCHED: [&str; 6] = [
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

/// Checks the configs of a client-metrics subscription.
///
/// # Errors
/// Kafka's code and words.
pub fn check_metrics(configs: &BTreeMap<String, String>) -> Result<(), (ErrorCode, String)> {
    for (name, value) in configs {
        match name.as_str() {
            "interval.ms" => {
                validate_as(name, Kind::Int, Valid::Any, value)
                    .map_err(|why| (ErrorCode::InvalidConfig, why))?;
                if !value.trim().parse::<i64>().is_ok_and(|ms| (100..=3_600_000).contains(&ms)) {
                    let range = "interval must be between 100 and 3600000 (1 hour)";
                    let why = format!("Invalid value {value} for interval.ms, {range}");
                    return Err((ErrorCode::InvalidRequest, why));
                }
            }
            "match" => {
                for pattern in value.split(',').map(str::trim).filter(|pattern| !pattern.is_empty()) {
                    let known =
                        pattern.split_once('=').is_some_and(|(what, _)| MATCHED.contains(&what.trim()));
                    if !known {
                        let why = format!("Illegal client matching pattern: {pattern}");
                        return Err((ErrorCode::InvalidConfig, why));
                    }
                }
            }
            "metrics" => {}
            _ => {
                let why = format!("Unknown client metrics configuration: {name}");
                return Err((ErrorCode::InvalidRequest, why));
            }
        }
    }
    Ok(())
}

/// All configs of a client-metrics subscription, set or not.
pub fn describe_metrics(configs: Option<&BTreeMap<String, String>>) -> Vec<Described> {
    let each = METRICS_CONFIGS.iter().map(|(name, kind, default, doc)| {
        let own = configs.and_then(|configs| configs.get(*name)).map(|value| plain(*kind, value));
        let synonyms =
            own.iter().map(|value| (name.to_string(), Some(value.clone()), Source::ClientMetrics)).collect();
        row(name, *kind, doc, own, default, Source::ClientMetrics, synonyms)
    });
    each.collect()
}

fn row(
    name: &str,
    kind: Kind,
    doc: &'static str,
    own: Option<String>,
    default: &str,
    set: Source,
    synonyms: Vec<(String, Option<String>, Source)>,
) -> Described {
    let source = if own.is_some() { set } else { Source::Default };
    Described {
        name: name.to_string(),
        value: Some(own.unwrap_or_else(|| default.to_string())),
        source,
        is_default: source == Source::Default,
        kind_code: kind as i8,
        doc,
        synonyms,
        read_only: false,
        sensitive: false,
    }
}
