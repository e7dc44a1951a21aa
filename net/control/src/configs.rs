//! Topic configs: what is known, what is valid, what holds for a topic, and how DescribeConfigs shows it.
//!
//! Everything comes from the one table in [`table`]. A config that means nothing here is accepted, shown, and marked as
//! without effect; an unknown one is refused. Values are kept as the client wrote them and shown as Kafka shows them
//! (trimmed, numbers and booleans in their plain form). Sentences and codes are those of Kafka 4.3.1, asked on the wire.

pub mod dynamic;
pub mod groups;
mod table;

pub use dynamic::{DYNAMIC_CONFIGS, DynamicValues};
use ringmill_types::{Compression, Packing, TimestampType, TopicConfig};
use std::collections::BTreeMap;
pub use table::TOPIC_CONFIGS;

/// Kafka's `ConfigResource.Type`: what may have configs, with its code on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Topic = 2,
    Broker = 4,
    BrokerLogger = 8,
    ClientMetrics = 16,
    Group = 32,
}

impl Resource {
    pub const ALL: [Resource; 5] =
        [Resource::Topic, Resource::Broker, Resource::BrokerLogger, Resource::ClientMetrics, Resource::Group];

    /// `None` for a code that is none.
    pub fn of(code: i8) -> Option<Resource> {
        Resource::ALL.into_iter().find(|resource| *resource as i8 == code)
    }
}

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Valid {
    Any,
    AtLeast(i64),
    /// Both ends included.
    Range(i64, i64),
    /// The first, or between the other two.
    OneOrRange(i64, i64, i64),
    /// A number from 0 to 1.
    Fraction,
    OneOf(&'static [&'static str]),
    /// Every item of a list, which may be empty.
    EachOf(&'static [&'static str]),
    /// `*`, or `partition:broker` items.
    Replicas,
    /// Only false; the sentence answers true.
    Off(&'static str),
}

/// One topic config.
#[derive(Clone, Copy, Debug)]
pub struct ConfigDef {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub valid: Valid,
    /// Broker-level keys that set the default, each with the factor from its unit; the first that is set wins.
    pub broker_keys: &'static [(&'static str, i64)],
    /// Whether it does anything here.
    pub honoured: bool,
    pub doc: &'static str,
}

/// What the configuration file and the command line say.
#[derive(Clone, Debug, Default)]
pub struct BrokerDefaults {
    /// Broker-level keys that were set, by Kafka's names.
    pub values: BTreeMap<String, String>,
    pub allow_relaxed: bool,
    /// A larger `max.message.bytes` is refused: no core-log file, or no core, could hold such a batch. 0 is no bound.
    pub batch_bytes_max: u64,
    /// What was decided while running; goes before `values`.
    pub dynamic: DynamicValues,
}

/// Where a value comes from, with the code of DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    DynamicTopic = 1,
    DynamicBroker = 2,
    DynamicDefault = 3,
    StaticBroker = 4,
    Default = 5,
    BrokerLogger = 6,
    ClientMetrics = 7,
    Group = 8,
}

/// One config as DescribeConfigs shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    // Sorted by name; a test says so.
    let at = TOPIC_CONFIGS.binary_search_by(|def| def.name.cmp(name)).ok()?;
    TOPIC_CONFIGS.get(at)
}

/// Checks one override by itself. [`BrokerDefaults::check`] sees all of a topic's overrides together.
///
/// # Errors
/// A sentence in Kafka's words.
pub fn validate(name: &str, value: &str) -> Result<(), String> {
    let def = find(name).ok_or_else(|| unknown(name))?;
    validate_as(name, def.kind, def.valid, value)
}

