//! What a data folder that was in use must still have. A journal or a core's folder that somebody took away would be made
//! anew, empty, and the start would say that all is well: so it is refused.
//!
//! Wherever a start is cut off, the next one is not refused for it, because each of these is durable before the next is
//! made; so one that is there says that all before it were:
//!
//! ```text
//! data folder ─▶ node.toml ─▶ meta/journal ─▶ folders of all cores ─▶ the journal places partitions on them
//! ```
//! A change to other cores takes folders away and places partitions before it makes new ones (`generation.rs`). From
//! before the first goes until the new cores have checkpoints, `node.toml` says `drained` or `handed-on` is there, and
//! then no folder is missed.

use crate::exit::{Failure, Reason};
use crate::identity::{self, DataFolder, Generation, Identity};
use ringmill_log::format::checkpoint::HANDED_ON_NAME;
use ringmill_metadata::Image;
use ringmill_metadata::journal::{Flaw, JOURNAL_DIR, JOURNAL_NAME, frames};
use ringmill_reactor::{Fs, OpenMode};
use std::path::{Path, PathBuf};

/// What a start would refuse to make anew, as sentences; what cannot be read is told elsewhere. Changes nothing.
pub fn look(fs: &dyn Fs, data: &Path, identity: &Identity) -> Vec<Failure> {
    let generation = &identity.generation;
    if let Err(failure) = journal(generation, data, fs) {
        return vec![failure];
    }
    core_logs(generation, data, &readable(fs, data).0, fs).err().into_iter().collect()
}

/// What the journal's records that can be read add up to, and whether they are all there are.
pub(crate) fn readable(fs: &dyn Fs, data: &Path) -> (Image, bool) {
    let bytes = fs.read_all(&data.join(JOURNAL_DIR).join(JOURNAL_NAME)).unwrap_or_default();
    let (mut image, mut whole) = (Image::new(), true);
    for frame in frames(&bytes) {
        match frame.holds {
            Ok(record) => image.apply(&record),
            Err(Flaw::TornTail) => {}
            Err(Flaw::Damage(_) | Flaw::Newer(_)) => whole = false,
        }
    }
    (image, whole)
}

/// Where cores were, there is a journal.
///
/// # Errors
/// [`Reason::DataDamaged`].
pub fn journal(generation: &Generation, data: &Path, fs: &dyn Fs) -> Result<(), Failure> {
    let path = data.join(JOURNAL_DIR).join(JOURNAL_NAME);
    let core_log = core_dirs(generation, data).find(|dir| fs.exists(dir));
    match core_log {
        Some(core_log) if is_gone(fs.open(&path, OpenMode::Read).map(drop), &path, "--data")? => {
            Err(damaged(format!(
                "{} is missing although core logs are there ({}): it says which topics there are, and whose the records in the \
             core logs are. Nothing was changed. Put it back from a copy made since the last change of \
             --cores; without one, keep this folder as it is, give the broker an empty --data, and put the partition folders \
             of {} there: their segments are adopted, and what was only in the core logs is lost.",
                path.display(),
                core_log.display(),
                data.join("topics").display(),
            )))
        }
        Some(_) | None => Ok(()),
    }
}

/// Every core that partitions are placed on has its folder, unless a change of cores is under way.
///
/// # Errors
/// [`Reason::DataDamaged`].
pub fn core_logs(generation: &Generation, data: &Path, image: &Image, fs: &dyn Fs) -> Result<(), Failure> {
    if generation.drained || fs.exists(&data.join(HANDED_ON_NAME)) {
        return Ok(());
    }
    let placed = |core: usize| {
        let mut partitions = image.topics().flat_map(|topic| &topic.partitions);
        partitions.any(|partition| usize::from(partition.core.0) == core)
    };
    let setting = if generation.log_dir.is_some() { "core.log.dir" } else { "--data" };
    for (_, dir) in core_dirs(generation, data).enumerate().filter(|(core, _)| placed(*core)) {
        if is_gone(fs.list(&dir).map(drop), &dir, setting)? {
            return Err(damaged(format!(
                "{} is missing, and it may hold acknowledged records. Nothing was changed. Put it back{}; or make an empty \
                 folder of that name to go on without what it held.",
                dir.display(),
                if generation.log_dir.is_some() { " (is the device of core.log.dir mounted?)" } else { "" },
            )));
        }
    }
    Ok(())
}

