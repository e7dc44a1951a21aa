#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

const NEVER: &str = "9223372036854775807";

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn broker(pairs: &[(&str, &str)]) -> BrokerDefaults {
    BrokerDefaults { values: map(pairs), ..BrokerDefaults::default() }
}

fn shown(overrides: &[(&str, &str)], defaults: &BrokerDefaults, name: &str) -> Described {
    describe_topic(&map(overrides), defaults).into_iter().find(|d| d.name == name).unwrap()
}

/// (value, source, synonyms) in a form that fits a line.
fn brief(described: &Described) -> String {
    let synonyms = described.synonyms.iter().map(|(name, value, source)| {
        format!("{name}={} ({})", value.as_deref().unwrap_or("-"), *source as i8)
    });
    format!(
        "{} ({}): {}",
        described.value.as_deref().unwrap_or("-"),
        described.source as i8,
        synonyms.collect::<Vec<_>>().join(", ")
    )
}

#[test]
fn the_table_is_sorted_valid_and_agrees_with_the_types() {
    for def in TOPIC_CONFIGS {
        assert_eq!(validate(def.name, def.default), Ok(()), "{}", def.name);
        assert_eq!(plain(def.kind, def.default), def.default, "{}: shown as it stands", def.name);
        assert_eq!(find(def.name).map(|d| d.name), Some(def.name));
        assert!(def.doc.ends_with('.'), "{}", def.name);
        assert_eq!(
            def.honoured,
            !def.doc.contains("No effect") && def.name != "remote.storage.enable",
            "{}",
            def.name
        );
    }
    assert!(TOPIC_CONFIGS.is_sorted_by(|a, b| a.name < b.name));
    assert_eq!(effective(&BTreeMap::new(), &BrokerDefaults::default()), TopicConfig::default());
}

/// What Kafka 4.3.1 lists for a topic without overrides: name, default, type code, first synonym (none where the default
/// of the broker key is null). flush.messages and flush.ms differ on purpose.
const KAFKA: &str = "\
cleanup.policy delete 7 log.cleanup.policy
compression.gzip.level -1 3 compression.gzip.level
compression.lz4.level 9 3 compression.lz4.level
compression.type producer 2 compression.type
compression.zstd.level 3 3 compression.zstd.level
delete.retention.ms 86400000 5 log.cleaner.delete.retention.ms
file.delete.delay.ms 60000 5 log.segment.delete.delay.ms
follower.replication.throttled.replicas  7 -
index.interval.bytes 4096 3 log.index.interval.bytes
leader.replication.throttled.replicas  7 -
local.retention.bytes -2 5 log.local.retention.bytes
local.retention.ms -2 5 log.local.retention.ms
max.compaction.lag.ms 9223372036854775807 5 log.cleaner.max.compaction.lag.ms
max.message.bytes 1048588 3 message.max.bytes
message.timestamp.after.max.ms 3600000 5 log.message.timestamp.after.max.ms
message.timestamp.before.max.ms 9223372036854775807 5 log.message.timestamp.before.max.ms
message.timestamp.type CreateTime 2 log.message.timestamp.type
min.cleanable.dirty.ratio 0.5 6 log.cleaner.min.cleanable.ratio
min.compaction.lag.ms 0 5 log.cleaner.min.compaction.lag.ms
min.insync.replicas 1 3 min.insync.replicas
preallocate false 1 log.preallocate
remote.log.copy.disable false 1 -
remote.log.delete.on.disable false 1 -
remote.storage.enable false 1 -
retention.bytes -1 5 log.retention.bytes
retention.ms 604800000 5 log.retention.ms
segment.bytes 1073741824 3 log.segment.bytes
segment.index.bytes 10485760 3 log.index.size.max.bytes
segment.jitter.ms 0 5 log.roll.jitter.ms
segment.ms 604800000 5 log.roll.ms
unclean.leader.election.enable false 1 unclean.leader.election.enable";

