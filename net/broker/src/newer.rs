//! What a newer version left in a data folder that this one does not know: going back to an older version is no damage, and
//! nothing of it may be dropped, repaired or made anew. So it is looked for before anything is touched, by a start and by a
//! repair, and `node.toml` (`identity.rs`), whose `format` is raised for what cannot be seen in a file, comes first.

use crate::boot::journal_failure;
use crate::exit::{Failure, Reason};
use crate::identity::Identity;
use ringmill_log::inspect;
use ringmill_metadata::{JournalError, journal};
use ringmill_reactor::Fs;
use std::path::{Path, PathBuf};

/// Refuses a folder in which a newer version wrote the journal, a checkpoint or the record of a compaction.
///
/// # Errors
/// [`Reason::NewerFormat`]; [`Reason::DataUnusable`] or [`Reason::JournalFailed`] where it cannot be looked at.
pub fn check(fs: &dyn Fs, data: &Path, identity: Option<&Identity>) -> Result<(), Failure> {
    journal::look(fs, data).map_err(|error| match error {
        JournalError::Newer { .. } => newer(&error),
        JournalError::Io { .. } | JournalError::Damaged { .. } => journal_failure(&error),
    })?;
    let core_dirs: Vec<PathBuf> = identity.map_or_else(Vec::new, |identity| {
        let generation = &identity.generation;
        (0..generation.cores).map(|core| generation.core_dir(data, core)).collect()
    });
    match inspect::newer(fs, data, &core_dirs) {
        Ok(None) => Ok(()),
        Ok(Some(found)) => Err(newer(&found)),
        Err(error) => Err(Failure::new(Reason::DataUnusable, format!("{error}."))),
    }
}

fn newer(what: &dyn std::fmt::Display) -> Failure {
    Failure::new(Reason::NewerFormat, format!("{what}. Nothing was touched."))
}
