//! The two files of a data folder that are not the log's: the metadata journal and `node.toml`.
//!
//! Read with the code that reads them at a start, and reported like every other file. Nothing here changes a file.

use crate::output::counted;
use ringmill_broker::identity::{self, Identity};
use ringmill_broker::{Reason, lacking, missing};
use ringmill_log::inspect::{self, FileKind, InspectError, Report, Severity};
use ringmill_metadata::journal::{Flaw, JOURNAL_NAME, frames};
use ringmill_metadata::records::{Configs, QuotaEntity};
use ringmill_metadata::{PartitionRecord, Record, RecordError};
use ringmill_reactor::Fs;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A row of either file.
#[derive(Serialize)]
#[serde(tag = "row", rename_all = "kebab-case")]
pub enum OwnRow {
    Decision {
        position: u64,
        bytes: u64,
        #[serde(flatten)]
        decision: Decision,
    },
    Node(Node),
}

/// A record of the metadata journal.
#[derive(Serialize)]
#[serde(tag = "decision", rename_all = "kebab-case")]
pub enum Decision {
    TopicCreated {
        topic: String,
        topic_id: String,
        created_ms: i64,
        configs: Configs,
        partitions: Vec<Placed>,
    },
    PartitionsAdded {
        topic_id: String,
        partitions: Vec<Placed>,
    },
    TopicDeleted {
        topic_id: String,
    },
    TopicConfigs {
        topic_id: String,
        configs: Configs,
    },
    ResourceConfigs {
        resource_type: i8,
        resource: String,
        configs: Configs,
    },
    ClientQuotas {
        entity: QuotaEntity,
        quotas: BTreeMap<String, f64>,
    },
    Feature {
        feature: String,
        level: i16,
        epoch: i64,
    },
    ProducerIds {
        next: i64,
    },
    PartitionIds {
        next: u64,
    },
    Moved {
        partitions: Vec<Move>,
    },
}

/// A partition as a decision names it; its number is its place in the topic.
#[derive(Serialize)]
pub struct Placed {
    partition: u64,
    core: u16,
    leader_epoch: i32,
}

/// A partition that another core has now.
#[derive(Serialize)]
pub struct Move {
    partition: u64,
    core: u16,
}

/// What `node.toml` says.
#[derive(Serialize)]
pub struct Node {
    node_id: i32,
    cluster_id: String,
    generation: u64,
    cores: u16,
    core_log_dir: Option<PathBuf>,
    drained: bool,
    flush_method: Option<&'static str>,
}

impl Decision {
    fn of(record: Record) -> Decision {
        let placed = |partitions: Vec<PartitionRecord>| {
            let placed =
                |p: PartitionRecord| Placed { partition: p.id.0, core: p.core.0, leader_epoch: p.epoch.0 };
            partitions.into_iter().map(placed).collect()
        };
        match record {
            Record::TopicCreated { name, id, created_ms, configs, partitions } => Decision::TopicCreated {
                topic: name,
                topic_id: id.to_base64(),
                created_ms,
                configs,
                partitions: placed(partitions),
            },
            Record::PartitionsAdded { id, partitions } => {
                Decision::PartitionsAdded { topic_id: id.to_base64(), partitions: placed(partitions) }
            }
            Record::TopicDeleted { id } => Decision::TopicDeleted { topic_id: id.to_base64() },
            Record::TopicConfigs { id, configs } => {
                Decision::TopicConfigs { topic_id: id.to_base64(), configs }
            }
            Record::ResourceConfigs { kind, name, configs } => {
                Decision::ResourceConfigs { resource_type: kind, resource: name, configs }
            }
            Record::ClientQuotas { entity, quotas } => Decision::ClientQuotas {
                entity,
                quotas: quotas.into_iter().map(|(key, limit)| (key, limit.into())).collect(),
            },
            Record::Feature { name, level, epoch } => Decision::Feature { feature: name, level, epoch },
            Record::ProducerIds { next } => Decision::ProducerIds { next },
            Record::PartitionIds { next } => Decision::PartitionIds { next },
            Record::Placed { moves } => Decision::Moved {
                partitions: moves
                    .into_iter()
                    .map(|(id, core)| Move { partition: id.0, core: core.0 })
                    .collect(),
            },
        }
    }
}

impl fmt::Display for OwnRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OwnRow::Decision { position, bytes, decision } => {
                write!(f, "record at {position}, {bytes} bytes: {decision}")
            }
            OwnRow::Node(node) => write!(
                f,
                "node {} of cluster {}: core logs of generation {}, {}, {}{}, flush method {}",
                node.node_id,
                node.cluster_id,
                node.generation,
                counted(node.cores.into(), "core"),
                node.core_log_dir.as_deref().map_or("in the data folder".into(), |dir| dir.to_string_lossy()),
                if node.drained { ", drained" } else { "" },
                node.flush_method.unwrap_or("not measured yet")
            ),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decision::TopicCreated { topic, topic_id, created_ms, configs, partitions } => {
                write!(f, "topic {topic} created, id {topic_id}, at {created_ms} ms, configs {configs:?}")?;
                show_placed(f, partitions)
            }
            Decision::PartitionsAdded { topic_id, partitions } => {
                write!(f, "topic id {topic_id} got more partitions")?;
                show_placed(f, partitions)
            }
            Decision::TopicDeleted { topic_id } => write!(f, "topic id {topic_id} deleted"),
            Decision::TopicConfigs { topic_id, configs } => {
                write!(f, "topic id {topic_id} has configs {configs:?}")
            }
            Decision::ResourceConfigs { resource_type, resource, configs } => {
                write!(f, "resource {resource:?} of type {resource_type} has configs {configs:?}")
            }
            Decision::ClientQuotas { entity, quotas } => {
                write!(f, "clients {entity:?} have quotas {quotas:?}")
            }
            Decision::Feature { feature, level, epoch } => {
                write!(f, "feature {feature} has level {level}, epoch {epoch}")
            }
            Decision::ProducerIds { next } => write!(f, "producer ids below {next} are given out"),
            Decision::PartitionIds { next } => write!(f, "partition ids below {next} are given out"),
            Decision::Moved { partitions } => {
                f.write_str("partitions moved:")?;
                partitions.iter().try_for_each(|p| write!(f, " {} to core {}", p.partition, p.core))
            }
        }
    }
}

