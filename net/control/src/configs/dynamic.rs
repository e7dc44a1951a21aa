//! Broker configs that may change while the broker runs (KIP-226): which there are, what is valid, and in which order
//! values count: this broker's own, those of all brokers, the file and the command line, the default.
//!
//! Those behind topic configs act at once, on every topic that says nothing itself. Of the others the table says what
//! they do here; what means nothing here is accepted, kept and shown. Unknown names are refused.

use super::{BrokerDefaults, ConfigDef, Kind, Source, TOPIC_CONFIGS, Valid, validate_as};
use std::collections::BTreeMap;

/// A dynamic config that no topic config stands behind.
#[derive(Clone, Copy, Debug)]
pub struct DynamicDef {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub valid: Valid,
    pub honoured: bool,
    pub doc: &'static str,
}

macro_rules! dynamic {
    ($($name:literal: $kind:ident = $default:literal, $valid:expr, $honoured:literal, $doc:literal;)*) => {
        /// All of them, by name.
        pub static DYNAMIC_CONFIGS: &[DynamicDef] = &[$(DynamicDef {
            name: $name,
            kind: Kind::$kind,
            default: $default,
            valid: $valid,
            honoured: $honoured,
            doc: $doc,
        }),*];
    };
}

dynamic! {
    "background.threads": Int = "10", Valid::AtLeast(1), false, "No effect: the file thread of each core does such work.";
    "follower.replication.throttled.rate": Long = "9223372036854775807", Valid::AtLeast(0), false, "No effect: there is one replica.";
    "leader.replication.throttled.rate": Long = "9223372036854775807", Valid::AtLeast(0), false, "No effect: there is one replica.";
    "log.cleaner.backoff.ms": Long = "15000", Valid::AtLeast(0), false, "No effect as a dynamic config: it is read from the file or --set when the broker starts.";
    "log.cleaner.dedupe.buffer.size": Long = "134217728", Valid::Any, false, "No effect: upkeep sizes its own memory.";
    "log.cleaner.io.buffer.load.factor": Double = "0.9", Valid::Any, false, "No effect: upkeep sizes its own memory.";
    "log.cleaner.io.buffer.size": Int = "524288", Valid::AtLeast(0), false, "No effect: upkeep sizes its own memory.";
    "log.cleaner.threads": Int = "1", Valid::AtLeast(0), false, "No effect: there is one upkeep thread.";
    "max.connection.creation.rate": Int = "2147483647", Valid::AtLeast(0), false, "No effect: accepting costs a core little, and max.connections bounds how many there are.";
    "max.connections": Int = "2147483647", Valid::AtLeast(0), true, "Connections of all cores together; new ones beyond it are closed. Raised above its value at the start, it takes effect with the next start.";
    "max.connections.per.ip": Int = "2147483647", Valid::AtLeast(0), false, "No effect: connections are not counted by address.";
    "max.connections.per.ip.overrides": Str = "", Valid::Any, false, "No effect: connections are not counted by address.";
    "metric.reporters": List = "", Valid::Any, false, "No effect: metrics are read from the admin port.";
    "num.io.threads": Int = "8", Valid::AtLeast(1), false, "No effect: one kind of thread serves all; see cores.";
    "num.network.threads": Int = "3", Valid::AtLeast(1), false, "No effect: one kind of thread serves all; see cores.";
    "num.recovery.threads.per.data.dir": Int = "2", Valid::AtLeast(1), false, "No effect: recovery runs on the cores.";
    "num.replica.fetchers": Int = "1", Valid::AtLeast(1), false, "No effect: there is one replica.";
    "producer.id.expiration.ms": Int = "86400000", Valid::AtLeast(1), true, "An idempotent producer that wrote nothing for this long is forgotten.";
    "replica.alter.log.dirs.io.max.bytes.per.second": Long = "9223372036854775807", Valid::AtLeast(0), false, "No effect: there is one folder.";
    "slow.request.ms": Long = "1000", Valid::AtLeast(0), true, "A request that takes longer from its last byte to the last byte of its answer is logged with where its time went, ten lines a second and core. What a Fetch waits for records within its max wait, and JoinGroup and SyncGroup for other members, does not count. 0 switches that off.";
    "transaction.partition.verification.enable": Bool = "true", Valid::Any, false, "No effect: there are no transactions yet.";
}

