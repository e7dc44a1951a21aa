//! Partition folders by their names and small files, and the topics they add up to.

use super::{AdoptError, EPOCHS_NAME, METADATA_NAME, at};
use crate::epochs::EpochCache;
use ringmill_reactor::{Fs, OpenMode};
use ringmill_types::limits::{PARTITIONS_MAX, TOPIC_NAME_BYTES_MAX};
use ringmill_types::{LeaderEpoch, TopicId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A text file beside segments that is larger was not written by Kafka.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// Content of `partition.metadata`.
pub fn partition_metadata_text(id: TopicId) -> String {
    format!("version: 0\ntopic_id: {}", id.to_base64())
}

/// The topic id in a `partition.metadata`; `None` when it is not Kafka's form, version 0.
pub fn parse_partition_metadata(text: &str) -> Option<TopicId> {
    let mut lines = text.lines();
    if lines.next()?.strip_prefix("version:")?.trim() != "0" {
        return None;
    }
    let id = TopicId::from_base64(lines.next()?.strip_prefix("topic_id:")?.trim())?;
    (id != TopicId::ZERO).then_some(id)
}

/// Topic and partition behind a folder name `TOPIC-N`, as Kafka takes it apart: at the last hyphen.
pub fn parse_folder_name(name: &str) -> Option<(&str, i32)> {
    let (topic, index) = name.rsplit_once('-')?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let topic_fits =
        !topic.is_empty() && topic.len() <= TOPIC_NAME_BYTES_MAX && topic != "." && topic != "..";
    if !topic_fits
        || !topic.bytes().all(legal)
        || index.is_empty()
        || !index.bytes().all(|b| b.is_ascii_digit())
    {
        return None;
    }
    index.parse().ok().map(|index| (topic, index))
}

/// A partition folder below `topics/`, as far as its names and small files tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFolder {
    pub dir: PathBuf,
    pub topic: String,
    pub index: i32,
    /// From `partition.metadata`; none where there is no such file.
    pub topic_id: Option<TopicId>,
    /// Newest leader epoch: whoever takes the partition over must go on above it.
    pub latest_epoch: Option<LeaderEpoch>,
}

/// The partition folders below `topics_dir`, in name order. Names that are no partition's (`…-delete`, `lost+found`)
/// are passed over.
///
/// # Errors
/// [`AdoptError`] when a folder or one of the small files cannot be read.
pub fn find_folders(fs: &dyn Fs, topics_dir: &Path) -> Result<Vec<FoundFolder>, AdoptError> {
    let mut found = Vec::new();
    for entry in fs.list(topics_dir).map_err(at(topics_dir))?.into_iter().filter(|e| e.is_dir) {
        let Some((topic, index)) = parse_folder_name(&entry.name) else { continue };
        let dir = topics_dir.join(&entry.name);
        found.push(FoundFolder {
            topic: topic.to_string(),
            index,
            topic_id: read_partition_metadata(fs, &dir)?,
            latest_epoch: read_epochs(fs, &dir)?.and_then(|e| e.latest()).map(|(epoch, _)| epoch),
            dir,
        });
    }
    Ok(found)
}

fn read_text(fs: &dyn Fs, path: &Path) -> Result<Option<String>, AdoptError> {
    if !fs.exists(path) {
        return Ok(None);
    }
    let refuse = |what: &str| AdoptError::Text { path: path.to_path_buf(), what: what.to_string() };
    let file = fs.open(path, OpenMode::Read).map_err(at(path))?;
    if fs.len(&file).map_err(at(path))? > TEXT_BYTES_MAX {
        return Err(refuse("far too large"));
    }
    let bytes = fs.read_all(path).map_err(at(path))?;
    String::from_utf8(bytes).map(Some).map_err(|_| refuse("not text"))
}

/// The topic id of a partition folder; `None` when it has no `partition.metadata`.
///
/// # Errors
/// [`AdoptError::Io`], [`AdoptError::Text`].
pub fn read_partition_metadata(fs: &dyn Fs, dir: &Path) -> Result<Option<TopicId>, AdoptError> {
    let path = dir.join(METADATA_NAME);
    let Some(text) = read_text(fs, &path)? else { return Ok(None) };
    match parse_partition_metadata(&text) {
        Some(id) => Ok(Some(id)),
        None => Err(AdoptError::Text { path, what: "not `version: 0` and `topic_id: …`".to_string() }),
    }
}

/// The leader epochs of a partition folder; `None` when it has no `leader-epoch-checkpoint`.
///
/// # Errors
/// [`AdoptError::Io`], [`AdoptError::Text`].
pub fn read_epochs(fs: &dyn Fs, dir: &Path) -> Result<Option<EpochCache>, AdoptError> {
    let path = dir.join(EPOCHS_NAME);
    let Some(text) = read_text(fs, &path)? else { return Ok(None) };
    match EpochCache::from_text(&text) {
        Ok(epochs) => Ok(Some(epochs)),
        Err(error) => Err(AdoptError::Text { path, what: error.to_string() }),
    }
}

/// A topic as its folders tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundTopic {
    pub name: String,
    /// None where no folder has a `partition.metadata`: the topic gets a new id.
    pub id: Option<TopicId>,
    /// The highest number found, and one. How many there were where it came from cannot be known.
    pub partitions: i32,
    /// Numbers below `partitions` without a folder: made empty.
    pub missing: Vec<i32>,
    /// The newest leader epoch of any partition: whoever takes the topic over goes on above it.
    pub latest_epoch: Option<LeaderEpoch>,
}

/// The topics that folders add up to, in name order.
///
/// # Errors
/// [`AdoptError::TwoTopicIds`] and [`AdoptError::PartitionNumber`].
pub fn group_topics(folders: &[FoundFolder]) -> Result<Vec<FoundTopic>, AdoptError> {
    let mut by_name: BTreeMap<&str, Vec<&FoundFolder>> = BTreeMap::new();
    for folder in folders {
        if usize::try_from(folder.index).map_or(true, |index| index >= PARTITIONS_MAX) {
            return Err(AdoptError::PartitionNumber { dir: folder.dir.clone() });
        }
        by_name.entry(&folder.topic).or_default().push(folder);
    }
    by_name.into_iter().map(|(name, folders)| topic_of(name, &folders)).collect()
}

fn topic_of(name: &str, folders: &[&FoundFolder]) -> Result<FoundTopic, AdoptError> {
    let first = folders.iter().find(|f| f.topic_id.is_some());
    if let Some(first) = first
        && let Some(other) = folders.iter().find(|f| f.topic_id.is_some() && f.topic_id != first.topic_id)
    {
        return Err(AdoptError::TwoTopicIds { dir: first.dir.clone(), other: other.dir.clone() });
    }
    let mut present: Vec<i32> = folders.iter().map(|f| f.index).collect();
    present.sort_unstable();
    let partitions = present.last().map_or(0, |last| last + 1);
    Ok(FoundTopic {
        name: name.to_string(),
        id: first.and_then(|f| f.topic_id),
        partitions,
        missing: (0..partitions).filter(|n| present.binary_search(n).is_err()).collect(),
        latest_epoch: folders.iter().filter_map(|f| f.latest_epoch).max(),
    })
}
