//! The one table of topic configs: Kafka 4.3's names, types and ranges, and what each does here.
//!
//! Defaults are Kafka's, but for `flush.messages` and `flush.ms`: an ack here follows the flush.

use super::{ConfigDef, Kind, Valid};

/// Kafka's word for "never", as text.
const NEVER: &str = "9223372036854775807";

macro_rules! configs {
    ($($name:literal: $kind:ident = $default:expr, $valid:expr, [$($key:literal $(* $ms:literal)?),*], $does:ident, $doc:literal;)*) => {
        /// All of them, by name.
        pub static TOPIC_CONFIGS: &[ConfigDef] = &[$(ConfigDef {
            name: $name,
            kind: Kind::$kind,
            default: $default,
            valid: $valid,
            broker_keys: &[$(($key, 1 $(* $ms)?)),*],
            honoured: configs!(@ $does),
            doc: $doc,
        }),*];
    };
    (@ acts) => { true };
    (@ shown) => { false };
}

// name: type = default, range, [broker keys that set the default, the first given one wins (* factor)], effect, sentence.
configs! {
    "cleanup.policy": List = "delete", Valid::EachOf(&["compact", "delete"]), ["log.cleanup.policy"], acts,
        "delete removes old segments by age and size. compact refuses records without a key and removes what newer ones of the same key supersede. Both may be given; neither keeps everything.";
    "compression.gzip.level": Int = "-1", Valid::OneOrRange(-1, 1, 9), ["compression.gzip.level"], acts,
        "How hard the broker packs where compression.type is gzip; -1 is 6.";
    "compression.lz4.level": Int = "9", Valid::Range(1, 17), ["compression.lz4.level"], shown,
        "No effect, kept and shown: the broker packs with the fast lz4, as Kafka does at its default.";
    "compression.type": Str = "producer", Valid::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), ["compression.type"], acts,
        "producer stores batches as they come. With any other value a batch that comes in another compression is packed anew, by a thread beside the core, before it is stored; its connection waits for that, others do not.";
    "compression.zstd.level": Int = "3", Valid::Range(-131_072, 22), ["compression.zstd.level"], acts,
        "How hard the broker packs where compression.type is zstd.";
    "delete.retention.ms": Long = "86400000", Valid::AtLeast(0), ["log.cleaner.delete.retention.ms"], acts,
        "How long compaction keeps delete markers, from the pass that met them first.";
    "file.delete.delay.ms": Long = "60000", Valid::AtLeast(0), ["log.segment.delete.delay.ms"], shown,
        "Wait before the files of a removed segment go. No effect: they go as soon as no reader can need them.";
    "flush.messages": Long = "1", Valid::AtLeast(1), ["log.flush.interval.messages"], acts,
        "1: an ack leaves after the flush that covers its records. Any larger number, where the broker allows it (relaxed.topics.enable), makes the topic relaxed: an ack leaves once its records are in a group that was handed to the disk, and a power cut can take what was acked during the last two flushes. Otherwise the value is only shown.";
    "flush.ms": Long = "1000", Valid::AtLeast(0), ["log.flush.interval.ms"], shown,
        "No effect, kept and shown: records of relaxed topics are flushed with everything else as soon as the device allows, which is sooner than any interval.";
    "follower.replication.throttled.replicas": List = "", Valid::Replicas, [], shown,
        "Replicas whose followers are slowed down. No effect: there is one replica.";
    "index.interval.bytes": Int = "4096", Valid::AtLeast(0), ["log.index.interval.bytes"], acts,
        "Bytes of batches between two index entries of a segment.";
    "leader.replication.throttled.replicas": List = "", Valid::Replicas, [], shown,
        "Replicas whose leaders are slowed down. No effect: there is one replica.";
    "local.retention.bytes": Long = "-2", Valid::AtLeast(-2), ["log.local.retention.bytes"], shown,
        "Size kept locally with tiered storage. No effect: there is no tiered storage.";
    "local.retention.ms": Long = "-2", Valid::AtLeast(-2), ["log.local.retention.ms"], shown,
        "Time kept locally with tiered storage. No effect: there is no tiered storage.";
    "max.compaction.lag.ms": Long = NEVER, Valid::AtLeast(1), ["log.cleaner.max.compaction.lag.ms"], acts,
        "The longest a record may stay uncompacted: then the topic is compacted whatever its share is, and the active segment ends.";
    "max.message.bytes": Int = "1048588", Valid::AtLeast(0), ["message.max.bytes"], acts,
        "Largest batch the topic takes, as sent (compressed). A batch has to fit one core-log file, so a value near core.log.file.bytes is refused.";
    "message.timestamp.after.max.ms": Long = "3600000", Valid::AtLeast(0), ["log.message.timestamp.after.max.ms"], acts,
        "How far ahead of the broker's clock a record's timestamp may be (CreateTime only).";
    "message.timestamp.before.max.ms": Long = NEVER, Valid::AtLeast(0), ["log.message.timestamp.before.max.ms"], acts,
        "How far behind the broker's clock a record's timestamp may be (CreateTime only).";
    "message.timestamp.type": Str = "CreateTime", Valid::OneOf(&["CreateTime", "LogAppendTime"]), ["log.message.timestamp.type"], acts,
        "Whether producers set timestamps, or the broker does when it appends.";
    "min.cleanable.dirty.ratio": Double = "0.5", Valid::Fraction, ["log.cleaner.min.cleanable.ratio"], acts,
        "Share of a log that must be uncompacted before it is compacted. The active segment does not count.";
    "min.compaction.lag.ms": Long = "0", Valid::AtLeast(0), ["log.cleaner.min.compaction.lag.ms"], acts,
        "The shortest a record stays uncompacted.";
    "min.insync.replicas": Int = "1", Valid::AtLeast(1), ["min.insync.replicas"], shown,
        "Replicas that must hold a record before acks=all is answered. No effect: there is one replica, always in sync.";
    "preallocate": Bool = "false", Valid::Any, ["log.preallocate"], shown,
        "Whether segment files are allocated ahead. No effect: the broker decides how its files grow.";
    "remote.log.copy.disable": Bool = "false", Valid::Any, [], shown,
        "Stops copying to tiered storage. No effect: there is no tiered storage.";
    "remote.log.delete.on.disable": Bool = "false", Valid::Any, [], shown,
        "Deletes tiered data when tiering is switched off. No effect: there is no tiered storage.";
    "remote.storage.enable": Bool = "false", Valid::Off("Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."), [], shown,
        "Tiered storage. There is none, so true is refused.";
    "retention.bytes": Long = "-1", Valid::AtLeast(-1), ["log.retention.bytes"], acts,
        "Size of a partition above which its oldest segments go; -1 for no bound. Needs delete in cleanup.policy.";
    "retention.ms": Long = "604800000", Valid::AtLeast(-1), ["log.retention.ms", "log.retention.minutes" * 60_000, "log.retention.hours" * 3_600_000], acts,
        "Age of its newest record above which a segment goes; -1 for no bound. Needs delete in cleanup.policy.";
    "segment.bytes": Int = "1073741824", Valid::AtLeast(1_048_576), ["log.segment.bytes"], acts,
        "Size at which a segment is sealed and the next one begins. Retention removes whole segments.";
    "segment.index.bytes": Int = "10485760", Valid::AtLeast(4), ["log.index.size.max.bytes"], acts,
        "Size of the index at which a segment is sealed.";
    "segment.jitter.ms": Long = "0", Valid::AtLeast(0), ["log.roll.jitter.ms", "log.roll.jitter.hours" * 3_600_000], shown,
        "Random part of segment.ms. No effect: segments are written in the background, so sealing many at once costs nothing.";
    "segment.ms": Long = "604800000", Valid::AtLeast(1), ["log.roll.ms", "log.roll.hours" * 3_600_000], acts,
        "Age at which a segment is sealed, full or not.";
    "unclean.leader.election.enable": Bool = "false", Valid::Any, ["unclean.leader.election.enable"], shown,
        "Whether a replica that lags may become leader. No effect: there is one replica.";
}

/// Types of the broker keys that no topic config stands behind, for DescribeConfigs. A key of neither table is text.
pub(super) static BROKER_KINDS: &[(&str, Kind)] = &[
    ("advertised.listeners", Kind::List),
    ("auto.create.topics.enable", Kind::Bool),
    ("broker.id", Kind::Int),
    ("connections.max.idle.ms", Kind::Long),
    ("delete.topic.enable", Kind::Bool),
    ("listeners", Kind::List),
    ("log.dirs", Kind::List),
    ("log.retention.check.interval.ms", Kind::Long),
    ("log.retention.hours", Kind::Int),
    ("log.retention.minutes", Kind::Int),
    ("log.roll.hours", Kind::Int),
    ("max.connections", Kind::Int),
    ("node.id", Kind::Int),
    ("num.partitions", Kind::Int),
    ("socket.request.max.bytes", Kind::Int),
];
