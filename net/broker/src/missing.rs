//! What a data folder that was in use must still have. A journal or a core's folder that somebody took away would be made
//! anew, empty, and the start would say that all is well: so it is refused.
//!
//! The order in which a start makes things tells "not made yet" from "taken away": the journal before any core's folder,
//! every core's folder before a topic has partitions on it.

use crate::exit::{Failure, Reason};
use crate::identity::DataFolder;
use ringmill_log::format::checkpoint::HANDED_ON_NAME;
use ringmill_metadata::Image;
use ringmill_metadata::journal::{JOURNAL_DIR, JOURNAL_NAME};
use ringmill_reactor::Fs;
use std::path::{Path, PathBuf};

/// Where cores were, there is a journal.
///
/// # Errors
/// [`Reason::DataDamaged`].
pub fn journal(folder: &DataFolder, fs: &dyn Fs) -> Result<(), Failure> {
    let path = folder.path.join(JOURNAL_DIR).join(JOURNAL_NAME);
    let core_log = core_dirs(folder).find(|dir| fs.exists(dir));
    match core_log.filter(|_| !fs.exists(&path)) {
        Some(core_log) => Err(damaged(format!(
            "{} is missing although core logs are there ({}): it says which topics there are, and whose the records in the \
             core logs are. Nothing was changed. Put it back from a copy; without one, keep this folder as it is, give the \
             broker an empty --data, and put the partition folders of {} there: their segments are adopted, and what was \
             only in the core logs is lost.",
            path.display(),
            core_log.display(),
            folder.path.join("topics").display(),
        ))),
        None => Ok(()),
    }
}

/// Every core that partitions were placed on has its folder. Not to be asked of a start that changes cores.
///
/// # Errors
/// [`Reason::DataDamaged`].
pub fn core_logs(folder: &DataFolder, image: &Image, fs: &dyn Fs) -> Result<(), Failure> {
    // A change to other cores was cut off before they ran: what they need is in that file.
    let begins = fs.exists(&folder.path.join(HANDED_ON_NAME));
    let placed = |core: usize| {
        let mut partitions = image.topics().flat_map(|topic| &topic.partitions);
        partitions.any(|partition| usize::from(partition.core.0) == core)
    };
    let missing = core_dirs(folder).enumerate().find(|(core, dir)| !fs.exists(dir) && placed(*core));
    match missing.filter(|_| !begins) {
        Some((_, dir)) => Err(damaged(format!(
            "{} is missing, and it may hold acknowledged records. Nothing was changed. Put it back; or make an empty \
             folder of that name to go on without what it held.",
            dir.display()
        ))),
        None => Ok(()),
    }
}

/// Makes the folders of cores, durably, before partitions are placed on them.
///
/// # Errors
/// [`Reason::DataUnusable`] or [`Reason::DiskFull`].
pub fn make_core_dirs(folder: &DataFolder, fs: &dyn Fs) -> Result<(), Failure> {
    for dir in core_dirs(folder) {
        fs.create_dir_all(&dir)
            .and_then(|()| fs.sync_dir(dir.parent().unwrap_or(Path::new("."))))
            .map_err(|error| crate::identity::unusable_as("core.log.dir or --data", &dir, "created", &error))?;
    }
    Ok(())
}

fn core_dirs(folder: &DataFolder) -> impl Iterator<Item = PathBuf> {
    let generation = &folder.identity.generation;
    (0..generation.cores).map(|core| generation.core_dir(&folder.path, core))
}

fn damaged(detail: String) -> Failure {
    Failure::new(Reason::DataDamaged, detail)
}
