//! `topic describe`: everything the broker tells about topics, over the Kafka protocol and, where it can be reached, the
//! admin port, which alone knows cores and what is durable.

use crate::exit::{Code, Failed};
use crate::output::{Align, Out, Paint, Table, bytes, counted};
use crate::server::{AdminPartition, AdminTopic, Server, admin_topics};
use clap::Args;
use ringmill_client::admin::{Config, ConfigSource, EARLIEST, LATEST, TopicPartition};
use ringmill_client::client::{Absent, Partition};
use ringmill_client::{Client, Cluster, ServerCode, Topic};
use ringmill_types::ErrorCode;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// A guessed admin port is not worth waiting for.
const GUESS_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Args)]
pub struct Describe {
    /// Topics [default: all]
    names: Vec<String>,
    /// Admin port of the broker, for cores and durable offsets [default: port 9644 of the same host, if it answers]
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
    /// Every config, not only those that differ from the default
    #[arg(long)]
    all_configs: bool,
    #[command(flatten)]
    server: Server,
    /// An array of objects instead of tables
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct TopicView {
    name: String,
    id: String,
    internal: bool,
    /// What an ack means, as far as the broker tells.
    ack: Ack,
    /// `flush.messages` is not 1.
    asks_for_relaxed: bool,
    size_bytes: Option<u64>,
    configs: Vec<ConfigView>,
    partitions: Vec<PartitionView>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Ack {
    /// The records are on disk.
    Durable,
    /// The records are on their way to the disk.
    Relaxed,
    /// The topic asks for relaxed acks; whether the broker grants them, only its admin port tells.
    Unknown,
}

#[derive(Serialize)]
struct ConfigView {
    name: String,
    value: Option<String>,
    source: &'static str,
}

#[derive(Serialize)]
struct PartitionView {
    partition: i32,
    leader: i32,
    leader_epoch: i32,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    core: Option<u16>,
    log_start: Option<i64>,
    /// End of the log as readers see it.
    high_watermark: Option<i64>,
    durable: Option<i64>,
    size_bytes: Option<u64>,
    segments: Option<u32>,
    error: Option<String>,
}

/// Everything that was asked, by topic.
struct Facts {
    first: BTreeMap<TopicPartition, Result<i64, ServerCode>>,
    end: BTreeMap<TopicPartition, Result<i64, ServerCode>>,
    sizes: BTreeMap<TopicPartition, i64>,
    configs: BTreeMap<String, Vec<Config>>,
    /// By topic id.
    admin: BTreeMap<String, AdminTopic>,
}

impl Describe {
    pub fn run(self) -> Result<(), Failed> {
        let mut client = self.server.connect()?;
        let wanted = if self.names.is_empty() { None } else { Some(self.names.as_slice()) };
        let mut cluster = client.metadata(wanted, Absent::Leave)?;
        cluster.topics.sort_by(|a, b| a.name.cmp(&b.name));
        let (found, missing): (Vec<Topic>, Vec<Topic>) =
            std::mem::take(&mut cluster.topics).into_iter().partition(|topic| topic.code.is_ok());
        let facts = self.facts(&mut client, &cluster, &found)?;
        let views: Vec<TopicView> = found.iter().map(|topic| self.view(topic, &facts)).collect();
        let mut out = Out::new();
        if self.json {
            out.json_pretty(&views)?;
        } else if views.is_empty() && missing.is_empty() {
            crate::output::remark("no topics; `ringmill topic create NAME` makes one");
        } else {
            for (at, view) in views.iter().enumerate() {
                if at > 0 {
                    out.line("")?;
                }
                show(&mut out, view)?;
            }
        }
        out.finish()?;
        for topic in &missing {
            let why = match topic.code.known() {
                Some(ErrorCode::UnknownTopicOrPartition) => {
                    format!("there is no such topic ({})", topic.code.name())
                }
                Some(_) | None => topic.code.to_string(),
            };
            crate::output::complain(&format!("topic {}: {why}", topic.name));
        }
        if missing.is_empty() { Ok(()) } else { Err(Failed::said(Code::Refused)) }
    }

    fn facts(&self, client: &mut Client, cluster: &Cluster, topics: &[Topic]) -> Result<Facts, Failed> {
        let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
        let admin = match &self.admin {
            Some(address) => admin_topics(address, self.server.timeout)?,
            // Nobody promised that there is one, nor that it is this broker's: topic ids tell.
            None => admin_topics(&self.server.admin_guess(), GUESS_TIMEOUT).unwrap_or_default(),
        };
        let known = |topic: &Topic| admin.iter().any(|known| known.id == topic.id);
        if self.admin.is_none() && !topics.is_empty() && !topics.iter().any(known) {
            crate::output::remark(&format!(
                "cores and durable offsets are not shown: no admin port of this broker at {}; --admin HOST:PORT says where",
                self.server.admin_guess()
            ));
        }
        Ok(Facts {
            first: client.offsets(topics, EARLIEST)?,
            end: client.offsets(topics, LATEST)?,
            sizes: client.partition_sizes(cluster)?,
            configs: if names.is_empty() { BTreeMap::new() } else { client.topic_configs(&names)? },
            admin: admin.into_iter().map(|topic| (topic.id.clone(), topic)).collect(),
        })
    }

    fn view(&self, topic: &Topic, facts: &Facts) -> TopicView {
        let admin = facts.admin.get(&topic.id);
        let none = Vec::new();
        let configs = facts.configs.get(&topic.name).unwrap_or(&none);
        let partitions: Vec<PartitionView> = topic
            .partitions
            .iter()
            .map(|partition| {
                let admin = admin.and_then(|t| t.partitions.iter().find(|p| p.index == partition.index));
                partition_view(&topic.name, partition, admin, facts)
            })
            .collect();
        TopicView {
            name: topic.name.clone(),
            id: topic.id.clone(),
            internal: topic.internal,
            ack: ack(configs, admin),
            asks_for_relaxed: flush_messages(configs).is_some_and(|value| value != "1"),
            size_bytes: partitions.iter().map(|p| p.size_bytes).sum(),
            configs: configs
                .iter()
                .filter(|config| self.all_configs || config.source != ConfigSource::Default)
                .map(|config| ConfigView {
                    name: config.name.clone(),
                    value: config.value.clone(),
                    source: match config.source {
                        ConfigSource::Topic => "topic",
                        ConfigSource::Broker => "broker",
                        ConfigSource::Default => "default",
                    },
                })
                .collect(),
            partitions,
        }
    }
}

fn ack(configs: &[Config], admin: Option<&AdminTopic>) -> Ack {
    if let Some(first) = admin.and_then(|topic| topic.partitions.first()) {
        return if first.relaxed { Ack::Relaxed } else { Ack::Durable };
    }
    match flush_messages(configs) {
        Some("1") => Ack::Durable,
        Some(_) | None => Ack::Unknown,
    }
}

fn flush_messages(configs: &[Config]) -> Option<&str> {
    configs.iter().find(|config| config.name == "flush.messages").and_then(|config| config.value.as_deref())
}

fn partition_view(
    topic: &str,
    partition: &Partition,
    admin: Option<&AdminPartition>,
    facts: &Facts,
) -> PartitionView {
    let key = (topic.to_string(), partition.index);
    let offset = |of: &BTreeMap<TopicPartition, Result<i64, ServerCode>>| of.get(&key).and_then(|r| r.ok());
    let refused = [&facts.first, &facts.end].iter().find_map(|of| of.get(&key).and_then(|r| r.err()));
    let error = if let Some(admin) = admin.filter(|a| a.offline) {
        let because = admin.offline_because.as_deref().unwrap_or("its disk failed");
        Some(format!("offline: {because}"))
    } else if !partition.code.is_ok() {
        Some(partition.code.to_string())
    } else {
        refused.map(|code| code.to_string())
    };
    PartitionView {
        partition: partition.index,
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        replicas: partition.replicas.clone(),
        isr: partition.isr.clone(),
        core: admin.map(|a| a.core),
        log_start: offset(&facts.first),
        high_watermark: offset(&facts.end),
        durable: admin.map(|a| a.durable).filter(|offset| *offset >= 0),
        size_bytes: facts.sizes.get(&key).and_then(|bytes| u64::try_from(*bytes).ok()),
        segments: admin.map(|a| a.segments),
        error,
    }
}

fn show(out: &mut Out, view: &TopicView) -> std::io::Result<()> {
    let ack = match view.ack {
        Ack::Durable => out.paint(Paint::Good, "durable: an ack follows the flush"),
        Ack::Relaxed => out.paint(
            Paint::Odd,
            "relaxed: an ack precedes the flush; a power cut can take what was acked during the last two flushes",
        ),
        Ack::Unknown => "flush.messages is not 1: the topic is relaxed where the broker allows it \
                         (relaxed.topics.enable); its admin port tells"
            .into(),
    };
    let ack = if view.ack == Ack::Durable && view.asks_for_relaxed {
        format!("{ack}; flush.messages has no effect without relaxed.topics.enable")
    } else {
        ack
    };
    let size = view.size_bytes.map_or(String::new(), |size| format!(", {}", bytes(size)));
    let internal = if view.internal { ", internal" } else { "" };
    let name = out.paint(Paint::Bold, &view.name);
    let count = counted(view.partitions.len() as u64, "partition");
    out.line(format!("{name}  id {}, {count}{size}{internal}", view.id))?;
    out.line(format!("  {ack}"))?;
    for config in &view.configs {
        let from = if config.source == "topic" { String::new() } else { format!("  ({})", config.source) };
        out.line(format!("  {}={}{from}", config.name, config.value.as_deref().unwrap_or("(not shown)")))?;
    }
    out.table(&partitions(view))
}

fn partitions(view: &TopicView) -> Table {
    let with_admin = view.partitions.iter().any(|p| p.core.is_some());
    let with_errors = view.partitions.iter().any(|p| p.error.is_some());
    let replicated = view.partitions.iter().any(|p| p.replicas.len() > 1);
    let mut columns = vec![("PARTITION", Align::Right), ("LEADER", Align::Right), ("EPOCH", Align::Right)];
    if replicated {
        columns.extend([("REPLICAS", Align::Left), ("ISR", Align::Left)]);
    }
    if with_admin {
        columns.push(("CORE", Align::Right));
    }
    columns.extend([("START", Align::Right), ("END", Align::Right)]);
    if with_admin {
        columns.push(("DURABLE", Align::Right));
    }
    columns.push(("SIZE", Align::Right));
    if with_admin {
        columns.push(("SEGMENTS", Align::Right));
    }
    if with_errors {
        columns.push(("ERROR", Align::Left));
    }
    let mut table = Table::new(&columns).indented(2);
    for p in &view.partitions {
        let mut row = vec![p.partition.to_string(), p.leader.to_string(), p.leader_epoch.to_string()];
        if replicated {
            row.extend([joined(&p.replicas), joined(&p.isr)]);
        }
        if with_admin {
            row.push(or_dash(p.core));
        }
        row.extend([or_dash(p.log_start), or_dash(p.high_watermark)]);
        if with_admin {
            row.push(or_dash(p.durable));
        }
        row.push(p.size_bytes.map_or("-".to_string(), bytes));
        if with_admin {
            row.push(or_dash(p.segments));
        }
        if with_errors {
            row.push(p.error.clone().unwrap_or_default());
        }
        table.row(row);
    }
    table
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or("-".to_string(), |value| value.to_string())
}

fn joined(nodes: &[i32]) -> String {
    nodes.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}