#[test]
fn names_types_defaults_and_synonyms_are_kafkas() {
    let all = describe_topic(&BTreeMap::new(), &BrokerDefaults::default());
    let ours = all.iter().filter(|d| !d.name.starts_with("flush.")).map(|d| {
        let synonym = d.synonyms.first().map_or("-", |(name, _, _)| name.as_str());
        format!("{} {} {} {synonym}", d.name, d.value.as_deref().unwrap(), d.kind_code)
    });
    assert_eq!(ours.collect::<Vec<_>>().join("\n"), KAFKA);
    assert!(all.iter().all(|d| d.is_default && d.source == Source::Default && !d.read_only && !d.sensitive));
    assert_eq!(all.len(), 33);
}

/// Asked of Kafka 4.3.1 with CreateTopics 4 (validate_only) and IncrementalAlterConfigs 0; both answered the same.
const REFUSED: [(&str, &str, &str); 20] = [
    ("nope", "1", "Unknown topic config name: nope"),
    ("message.format.version", "3.0", "Unknown topic config name: message.format.version"),
    ("retention.ms", "abc", "Invalid value abc for configuration retention.ms: Not a number of type LONG"),
    ("retention.ms", "", "Invalid value  for configuration retention.ms: Not a number of type LONG"),
    ("retention.ms", "0x10", "Invalid value 0x10 for configuration retention.ms: Not a number of type LONG"),
    ("retention.ms", "-2", "Invalid value -2 for configuration retention.ms: Value must be at least -1"),
    ("segment.bytes", "1", "Invalid value 1 for configuration segment.bytes: Value must be at least 1048576"),
    (
        "segment.bytes",
        "99999999999",
        "Invalid value 99999999999 for configuration segment.bytes: Not a number of type INT",
    ),
    (
        "min.cleanable.dirty.ratio",
        "1.5",
        "Invalid value 1.5 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
    ),
    (
        "min.cleanable.dirty.ratio",
        "x",
        "Invalid value x for configuration min.cleanable.dirty.ratio: Not a number of type DOUBLE",
    ),
    (
        "preallocate",
        "maybe",
        "Invalid value maybe for configuration preallocate: Expected value to be either true or false",
    ),
    (
        "cleanup.policy",
        "delete,x",
        "Invalid value x for configuration cleanup.policy: String must be one of: compact, delete",
    ),
    ("cleanup.policy", "delete,", "Configuration 'cleanup.policy' values must not be empty."),
    ("cleanup.policy", ",", "Configuration 'cleanup.policy' values must not be empty."),
    (
        "compression.gzip.level",
        "0",
        "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
    ),
    (
        "compression.lz4.level",
        "18",
        "Invalid value 18 for configuration compression.lz4.level: Value must be no more than 17",
    ),
    (
        "compression.zstd.level",
        "-131073",
        "Invalid value -131073 for configuration compression.zstd.level: Value must be at least -131072",
    ),
    (
        "message.timestamp.type",
        "createtime",
        "Invalid value createtime for configuration message.timestamp.type: String must be one of: CreateTime, LogAppendTime",
    ),
    (
        "follower.replication.throttled.replicas",
        "0:1,x",
        "Invalid value [0:1, x] for configuration follower.replication.throttled.replicas: \
         follower.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: \
         [partitionId]:[brokerId],[partitionId]:[brokerId],...",
    ),
    (
        "remote.storage.enable",
        "true",
        "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
    ),
];

const ACCEPTED: [(&str, &str); 12] = [
    ("retention.ms", " 5 "),
    ("retention.ms", "+5"),
    ("preallocate", " TRUE "),
    ("cleanup.policy", ""),
    ("cleanup.policy", "delete, compact"),
    ("cleanup.policy", "delete,delete"),
    ("compression.gzip.level", "-1"),
    ("compression.type", " lz4 "),
    ("min.cleanable.dirty.ratio", "NaN"),
    ("follower.replication.throttled.replicas", "*"),
    ("follower.replication.throttled.replicas", "0:1,2:3"),
    ("remote.storage.enable", "false"),
];

#[test]
fn sentences_are_kafkas() {
    const WORDS: &str = "String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer";
    for (name, value, sentence) in REFUSED {
        assert_eq!(validate(name, value), Err(sentence.to_string()));
    }
    assert_eq!(
        validate("compression.type", "bzip"),
        Err(format!("Invalid value bzip for configuration compression.type: {WORDS}"))
    );
    for (name, value) in ACCEPTED {
        assert_eq!(validate(name, value), Ok(()), "{name}={value}");
    }
}

