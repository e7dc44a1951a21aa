//! Partition folders that were put in place while the broker was stopped become topics.
//!
//! Only names are looked at when there is nothing new, so a start with many partitions stays fast. The core that gets a
//! partition reads its folder (engine/log/src/adopt.rs); here the topic gets into the journal, with the id its folders
//! carry and a leader epoch above any they have seen.

use crate::exit::{Failure, Reason};
use ringmill_log::adopt;
use ringmill_metadata::records::Configs;
use ringmill_metadata::{FileJournal, Image, Journal, PartitionRecord, Record};
use ringmill_reactor::Fs;
use ringmill_types::{LeaderEpoch, PartitionId};
use std::path::Path;

/// Journals the topics of folders that the image does not know.
///
/// # Errors
/// [`Reason::JournalFailed`], when the journal cannot be written; [`Reason::DataUnusable`], when a folder cannot be read;
/// [`Reason::DataDamaged`], when folders contradict each other.
pub fn settle(
    fs: &dyn Fs,
    data: &Path,
    cores: u16,
    journal: &mut FileJournal,
    image: &mut Image,
) -> Result<(), Failure> {
    let dir = data.join("topics");
    if !fs.exists(&dir) || !has_strangers(fs, &dir, image) {
        return Ok(());
    }
    let refused = |error: adopt::AdoptError| {
        let unreadable = matches!(error, adopt::AdoptError::Io { .. });
        let reason = if unreadable { Reason::DataUnusable } else { Reason::DataDamaged };
        Failure::new(reason, format!("{error}."))
    };
    let folders = adopt::find_folders(fs, &dir).map_err(refused)?;
    for topic in adopt::group_topics(&folders).map_err(refused)? {
        if image.named(&topic.name).is_some() {
            continue;
        }
        let count = usize::try_from(topic.partitions).unwrap_or(0);
        let epoch = LeaderEpoch(topic.latest_epoch.map_or(0, |latest| latest.0.saturating_add(1)));
        let placed = image.place(count, cores).into_iter().zip(image.next_partition()..);
        let partitions =
            placed.map(|(core, id)| PartitionRecord { id: PartitionId(id), core, epoch }).collect();
        let id = match topic.id {
            Some(id) => id,
            None => ringmill_control::new_topic_id()
                .map_err(|error| Failure::new(Reason::JournalFailed, format!("No random bytes: {error}.")))?,
        };
        let record = Record::TopicCreated {
            name: topic.name.clone(),
            id,
            created_ms: 0,
            configs: Configs::new(),
            partitions,
        };
        journal
            .append(std::slice::from_ref(&record))
            .map_err(|error| crate::boot::journal_failure(&error))?;
        image.apply(&record);
        tracing::info!(topic = topic.name, partitions = count, missing = ?topic.missing, "folders put in place became a topic");
    }
    Ok(())
}

/// Some folder belongs to no topic of the image.
fn has_strangers(fs: &dyn Fs, dir: &Path, image: &Image) -> bool {
    let Ok(entries) = fs.list(dir) else { return false };
    entries.iter().filter(|e| e.is_dir && !e.name.ends_with("-delete")).any(|entry| {
        let topic = entry.name.rsplit_once('-').map(|(topic, _)| topic);
        topic.is_some_and(|topic| image.named(topic).is_none())
    })
}
