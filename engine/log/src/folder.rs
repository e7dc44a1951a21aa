//! Whose a partition's folder is: a topic that is deleted and made again has the same name and other data.
//!
//! `partition.metadata` decides. A deleted partition's folder is removed only while it says so, a new one moves what a
//! deleted topic left out of its way, and neither depends on which of the two comes first. Runs on the file thread.

use crate::adopt::{AdoptError, METADATA_NAME, partition_metadata_text, read_partition_metadata};
use ringmill_reactor::{Fs, OpenMode};
use ringmill_types::{PartitionId, TopicId};
use std::io;
use std::path::Path;

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

/// Makes the folder this topic's. `holds_bytes`: the checkpoint knows of bytes in it, so it must not be another's.
pub(crate) fn settle(
    fs: &dyn Fs,
    dir: &Path,
    topic: TopicId,
    id: PartitionId,
    holds_bytes: bool,
) -> io::Result<()> {
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
    Ok(())
}

/// Removes the folder of a deleted partition, unless it is a later topic's by now.
pub(crate) fn remove(fs: &dyn Fs, dir: &Path, topic: TopicId, id: PartitionId) -> io::Result<()> {
    if !fs.exists(dir) || is_foreign(fs, dir, topic)? {
        return Ok(());
    }
    let doomed = rename_away(fs, dir, id)?;
    // A later topic's core may have made the folder its own since the look.
    if is_foreign(fs, &doomed, topic)? {
        return fs.rename(&doomed, dir);
    }
    fs.remove_dir_all(&doomed)
}

fn set_aside(fs: &dyn Fs, dir: &Path, id: PartitionId) -> io::Result<()> {
    tracing::info!(folder = %dir.display(), "removing what a deleted topic of that name left");
    let doomed = rename_away(fs, dir, id)?;
    fs.remove_dir_all(&doomed)
}

/// The name is free at once; the bytes go in their own time.
fn rename_away(fs: &dyn Fs, dir: &Path, id: PartitionId) -> io::Result<std::path::PathBuf> {
    let name = dir.file_name().and_then(|n| n.to_str()).unwrap_or("partition");
    let doomed = dir.with_file_name(format!("{name}.{:016x}-delete", id.0));
    if fs.exists(&doomed) {
        fs.remove_dir_all(&doomed)?;
    }
    fs.rename(dir, &doomed)?;
    if let Some(parent) = dir.parent() {
        fs.sync_dir(parent)?;
    }
    Ok(doomed)
}