#[test]
fn overrides_are_checked_together() {
    let defaults = BrokerDefaults { batch_bytes_max: 1000, ..BrokerDefaults::default() };
    let check = |pairs: &[(&str, &str)]| defaults.check(&map(pairs));
    assert_eq!(
        check(&[("nope", "1"), ("flush.ms", "x")]),
        Err("Unknown topic config name: nope".to_string())
    );
    let conflict = "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)";
    assert_eq!(
        check(&[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")]),
        Err(conflict.to_string())
    );
    assert_eq!(check(&[("max.message.bytes", "1000")]), Ok(()));
    assert!(check(&[("max.message.bytes", "1001")]).unwrap_err().contains("no more than 1000"));
    assert_eq!(
        effective(&map(&[("max.message.bytes", "5000")]), &defaults).max_message_bytes,
        1000,
        "set before the bound shrank"
    );
    assert_eq!(BrokerDefaults::default().check(&map(&[("max.message.bytes", "2147483647")])), Ok(()));
}

#[test]
fn relaxed_topics_need_the_brokers_consent() {
    let overrides = map(&[("flush.messages", NEVER)]);
    let mut defaults = BrokerDefaults::default();
    assert!(effective(&overrides, &defaults).is_durable());
    assert_eq!(
        shown(&[("flush.messages", NEVER)], &defaults, "flush.messages").value.as_deref(),
        Some(NEVER),
        "shown all the same"
    );
    defaults.allow_relaxed = true;
    assert!(!effective(&overrides, &defaults).is_durable());
    assert!(effective(&BTreeMap::new(), &defaults).is_durable(), "consent alone relaxes nothing");
}

/// As Kafka 4.3.1 showed a topic with these overrides on a broker with these keys, but that a default given in hours is
/// shown as the broker's (Kafka says "default" there).
#[test]
fn values_are_shown_with_where_they_come_from() {
    let defaults = broker(&[
        ("log.retention.hours", "24"),
        ("log.retention.minutes", "2000"),
        ("log.roll.hours", "5"),
        ("log.segment.bytes", "2097152"),
        ("log.cleanup.policy", "compact,delete"),
        ("compression.type", "lz4"),
    ]);
    let own = &[
        ("retention.ms", " 5 "),
        ("preallocate", "TRUE"),
        ("flush.ms", "+7"),
        ("cleanup.policy", "delete , compact"),
    ];
    let see = |name: &str| brief(&shown(own, &defaults, name));
    assert_eq!(
        see("cleanup.policy"),
        "delete,compact (1): cleanup.policy=delete,compact (1), log.cleanup.policy=compact,delete (4), log.cleanup.policy=delete (5)"
    );
    assert_eq!(see("compression.type"), "lz4 (4): compression.type=lz4 (4), compression.type=producer (5)");
    assert_eq!(see("preallocate"), "true (1): preallocate=true (1), log.preallocate=false (5)");
    assert_eq!(
        see("segment.bytes"),
        "2097152 (4): log.segment.bytes=2097152 (4), log.segment.bytes=1073741824 (5)"
    );
    assert_eq!(see("segment.ms"), "18000000 (4): log.roll.hours=5 (4), log.roll.ms=604800000 (5)");
    assert!(
        see("retention.ms").starts_with("5 (1): retention.ms=5 (1), log.retention.minutes=2000 (4)"),
        "{}",
        see("retention.ms")
    );
    assert!(see("flush.ms").starts_with("7 (1): flush.ms=7 (1)"));
    let config = effective(&map(own), &defaults);
    assert_eq!((config.retention_ms, config.segment_ms, config.segment_bytes), (5, 18_000_000, 2_097_152));
    assert!(config.compacted && config.delete);
    assert_eq!(effective(&BTreeMap::new(), &defaults).retention_ms, 120_000_000, "minutes go before hours");
    assert_eq!(effective(&BTreeMap::new(), &broker(&[("log.retention.hours", "-1")])).retention_ms, -1);
    let neither = effective(&map(&[("cleanup.policy", "")]), &defaults);
    assert!(!neither.compacted && !neither.delete, "an empty policy keeps everything");
}

#[test]
fn the_broker_shows_what_is_in_force() {
    let defaults = broker(&[("log.segment.bytes", "2097152"), ("num.partitions", "4")]);
    let settings: Vec<(String, String)> = [("num.partitions", "4"), ("delete.topic.enable", "true")]
        .map(|(n, v)| (n.to_string(), v.to_string()))
        .into();
    let all = describe_broker(&defaults, &settings, 7);
    assert!(all.is_sorted_by(|a, b| a.name < b.name));
    assert!(all.iter().all(|d| d.read_only == dynamic::find(&d.name).is_none()));
    let see = |name: &str| brief(all.iter().find(|d| d.name == name).unwrap());
    assert_eq!(see("node.id"), "7 (4): node.id=7 (4)");
    assert_eq!(see("num.partitions"), "4 (4): num.partitions=4 (4)");
    assert_eq!(see("delete.topic.enable"), "true (5): delete.topic.enable=true (5)");
    assert_eq!(
        see("log.segment.bytes"),
        "2097152 (4): log.segment.bytes=2097152 (4), log.segment.bytes=1073741824 (5)"
    );
    assert_eq!(see("log.retention.bytes"), "-1 (5): log.retention.bytes=-1 (5)");
}

proptest! {
    /// No text panics, and what is accepted stays what it was after being shown.
    #[test]
    fn any_text_is_refused_or_shown_the_same(at in 0..TOPIC_CONFIGS.len(), value in "[ -9a-z,:.*+]{0,12}|-?[0-9]{1,20}|(delete|compact|true|lz4)( ?,(delete|compact))?") {
        let def = TOPIC_CONFIGS.get(at).unwrap();
        if validate(def.name, &value).is_ok() {
            let plain_value = plain(def.kind, &value);
            prop_assert_eq!(validate(def.name, &plain_value), Ok(()));
            let defaults = BrokerDefaults { allow_relaxed: true, ..BrokerDefaults::default() };
            let one = |value: String| BTreeMap::from([(def.name.to_string(), value)]);
            prop_assert_eq!(effective(&one(value), &defaults), effective(&one(plain_value), &defaults));
        }
    }
}

/// `net/docs/TOPIC-CONFIG.md` from the table.
fn document() -> String {
    let mut text = String::from(
        "# Topic configs\n\n<!-- Generated from net/control/src/configs/table.rs by `UPDATE=1 cargo test -p ringmill-control`; do not edit. -->\n\n\
         Set them when a topic is created, or later with `kafka-configs.sh --alter --entity-type topics` or any admin client.\n\
         Names, types and ranges are those of Kafka 4.3. Every one is accepted, kept and shown; those that do nothing here say\n\
         so. An unknown name is refused. Where a topic says nothing, the broker key sets the value (CONFIG.md).\n\n\
         | config | type | default | range | broker key | acts | effect |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for def in TOPIC_CONFIGS {
        let keys = def.broker_keys.iter().map(|(key, _)| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        let kind = match def.kind {
            Kind::Bool => "boolean",
            Kind::Str => "text",
            Kind::Int => "int",
            Kind::Long => "long",
            Kind::Double => "double",
            Kind::List => "list",
        };
        let range = match def.valid {
            Valid::Any => String::new(),
            Valid::AtLeast(least) => format!("{least} …"),
            Valid::Range(least, most) => format!("{least} … {most}"),
            Valid::OneOrRange(one, least, most) => format!("{one}, {least} … {most}"),
            Valid::Fraction => "0 … 1".to_string(),
            Valid::OneOf(words) => words.join(", "),
            Valid::EachOf(words) => format!("any of {}", words.join(", ")),
            Valid::Replicas => "`*` or partition:broker, …".to_string(),
            Valid::Off(_) => "false".to_string(),
        };
        let acts = if def.honoured { "yes" } else { "no" };
        text += &format!(
            "| `{}` | {kind} | {} | {range} | {keys} | {acts} | {} |\n",
            def.name, def.default, def.doc
        );
    }
    text
}

#[test]
fn the_document_is_what_the_table_says() {
    crate::generated::check("TOPIC-CONFIG.md", &document());
}

/// `net/docs/BROKER-CONFIG.md` from the tables.
fn broker_document() -> String {
    let mut text = String::from(
        "# Configs that change while the broker runs\n\n<!-- Generated from net/control/src/configs by `UPDATE=1 cargo test -p ringmill-control`; do not edit. -->\n\n\
         Set them with `kafka-configs.sh --alter --entity-type brokers`, for one broker or with `--entity-default` for all, or\n\
         with any admin client. They act at once, survive a restart, and go before the file and the command line; one broker's\n\
         go before those for all. A key of CONFIG.md that is not here is read at the start only, and any other is refused.\n\n\
         ## Defaults of topic configs\n\nThey act on every topic that says nothing itself: see [TOPIC-CONFIG.md](TOPIC-CONFIG.md).\n\n| broker config | topic config |\n| --- | --- |\n",
    );
    for def in TOPIC_CONFIGS {
        if let Some((key, _)) = def.broker_keys.first() {
            text += &format!("| `{key}` | `{}` |\n", def.name);
        }
    }
    text += "\n## The broker's own\n\n| config | default | acts | effect |\n| --- | --- | --- | --- |\n";
    for def in DYNAMIC_CONFIGS {
        let acts = if def.honoured { "yes" } else { "no" };
        text += &format!("| `{}` | {} | {acts} | {} |\n", def.name, def.default, def.doc);
    }
    text += "\n## Groups\n\nSet them with `--entity-type groups`. An unknown name is refused.\n\n| config | default | range | effect |\n| --- | --- | --- | --- |\n";
    for def in groups::GROUP_CONFIGS {
        let range = def.bounds.map_or(String::new(), |(_, low, _, high)| format!("{low} … {high}"));
        text += &format!("| `{}` | {} | {range} | {} |\n", def.name, def.default, def.doc);
    }
    text + "\n## Client metrics and loggers\n\n\
            Subscriptions (`--entity-type client-metrics`: `interval.ms`, `match`, `metrics`) are kept and shown; nobody asks\n\
            clients for metrics, as with a Kafka without a receiver for them. Levels of the log (`--entity-type broker-loggers`:\n\
            `root` and the broker's parts) act at once and end with the process, as with Kafka.\n"
}

#[test]
fn the_document_of_broker_configs_is_what_the_tables_say() {
    crate::generated::check("BROKER-CONFIG.md", &broker_document());
}

#[test]
fn every_dynamic_default_obeys_its_own_row() {
    for def in DYNAMIC_CONFIGS {
        assert_eq!(validate_as(def.name, def.kind, def.valid, def.default), Ok(()), "{}", def.name);
        assert_eq!(def.honoured, !def.doc.contains("No effect"), "{}", def.name);
        assert!(dynamic::find(def.name).is_some());
    }
    assert!(DYNAMIC_CONFIGS.is_sorted_by(|a, b| a.name < b.name));
    assert_eq!(groups::check_group(&map(&[])), Ok(()));
    for def in groups::GROUP_CONFIGS {
        assert_eq!(groups::check_group(&map(&[(def.name, def.default)])), Ok(()), "{}", def.name);
    }
}

#[test]
fn what_was_decided_while_running_goes_before_the_file() {
    let mut defaults = broker(&[("log.retention.hours", "1")]);
    assert_eq!(
        brief(&shown(&[], &defaults, "retention.ms")),
        "3600000 (4): log.retention.hours=1 (4), log.retention.ms=604800000 (5)"
    );
    defaults.dynamic.cluster = map(&[("log.retention.ms", "5")]);
    assert_eq!(effective(&BTreeMap::new(), &defaults).retention_ms, 5);
    defaults.dynamic.node = map(&[("log.retention.ms", "7")]);
    assert_eq!(
        brief(&shown(&[], &defaults, "retention.ms")),
        "7 (2): log.retention.ms=7 (2), log.retention.ms=5 (3), log.retention.hours=1 (4), log.retention.ms=604800000 (5)"
    );
    let described =
        describe_broker(&defaults, &[], 1).into_iter().find(|c| c.name == "log.retention.ms").unwrap();
    assert_eq!((described.value.as_deref(), described.read_only), (Some("7"), false));
    assert_eq!(
        effective(&map(&[("retention.ms", "9")]), &defaults).retention_ms,
        9,
        "the topic's own goes first"
    );
}