/// It is not there. What may only not be looked at is no reason to go on without it.
///
/// # Errors
/// [`Reason::DataUnusable`].
fn is_gone(looked: std::io::Result<()>, path: &Path, setting: &str) -> Result<bool, Failure> {
    match looked {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(identity::unusable_as(setting, path, "looked at", &error)),
    }
}

/// Makes the folders of cores, durably, before partitions are placed on them.
///
/// # Errors
/// [`Reason::DataUnusable`] or [`Reason::DiskFull`].
pub fn make_core_dirs(folder: &DataFolder, fs: &dyn Fs) -> Result<(), Failure> {
    for dir in core_dirs(&folder.identity.generation, &folder.path) {
        fs.create_dir_all(&dir)
            .and_then(|()| fs.sync_dir(dir.parent().unwrap_or(Path::new("."))))
            .map_err(|error| identity::unusable_as("core.log.dir or --data", &dir, "created", &error))?;
    }
    Ok(())
}

fn core_dirs(generation: &Generation, data: &Path) -> impl Iterator<Item = PathBuf> {
    (0..generation.cores).map(|core| generation.core_dir(data, core))
}

fn damaged(detail: String) -> Failure {
    Failure::new(Reason::DataDamaged, detail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use ringmill_metadata::records::Configs;
    use ringmill_metadata::{PartitionRecord, Record};
    use ringmill_reactor::stdfs::StdFs;
    use ringmill_types::{CoreId, LeaderEpoch, PartitionId, TopicId};

    /// A link that leads to itself stands for whatever keeps this user from looking: root may look anywhere.
    #[test]
    fn what_may_not_be_looked_at_is_not_called_missing() {
        let home = tempfile::tempdir().unwrap();
        let (data, logs) = (home.path().join("data"), home.path().join("logs"));
        std::fs::create_dir_all(data.join("core-0")).unwrap();
        let generation = |log_dir| Generation { number: 1, cores: 1, log_dir, drained: false };
        let mut image = Image::new();
        image.apply(&one_topic());
        let apart = generation(Some(logs.clone()));
        let told = |failure: Failure, path: &Path| {
            let expected = format!("{} cannot be looked at (", path.display());
            assert!(
                failure.reason == Reason::DataUnusable && failure.detail.starts_with(&expected),
                "{failure}"
            );
        };
        let gone = core_logs(&apart, &data, &image, &StdFs).unwrap_err();
        assert!(gone.reason == Reason::DataDamaged && gone.detail.contains("is missing"), "{gone}");
        std::os::unix::fs::symlink(&logs, &logs).unwrap();
        told(core_logs(&apart, &data, &image, &StdFs).unwrap_err(), &logs.join("core-0"));

        let here = generation(None);
        let gone = journal(&here, &data, &StdFs).unwrap_err();
        assert!(gone.reason == Reason::DataDamaged && gone.detail.contains("is missing"), "{gone}");
        let meta = data.join(JOURNAL_DIR);
        std::os::unix::fs::symlink(&meta, &meta).unwrap();
        told(journal(&here, &data, &StdFs).unwrap_err(), &meta.join(JOURNAL_NAME));
    }

    fn one_topic() -> Record {
        Record::TopicCreated {
            name: "t".into(),
            id: TopicId([1; 16]),
            created_ms: 0,
            configs: Configs::new(),
            partitions: vec![PartitionRecord { id: PartitionId(1), core: CoreId(0), epoch: LeaderEpoch(0) }],
        }
    }
}