fn show_placed(f: &mut fmt::Formatter<'_>, partitions: &[Placed]) -> fmt::Result {
    f.write_str(", partitions:")?;
    let mut pairs = partitions.iter();
    pairs.try_for_each(|p| write!(f, " {} on core {} epoch {}", p.partition, p.core, p.leader_epoch))
}

/// What a file is, by its name; `None` when it is not one of the two.
pub fn kind_of(path: &Path) -> Option<FileKind> {
    match path.file_name()?.to_str()? {
        JOURNAL_NAME => Some(FileKind::MetadataJournal),
        identity::NODE_TOML => Some(FileKind::NodeIdentity),
        _ => None,
    }
}

/// The core logs of a data folder that keeps them elsewhere (`core.log.dir`); its `node.toml` knows. One that cannot be read
/// has a report of its own, and what is not there is found missing in it.
pub fn core_logs_elsewhere(fs: &dyn Fs, data: &Path) -> Vec<PathBuf> {
    let Ok(identity) = identity::read(fs, &data.join(identity::NODE_TOML)) else { return Vec::new() };
    let generation = identity.generation;
    if generation.log_dir.is_none() || generation.drained {
        return Vec::new();
    }
    let dirs = (0..generation.cores).map(|core| generation.core_dir(data, core));
    dirs.filter(|dir| fs.list(dir).is_ok()).collect()
}

/// What segments of a data folder lack of what its cores' checkpoints say, into the reports on them. Nothing is asked of
/// anything else, nor where the journal cannot say which partitions there are.
///
/// # Errors
/// Something cannot be read at all.
pub fn compare_segments(fs: &dyn Fs, data: &Path, reports: &mut Vec<Report>) -> Result<(), InspectError> {
    let Ok(identity) = identity::read(fs, &data.join(identity::NODE_TOML)) else { return Ok(()) };
    let Some(decisions) = lacking::decided(fs, data) else { return Ok(()) };
    let generation = identity.generation;
    (0..generation.cores)
        .map(|core| generation.core_dir(data, core))
        .try_for_each(|dir| inspect::compare(fs, data, &dir, &decisions, reports))
}

/// Shows the rows of a metadata journal and says what is wrong with it.
///
/// # Errors
/// It cannot be read at all.
pub fn journal(fs: &dyn Fs, path: &Path, emit: &mut dyn FnMut(OwnRow)) -> io::Result<Report> {
    let mut report = Report::new(path, FileKind::MetadataJournal);
    let bytes = fs.read_all(path)?;
    report.file_bytes = bytes.len() as u64;
    for frame in frames(&bytes) {
        let (position, bytes) = (frame.at as u64, frame.bytes as u64);
        match frame.holds {
            Ok(record) => {
                report.used_bytes += bytes;
                report.rows += 1;
                emit(OwnRow::Decision { position, bytes, decision: Decision::of(record) });
            }
            Err(Flaw::TornTail) => report.note(
                position,
                format!("{bytes} bytes of a record that was cut off before it was answered; the next start drops them"),
            ),
            Err(Flaw::Newer(kind)) => report.newer(position, RecordError::UnknownKind(kind).to_string()),
            Err(Flaw::Damage(error)) => {
                report.damage(position, format!("{error}: {bytes} bytes that were acknowledged"));
            }
        }
    }
    Ok(report)
}

/// Shows what `node.toml` says, whether a start could go by it, and what it says is there and is not.
///
/// # Errors
/// It cannot be read at all.
pub fn node(fs: &dyn Fs, path: &Path, emit: &mut dyn FnMut(OwnRow)) -> io::Result<Report> {
    let mut report = Report::new(path, FileKind::NodeIdentity);
    report.file_bytes = fs.read_all(path)?.len() as u64;
    match identity::read(fs, path) {
        Ok(identity) => {
            report.used_bytes = report.file_bytes;
            report.rows = 1;
            let data = path.parent().unwrap_or(Path::new("."));
            let mut refused = missing::look(fs, data, &identity);
            if refused.is_empty() {
                refused.extend(lacking::told(fs, data, &identity.generation));
            }
            for failure in refused {
                report.find(Severity::Damage, None, failure.to_string());
            }
            emit(OwnRow::Node(Node::of(identity)));
        }
        Err(failure) if failure.reason == Reason::NewerFormat => report.newer(0, failure.to_string()),
        Err(failure) => report.damage(0, failure.to_string()),
    }
    Ok(report)
}

impl Node {
    fn of(identity: Identity) -> Node {
        Node {
            node_id: identity.node_id,
            cluster_id: identity.cluster_id,
            generation: identity.generation.number,
            cores: identity.generation.cores,
            core_log_dir: identity.generation.log_dir,
            drained: identity.generation.drained,
            flush_method: identity.flush.map(|probed| probed.method.name()),
        }
    }
}