/// Checks a value by a type and range, whatever the config is called.
fn validate_as(name: &str, kind: Kind, valid: Valid, value: &str) -> Result<(), String> {
    let invalid = |why: &str| format!("Invalid value {value} for configuration {name}: {why}");
    match kind {
        Kind::Int => {
            let number: i32 = value.trim().parse().map_err(|_| invalid("Not a number of type INT"))?;
            in_range(valid, i64::from(number)).map_err(|why| invalid(&why))
        }
        Kind::Long => {
            let number: i64 = value.trim().parse().map_err(|_| invalid("Not a number of type LONG"))?;
            in_range(valid, number).map_err(|why| invalid(&why))
        }
        Kind::Double => {
            match value.trim().parse::<f64>().map_err(|_| invalid("Not a number of type DOUBLE"))? {
                low if low < 0.0 => Err(invalid("Value must be at least 0")),
                high if high > 1.0 => Err(invalid("Value must be no more than 1")),
                _ => Ok(()),
            }
        }
        Kind::Bool => match (valid, parse_bool(value)) {
            (_, None) => Err(invalid("Expected value to be either true or false")),
            (Valid::Off(sentence), Some(true)) => Err(sentence.to_string()),
            _ => Ok(()),
        },
        Kind::Str => match valid {
            Valid::OneOf(words) if !words.contains(&value.trim()) => Err(invalid(&one_of(words))),
            _ => Ok(()),
        },
        Kind::List => valid_list(name, valid, value),
    }
}

fn unknown(name: &str) -> String {
    format!("Unknown topic config name: {name}")
}

fn one_of(words: &[&str]) -> String {
    format!("String must be one of: {}", words.join(", "))
}

fn in_range(valid: Valid, number: i64) -> Result<(), String> {
    match valid {
        Valid::AtLeast(least) | Valid::Range(least, _) if number < least => {
            Err(format!("Value must be at least {least}"))
        }
        Valid::Range(_, most) if number > most => Err(format!("Value must be no more than {most}")),
        Valid::OneOrRange(one, least, most) if number != one && !(least..=most).contains(&number) => {
            Err(format!("Value must be between {least} and {most} or equal to {one}"))
        }
        _ => Ok(()),
    }
}

fn valid_list(name: &str, valid: Valid, value: &str) -> Result<(), String> {
    let items = items(value);
    match valid {
        Valid::EachOf(words) => {
            if items.contains(&"") {
                return Err(format!("Configuration '{name}' values must not be empty."));
            }
            match items.iter().find(|item| !words.contains(item)) {
                Some(other) => {
                    Err(format!("Invalid value {other} for configuration {name}: {}", one_of(words)))
                }
                None => Ok(()),
            }
        }
        Valid::Replicas if value.trim() != "*" && !items.iter().all(|item| is_replica(item)) => Err(format!(
            "Invalid value [{}] for configuration {name}: {name} must be the literal '*' or a list of replicas in the \
             following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
            items.join(", ")
        )),
        _ => Ok(()),
    }
}

fn is_replica(item: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    item.split_once(':').is_some_and(|(partition, broker)| digits(partition) && digits(broker))
}

fn items(list: &str) -> Vec<&str> {
    let list = list.trim();
    if list.is_empty() { Vec::new() } else { list.split(',').map(str::trim).collect() }
}

fn parse_bool(text: &str) -> Option<bool> {
    let text = text.trim();
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    if is("true") { Some(true) } else { is("false").then_some(false) }
}

/// A valid value as Kafka shows it. What does not parse is shown as it is.
fn plain(kind: Kind, value: &str) -> String {
    let trimmed = value.trim();
    match kind {
        Kind::Int | Kind::Long => {
            trimmed.parse::<i64>().map_or_else(|_| value.to_string(), |n| n.to_string())
        }
        Kind::Double => trimmed.parse::<f64>().map_or_else(|_| value.to_string(), |n| format!("{n:?}")),
        Kind::Bool => parse_bool(value).map_or_else(|| value.to_string(), |yes| yes.to_string()),
        Kind::Str => trimmed.to_string(),
        Kind::List => items(value).join(","),
    }
}