/// What was decided while running, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DynamicValues {
    /// Of this broker.
    pub node: BTreeMap<String, String>,
    /// Of all brokers of the cluster.
    pub cluster: BTreeMap<String, String>,
}

impl DynamicValues {
    /// What was decided for a key, the strongest first.
    pub fn layers(&self, key: &str) -> impl Iterator<Item = (&String, Source)> {
        let node = self.node.get(key).map(|value| (value, Source::DynamicBroker));
        node.into_iter().chain(self.cluster.get(key).map(|value| (value, Source::DynamicDefault)))
    }
}

/// What a dynamic key is.
#[derive(Clone, Copy, Debug)]
pub enum Dynamic {
    /// The default of a topic config.
    Topic(&'static ConfigDef),
    Broker(&'static DynamicDef),
}

impl Dynamic {
    pub fn kind(self) -> Kind {
        match self {
            Dynamic::Topic(def) => def.kind,
            Dynamic::Broker(def) => def.kind,
        }
    }
}

/// The dynamic config of this name. Of the keys behind a topic config Kafka changes the first only, which has the topic
/// config's unit.
pub fn find(name: &str) -> Option<Dynamic> {
    let topic = TOPIC_CONFIGS.iter().find(|def| def.broker_keys.first().is_some_and(|(key, _)| *key == name));
    topic
        .map(Dynamic::Topic)
        .or_else(|| DYNAMIC_CONFIGS.iter().find(|def| def.name == name).map(Dynamic::Broker))
}

/// Why a change of broker configs is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// They are known, and read when the broker starts.
    ReadOnly(String),
    Unknown(String),
    Invalid(String),
}

impl BrokerDefaults {
    /// Checks the names that a request changes and all values that would then be in force.
    ///
    /// # Errors
    /// [`Refused`], in Kafka's words where Kafka refuses it too.
    pub fn check_dynamic(
        &self,
        changed: &[&str],
        values: &BTreeMap<String, String>,
        settings: &[(String, String)],
    ) -> Result<(), Refused> {
        let known = |name: &str| {
            settings.iter().any(|(key, _)| key == name)
                || TOPIC_CONFIGS.iter().any(|def| def.broker_keys.iter().any(|(key, _)| *key == name))
                || matches!(name, "broker.id" | "node.id")
        };
        let mut fixed: Vec<&str> = Vec::new();
        for name in changed.iter().filter(|name| find(name).is_none()) {
            if !known(name) {
                return Err(Refused::Unknown(format!("Unknown broker config name: {name}")));
            }
            fixed.push(name);
        }
        if !fixed.is_empty() {
            fixed.sort_unstable();
            let names = fixed.join(", ");
            return Err(Refused::ReadOnly(format!("Cannot update these configs dynamically: [{names}]")));
        }
        for (name, value) in values {
            let checked = match find(name) {
                Some(Dynamic::Topic(def)) => validate_as(name, def.kind, def.valid, value),
                Some(Dynamic::Broker(def)) => validate_as(name, def.kind, def.valid, value),
                None => Ok(()),
            };
            checked.map_err(Refused::Invalid)?;
        }
        self.check_batch_bytes("message.max.bytes", values.get("message.max.bytes")).map_err(Refused::Invalid)
    }

    /// What was decided of a number while running; `None` when nothing was.
    pub fn dynamic_number(&self, name: &str) -> Option<i64> {
        self.dynamic.layers(name).find_map(|(text, _)| text.trim().parse().ok())
    }
}
