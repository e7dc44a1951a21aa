//! Whose a partition's folder is: a topic that is deleted and made again has the same name and other data.
//!
//! `partition.metadata` decides. A deleted partition's folder is removed only while it says so, and a new one moves what a
//! deleted topic left out of its way: after a restart, whichever of the two comes first. Within one process the cores
//! learn of topics each in their own time, so a name is held by one partition until that one is removed. Runs on the file
//! thread.

use crate::adopt::{AdoptError, METADATA_NAME, partition_metadata_text, read_partition_metadata};
use ringmill_reactor::{Fs, OpenMode};
use ringmill_types::{PartitionId, TopicId};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Which partition holds the name of a folder, among all cores of a process.
///
/// The core of a deleted partition may not have heard of it yet when another core wants the folder for the next topic of
/// that name. Until it has, it creates, seals and unlinks files by that name.
#[derive(Clone, Debug, Default)]
pub struct FolderNames(Arc<Mutex<HashMap<PathBuf, PartitionId>>>);

impl FolderNames {
    /// Gives the holder: `id`, unless another partition was there first.
    fn take(&self, dir: &Path, id: PartitionId) -> PartitionId {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get(dir) {
            Some(holder) => *holder,
            None => *held.entry(dir.to_path_buf()).or_insert(id),
        }
    }

    /// For a partition that has bytes in the folder since an earlier life.
    pub(crate) fn inherit(&self, dir: &Path, id: PartitionId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_path_buf(), id);
    }

    pub(crate) fn release(&self, dir: &Path, id: PartitionId) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.get(dir) == Some(&id) {
            held.remove(dir);
        }
    }
}

/// The topic named in the folder; `None` where none can be read, as after a cut while it was being made.
fn topic_of(fs: &dyn Fs, dir: &Path) -> io::Result<Option<TopicId>> {
    match read_partition_metadata(fs, dir) {
        Ok(topic) => Ok(topic),
        Err(AdoptError::Io { error, .. }) => Err(error),
        // Half of it may be there after a cut; it is written anew.
        Err(_) => Ok(None),
    }
}

/// The folder says that it is another topic's.
pub(crate) fn is_foreign(fs: &dyn Fs, dir: &Path, topic: TopicId) -> io::Result<bool> {
    Ok(fs.exists(dir) && topic_of(fs, dir)?.is_some_and(|found| found != topic))
}

/// Makes the folder this topic's; false while a deleted partition, which its core has not removed yet, holds the name.
/// `holds_bytes`: the checkpoint knows of bytes in it, so it must not be another's.
pub(crate) fn settle(
    fs: &dyn Fs,
    names: &FolderNames,
    dir: &Path,
    topic: TopicId,
    id: PartitionId,
    holds_bytes: bool,
) -> io::Result<bool> {
    if names.take(dir, id) != id {
        return Ok(false);
    }
    if is_foreign(fs, dir, topic)? {
        if holds_bytes {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is another topic's, by its {METADATA_NAME}", dir.display()),
            ));
        }
        set_aside(fs, dir, id)?;
    }
    fs.create_dir_all(dir)?;
    if topic_of(fs, dir)?.is_none() {
        let file = fs.open(&dir.join(METADATA_NAME), OpenMode::Create)?;
        fs.set_len(&file, 0)?;
        fs.write_at(&file, partition_metadata_text(topic).as_bytes(), 0)?;
        fs.sync_data(&file)?;
    }
    Ok(true)
}

/// Removes the folder of a deleted partition, unless it is a later topic's by now, and gives up its name.
pub(crate) fn remove(
    fs: &dyn Fs,
    names: &FolderNames,
    dir: &Path,
    topic: TopicId,
    id: PartitionId,
) -> io::Result<()> {
    // Whoever holds the name without this one's doing is a later topic, and sets aside what is not its own.
    if names.take(dir, id) != id {
        return Ok(());
    }
    let doomed = rename_own(fs, dir, topic, id);
    names.release(dir, id);
    doomed?.map_or(Ok(()), |doomed| fs.remove_dir_all(&doomed))
}

fn rename_own(fs: &dyn Fs, dir: &Path, topic: TopicId, id: PartitionId) -> io::Result<Option<PathBuf>> {
    if !fs.exists(dir) || is_foreign(fs, dir, topic)? {
        return Ok(None);
    }
    rename_away(fs, dir, id).map(Some)
}

/// Gives what a deleted topic left after a crash a name that nobody serves; whoever asks for [`doomed_folders`] removes it.
///
/// # Errors
/// Whatever the file system says.
pub fn rename_leftover(fs: &dyn Fs, dir: &Path, topic: TopicId) -> io::Result<()> {
    // No partition has this id.
    if is_foreign(fs, dir, topic)? { Ok(()) } else { rename_away(fs, dir, PartitionId(0)).map(drop) }
}

