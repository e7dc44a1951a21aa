//! Partition folders that were put in place while the broker was stopped become topics.
//!
//! Only names are looked at when there is nothing new, so a start with many partitions stays fast. The core that gets a
//! partition reads its folder (engine/log/src/adopt.rs); here the topic gets into the journal, with the id its folders
//! carry and a leader epoch above any they have seen.
//!
//! What a deleted topic left when a crash cut its deletion off looks the same, so that is cleared first: the journal
//! remembers what was deleted until a start has done so.

use crate::exit::{Failure, Reason};
use crate::identity::{self, DataFolder};
use crate::lacking;
use ringmill_log::format::checkpoint;
use ringmill_log::inspect::Depth;
use ringmill_log::{adopt, folder};
use ringmill_metadata::records::Configs;
use ringmill_metadata::{FileJournal, Image, Journal, PartitionRecord, Record};
use ringmill_reactor::Fs;
use ringmill_types::{LeaderEpoch, PartitionId};
use std::path::Path;
use std::sync::Arc;

/// Finishes deletions that a crash cut off, so that no folder of a deleted topic is taken for one that was put in place.
/// After an orderly stop all deletions were finished, and a folder with a deleted topic's id is one that somebody brought
/// back. Before any core is started, for it goes by their last checkpoints.
///
/// # Errors
/// [`Reason::DataUnusable`], when a folder cannot be renamed; [`Reason::DataDamaged`], when the journal lacks decisions.
pub fn clear_deleted(
    fs: &Arc<dyn Fs>,
    data: &DataFolder,
    journal: &mut FileJournal,
    image: &mut Image,
) -> Result<(), Failure> {
    let dir = data.path.join("topics");
    if !fs.exists(&dir) {
        return Ok(());
    }
    let unusable = |error: std::io::Error| identity::unusable_as("--data", &dir, "used", &error);
    let strangers = strangers(fs.as_ref(), &dir, image).map_err(unusable)?;
    if !strangers.is_empty() {
        // They may be of topics that the journal lacks, and that nothing but a core log knows.
        lacking::check(fs.as_ref(), &data.path, &data.identity.generation, image, Depth::Log)?;
    }
    if !strangers.is_empty() && was_cut_off(fs.as_ref(), data) {
        for name in strangers {
            let dir = dir.join(name);
            // One that cannot be read is told when it would be adopted.
            let topic = adopt::read_partition_metadata(fs.as_ref(), &dir).ok().flatten();
            if let Some(topic) = topic.filter(|topic| image.is_deleted(*topic)) {
                folder::rename_leftover(fs.as_ref(), &dir, topic).map_err(unusable)?;
                tracing::info!(folder = %dir.display(), "its topic was deleted before a crash; the deletion is finished now");
            }
        }
    }
    // Without this a later start would take a folder that somebody brought back for a leftover.
    if image.forget_deleted()
        && let Err(error) = journal.compact(image)
    {
        tracing::warn!(%error, "the journal could not be rewritten without the topics that were deleted");
    }
    let doomed = folder::doomed_folders(fs.as_ref(), &dir).map_err(unusable)?;
    sweep(Arc::clone(fs), doomed);
    Ok(())
}

/// Removes folders that have no name any more; large ones take a while, and nobody waits for it.
fn sweep(fs: Arc<dyn Fs>, doomed: Vec<std::path::PathBuf>) {
    if doomed.is_empty() {
        return;
    }
    let remove = move || {
        for dir in doomed {
            if let Err(error) = fs.remove_dir_all(&dir) {
                tracing::warn!(%error, folder = %dir.display(), "what a deleted topic left could not be removed; the next start tries again");
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("sweep".into()).spawn(remove) {
        tracing::warn!(%error, "what deleted topics left is not removed; the next start tries again");
    }
}

/// The last life did not end in order, as far as can be known.
pub fn was_cut_off(fs: &dyn Fs, data: &DataFolder) -> bool {
    let generation = &data.identity.generation;
    let orderly = |core| match checkpoint::read_newest(fs, &generation.core_dir(&data.path, core)) {
        Ok(newest) => newest.is_none_or(|newest| newest.clean),
        Err(_) => false,
    };
    !(0..generation.cores).all(orderly)
}

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
    let unread = |error: std::io::Error| identity::unusable_as("--data", &dir, "read", &error);
    if !fs.exists(&dir) || strangers(fs, &dir, image).map_err(unread)?.is_empty() {
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

/// Names of folders that belong to no partition of the image.
fn strangers(fs: &dyn Fs, dir: &Path, image: &Image) -> std::io::Result<Vec<String>> {
    let names = fs.list(dir)?.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name);
    let is_stranger = |name: &String| {
        let Some((topic, index)) = adopt::parse_folder_name(name) else { return false };
        let known = image.named(topic).map_or(0, |topic| topic.partitions.len());
        usize::try_from(index).map_or(true, |index| index >= known)
    };
    Ok(names.filter(is_stranger).collect())
}
