//! Partitions that a core knows and whose ids the metadata journal never gave out: an id is in the journal before a core
//! hears of it, so somebody took decisions from the journal.
//!
//! Says what cores know. Whether it can be decided again is the matter of whoever reads the journal.

use super::core_files::walk_chain;
use super::{InspectError, at, repair};
use crate::format::checkpoint::{self, CheckpointError, PartitionState};
use ringmill_reactor::Fs;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A partition that the journal does not account for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unaccounted {
    pub id: u64,
    /// Whose checkpoint it is.
    pub core: u16,
    pub core_dir: PathBuf,
    /// What the checkpoint says of it; without, nothing but records in the core log is known.
    pub state: Option<PartitionState>,
}

/// What a core knows and `next_partition_id` does not account for. A core log that cannot be read is told elsewhere.
///
/// # Errors
/// [`InspectError::Io`].
pub fn unaccounted(
    fs: &dyn Fs,
    core_dir: &Path,
    next_partition_id: u64,
) -> Result<Vec<Unaccounted>, InspectError> {
    if !fs.exists(core_dir) {
        return Ok(Vec::new());
    }
    let newest = match checkpoint::read_newest(fs, core_dir) {
        Ok(Some(newest)) => newest,
        Err(CheckpointError::Io(error)) => return Err(at(core_dir)(error)),
        Ok(None) | Err(_) => return Ok(Vec::new()),
    };
    let chain = walk_chain(fs, core_dir, &newest).map_err(at(core_dir))?;
    let mut in_log: BTreeSet<u64> =
        chain.groups.iter().flat_map(|group| &group.named).map(|id| id.0).collect();
    let core = newest.core;
    let found = |id, state| Unaccounted { id, core, core_dir: core_dir.to_path_buf(), state };
    let mut all = Vec::new();
    for state in newest.partitions.into_iter().filter(|state| state.id >= next_partition_id) {
        in_log.remove(&state.id);
        all.push(found(state.id, Some(state)));
    }
    all.extend(in_log.range(next_partition_id..).map(|id| found(*id, None)));
    Ok(all)
}

impl Unaccounted {
    /// The sentence for it: the same from a start, from verify and from a core.
    pub fn sentence(&self, data_dir: &Path) -> String {
        lacking(data_dir, &self.core_dir, self.id, self.state.as_ref())
    }
}

pub(crate) fn lacking(data_dir: &Path, core_dir: &Path, id: u64, state: Option<&PartitionState>) -> String {
    let named = state.map_or("a partition".to_string(), |state| format!("{}-{}", state.topic, state.index));
    format!(
        "the metadata journal lacks decisions: {} knows {named} by id {id}, which {} never gave out. Nothing was changed. Put \
         the journal back from a copy made since the last change of --cores, or run `{}`, which takes from the cores what \
         they know of such topics",
        core_dir.display(),
        data_dir.join("meta/journal").display(),
        repair::command(data_dir, repair::Scope::CoreLogs)
    )
}