/// Folders of deleted partitions whose removal a crash cut off.
///
/// # Errors
/// Whatever the file system says.
pub fn doomed_folders(fs: &dyn Fs, topics_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs.list(topics_dir)?.into_iter().filter(|entry| entry.is_dir && is_doomed(&entry.name));
    Ok(entries.map(|entry| topics_dir.join(entry.name)).collect())
}

/// `NAME-N.IDIDIDIDIDIDIDID-delete`, and nothing that Kafka or a user may have named.
fn is_doomed(name: &str) -> bool {
    let id = name.strip_suffix("-delete").and_then(|rest| rest.rsplit_once('.'));
    id.is_some_and(|(_, id)| id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn set_aside(fs: &dyn Fs, dir: &Path, id: PartitionId) -> io::Result<()> {
    tracing::info!(folder = %dir.display(), "removing what a deleted topic of that name left");
    let doomed = rename_away(fs, dir, id)?;
    fs.remove_dir_all(&doomed)
}

/// What a folder is called while it is being removed. Names of 249 characters are legal and leave no room for more, so the
/// name loses its end: the id says whose it was.
fn doomed_name(name: &str, id: PartitionId) -> String {
    const FILE_NAME_BYTES_MAX: usize = 255;
    let ending = format!(".{:016x}-delete", id.0);
    // Topics are named in ASCII.
    format!("{}{ending}", name.get(..FILE_NAME_BYTES_MAX - ending.len()).unwrap_or(name))
}

/// The name is free at once; the bytes go in their own time.
fn rename_away(fs: &dyn Fs, dir: &Path, id: PartitionId) -> io::Result<PathBuf> {
    let name = dir.file_name().and_then(|n| n.to_str()).unwrap_or("partition");
    let doomed = dir.with_file_name(doomed_name(name, id));
    if fs.exists(&doomed) {
        fs.remove_dir_all(&doomed)?;
    }
    fs.rename(dir, &doomed)?;
    if let Some(parent) = dir.parent() {
        fs.sync_dir(parent)?;
    }
    Ok(doomed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ringmill_reactor::stdfs::StdFs;

    #[test]
    fn the_longest_name_leaves_room_for_whose_it_was() {
        let longest = format!("{}-12345", "n".repeat(249));
        assert_eq!(longest.len(), 255);
        let doomed = doomed_name(&longest, PartitionId(0xaa));
        assert_eq!(doomed.len(), 255);
        assert!(doomed.ends_with("n.00000000000000aa-delete") && is_doomed(&doomed));
        assert_eq!(doomed_name("orders-0", PartitionId(0xaa)), "orders-0.00000000000000aa-delete");

        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join(&longest);
        let (first, second) = (TopicId([1; 16]), TopicId([2; 16]));
        settle(&StdFs, &FolderNames::default(), &dir, first, PartitionId(1), false).unwrap();
        let names = FolderNames::default();
        settle(&StdFs, &names, &dir, second, PartitionId(2), false).unwrap();
        assert!(is_foreign(&StdFs, &dir, first).unwrap());
        remove(&StdFs, &names, &dir, second, PartitionId(2)).unwrap();
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_name_is_one_partitions_until_that_one_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("orders-0");
        let names = FolderNames::default();
        let (old, new) = ((TopicId([1; 16]), PartitionId(1)), (TopicId([2; 16]), PartitionId(2)));
        assert!(settle(&StdFs, &names, &dir, old.0, old.1, false).unwrap());
        // The new one's core knows first that the old one is deleted.
        assert!(!settle(&StdFs, &names, &dir, new.0, new.1, false).unwrap());
        assert!(!is_foreign(&StdFs, &dir, old.0).unwrap());
        remove(&StdFs, &names, &dir, old.0, old.1).unwrap();
        assert!(!dir.exists());
        assert!(settle(&StdFs, &names, &dir, new.0, new.1, false).unwrap());
        // Somebody who was deleted before it ever had a folder.
        assert!(!settle(&StdFs, &names, &dir, old.0, old.1, false).unwrap());
        remove(&StdFs, &names, &dir, old.0, old.1).unwrap();
        assert!(is_foreign(&StdFs, &dir, old.0).unwrap());
        // As at a stop of its core.
        names.release(&dir, old.1);
        names.release(&dir, new.1);
        assert!(settle(&StdFs, &names, &dir, TopicId([3; 16]), PartitionId(3), false).unwrap());
    }

    #[test]
    fn only_names_of_ours_are_removed() {
        for (name, ours) in [
            ("orders-0.00000000000000aa-delete", true),
            ("a.b-12.0123456789abcdef-delete", true),
            ("orders-0", false),
            ("orders-delete", false),
            ("orders-0.aa-delete", false),
            // Kafka's own, with a UUID: not ours to remove.
            ("orders-0.0123456789abcdef0123456789abcdef-delete", false),
        ] {
            assert_eq!(is_doomed(name), ours, "{name}");
        }
    }
}