/// A default with where it comes from.
struct Fallback {
    value: String,
    source: Source,
    /// The broker keys that say something, the strongest first, with what they say.
    given: Vec<(&'static str, String, Source)>,
}

impl BrokerDefaults {
    /// Checks all overrides of a topic, each by itself and against the others and this broker's bounds.
    ///
    /// # Errors
    /// A sentence in Kafka's words; an unknown name is reported before a bad value, as Kafka does.
    pub fn check(&self, overrides: &BTreeMap<String, String>) -> Result<(), String> {
        if let Some(name) = overrides.keys().find(|name| find(name).is_none()) {
            return Err(unknown(name));
        }
        for (name, value) in overrides {
            validate(name, value)?;
        }
        self.check_batch_bytes("max.message.bytes", overrides.get("max.message.bytes"))?;
        let (least, most) = (
            self.number_of("min.compaction.lag.ms", overrides),
            self.number_of("max.compaction.lag.ms", overrides),
        );
        if least > most {
            return Err(format!(
                "conflict topic config setting min.compaction.lag.ms ({least}) > max.compaction.lag.ms ({most})"
            ));
        }
        Ok(())
    }

    /// No batch may be larger than what this broker has room for, whichever config says how large it may be.
    fn check_batch_bytes(&self, name: &str, value: Option<&String>) -> Result<(), String> {
        let bytes = value.and_then(|value| value.trim().parse::<u64>().ok());
        match bytes.filter(|bytes| *bytes > self.largest_batch()) {
            None => Ok(()),
            Some(bytes) => Err(format!(
                "Invalid value {bytes} for configuration {name}: Value must be no more than {}: a batch has to fit a \
                 core-log file (core.log.file.bytes) and a quarter of a core's share of memory (memory)",
                self.largest_batch()
            )),
        }
    }

    fn largest_batch(&self) -> u64 {
        if self.batch_bytes_max == 0 { u64::MAX } else { self.batch_bytes_max }
    }

    /// The value of a topic config where the topic says nothing.
    fn fallback(&self, def: &ConfigDef) -> Fallback {
        let mut given = Vec::new();
        let mut in_force = None;
        let first = def.broker_keys.first().map_or("", |(key, _)| *key);
        for (value, source) in self.dynamic.layers(first) {
            in_force = in_force.or(Some((plain(def.kind, value), source)));
            given.push((first, value.clone(), source));
        }
        for (key, factor) in def.broker_keys {
            let Some(text) = self.values.get(*key) else { continue };
            let value = match (factor, text.trim().parse::<i64>()) {
                (1, _) | (_, Err(_)) => plain(def.kind, text),
                // Of hours and minutes, too: every negative number is "no bound".
                (_, Ok(n)) if n < 0 => "-1".to_string(),
                (factor, Ok(n)) => n.saturating_mul(*factor).to_string(),
            };
            in_force = in_force.or(Some((value, Source::StaticBroker)));
            given.push((key, text.clone(), Source::StaticBroker));
            break;
        }
        let (value, source) = in_force.unwrap_or_else(|| (def.default.to_string(), Source::Default));
        Fallback { value, source, given }
    }

    fn text_of(&self, name: &str, overrides: &BTreeMap<String, String>) -> String {
        let def = find(name).expect("callers name configs of the table");
        overrides.get(name).cloned().unwrap_or_else(|| self.fallback(def).value)
    }

    /// Overrides and broker keys are checked before they get here; one that is not a number yet counts as the default.
    fn number_of(&self, name: &str, overrides: &BTreeMap<String, String>) -> i64 {
        let default = || find(name).and_then(|def| def.default.parse().ok()).unwrap_or(0);
        self.text_of(name, overrides).trim().parse().unwrap_or_else(|_| default())
    }
}

/// What the cores go by.
pub fn effective(overrides: &BTreeMap<String, String>, defaults: &BrokerDefaults) -> TopicConfig {
    let number = |name: &str| defaults.number_of(name, overrides);
    let bytes = |name: &str, least: u64| u64::try_from(number(name)).unwrap_or(0).max(least);
    let policy = defaults.text_of("cleanup.policy", overrides);
    let policy = items(&policy);
    let stamped_here = defaults.text_of("message.timestamp.type", overrides).trim() == "LogAppendTime";
    TopicConfig {
        flush_messages: if defaults.allow_relaxed { number("flush.messages").max(1) } else { 1 },
        flush_ms: number("flush.ms"),
        segment_bytes: bytes("segment.bytes", 1),
        segment_ms: number("segment.ms"),
        index_interval_bytes: bytes("index.interval.bytes", 0),
        // One entry of each index at least.
        segment_index_bytes: bytes("segment.index.bytes", 12),
        retention_bytes: number("retention.bytes"),
        retention_ms: number("retention.ms"),
        file_delete_delay_ms: number("file.delete.delay.ms"),
        // Capped here as well: the topic may be older than the broker's present core-log files.
        max_message_bytes: bytes("max.message.bytes", 0).min(defaults.largest_batch()),
        stored_as: packing(overrides, defaults),
        timestamp_type: if stamped_here { TimestampType::LogAppendTime } else { TimestampType::CreateTime },
        timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
        timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
        compacted: policy.contains(&"compact"),
        delete: policy.contains(&"delete"),
        min_cleanable_dirty_ppm: millionths(&defaults.text_of("min.cleanable.dirty.ratio", overrides)),
        min_compaction_lag_ms: number("min.compaction.lag.ms"),
        max_compaction_lag_ms: number("max.compaction.lag.ms"),
        delete_retention_ms: number("delete.retention.ms"),
    }
}

/// `compression.type` and the level that goes with it.
fn packing(overrides: &BTreeMap<String, String>, defaults: &BrokerDefaults) -> Option<Packing> {
    let compression = Compression::of_topic(defaults.text_of("compression.type", overrides).trim())?;
    let level = |name: &str| i32::try_from(defaults.number_of(name, overrides)).ok();
    let level = match compression {
        // -1 is its default, as zlib has it.
        Compression::Gzip => level("compression.gzip.level").filter(|level| *level > 0),
        Compression::Zstd => level("compression.zstd.level"),
        Compression::None | Compression::Snappy | Compression::Lz4 => None,
    };
    Some(Packing { compression, level })
}

/// A fraction that was checked before it got here; Kafka's default for anything else.
fn millionths(fraction: &str) -> u32 {
    let fraction = fraction.trim().parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    (fraction.unwrap_or(0.5) * 1e6).round() as u32
}

/// All configs of a topic, by name.
pub fn describe_topic(overrides: &BTreeMap<String, String>, defaults: &BrokerDefaults) -> Vec<Described> {
    TOPIC_CONFIGS.iter().map(|def| describe(def, overrides.get(def.name), defaults)).collect()
}

fn describe(def: &'static ConfigDef, own: Option<&String>, defaults: &BrokerDefaults) -> Described {
    let fallback = defaults.fallback(def);
    let mut synonyms = Vec::new();
    if let Some(value) = own {
        synonyms.push((def.name.to_string(), Some(plain(def.kind, value)), Source::DynamicTopic));
    }
    for (key, value, source) in fallback.given {
        synonyms.push((key.to_string(), Some(plain(def.kind, &value)), source));
    }
    if let Some((key, _)) = def.broker_keys.first() {
        synonyms.push((key.to_string(), Some(def.default.to_string()), Source::Default));
    }
    let (value, source) = match own {
        Some(value) => (plain(def.kind, value), Source::DynamicTopic),
        None => (fallback.value, fallback.source),
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
}

/// The broker's own configs, by name: `settings` (every key in force, with its value), the broker keys behind topic
/// configs, and those that only exist while running.
pub fn describe_broker(
    defaults: &BrokerDefaults,
    settings: &[(String, String)],
    node_id: i32,
) -> Vec<Described> {
    let mut rows: BTreeMap<&str, (Kind, String, &'static str)> = BTreeMap::new();
    for def in TOPIC_CONFIGS {
        let Some((key, _)) = def.broker_keys.first() else { continue };
        rows.insert(key, (def.kind, def.default.to_string(), def.doc));
    }
    for def in DYNAMIC_CONFIGS {
        rows.insert(def.name, (def.kind, def.default.to_string(), def.doc));
    }
    let pairs = settings.iter().map(|(name, value)| (name.as_str(), value));
    for (name, value) in pairs.chain(defaults.values.iter().map(|(name, value)| (name.as_str(), value))) {
        let kind = table::BROKER_KINDS.iter().find(|(key, _)| *key == name).map(|(_, kind)| *kind);
        rows.entry(name).or_insert_with(|| (kind.unwrap_or(Kind::Str), value.clone(), ""));
    }
    let node = node_id.to_string();
    let mut all: Vec<Described> = Vec::new();
    for name in ["node.id", "broker.id"] {
        rows.insert(name, (Kind::Int, node.clone(), "Number of this broker."));
    }
    for (name, (kind, default, doc)) in rows {
        all.push(broker_row(defaults, name, kind, default, doc));
    }
    all
}

fn broker_row(
    defaults: &BrokerDefaults,
    name: &str,
    kind: Kind,
    default: String,
    doc: &'static str,
) -> Described {
    let dynamic = dynamic::find(name);
    let mut synonyms: Vec<(String, Option<String>, Source)> = Vec::new();
    let layers = defaults.dynamic.layers(name).map(|(value, source)| (plain(kind, value), source));
    let given = match dynamic {
        // Behind some of these are keys of another unit.
        Some(dynamic::Dynamic::Topic(def)) => defaults.fallback(def).given,
        Some(dynamic::Dynamic::Broker(_)) | None => Vec::new(),
    };
    if given.is_empty() {
        synonyms.extend(layers.map(|(value, source)| (name.to_string(), Some(value), source)));
        let named = matches!(name, "node.id" | "broker.id");
        if let Some(value) = defaults.values.get(name).or(named.then_some(&default)) {
            synonyms.push((name.to_string(), Some(plain(kind, value)), Source::StaticBroker));
        }
    } else {
        synonyms.extend(
            given
                .into_iter()
                .map(|(key, value, source)| (key.to_string(), Some(plain(kind, &value)), source)),
        );
    }
    let fixed = matches!(name, "node.id" | "broker.id");
    if !fixed && (dynamic.is_some() || !defaults.values.contains_key(name)) {
        synonyms.push((name.to_string(), Some(default.clone()), Source::Default));
    }
    let source = synonyms.first().map_or(Source::Default, |(_, _, source)| *source);
    let value = match dynamic {
        Some(dynamic::Dynamic::Topic(def)) => defaults.fallback(def).value,
        Some(dynamic::Dynamic::Broker(_)) | None => {
            synonyms.first().and_then(|(_, value, _)| value.clone()).unwrap_or(default)
        }
    };
    Described {
        name: name.to_string(),
        value: Some(value),
        source,
        is_default: source == Source::Default,
        kind_code: kind as i8,
        doc,
        synonyms,
        read_only: dynamic.is_none(),
        sensitive: false,
    }
}

/// The dynamic configs of all brokers of the cluster, by themselves.
pub fn describe_cluster(defaults: &BrokerDefaults) -> Vec<Described> {
    let each = defaults.dynamic.cluster.iter().filter_map(|(name, value)| {
        let kind = dynamic::find(name)?.kind();
        let value = plain(kind, value);
        Some(Described {
            name: name.clone(),
            value: Some(value.clone()),
            source: Source::DynamicDefault,
            is_default: false,
            kind_code: kind as i8,
            doc: "",
            synonyms: vec![(name.clone(), Some(value), Source::DynamicDefault)],
            read_only: false,
            sensitive: false,
        })
    });
    each.collect()
}

#[cfg(test)]
mod tests;
