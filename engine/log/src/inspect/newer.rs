//! What a newer version wrote, told by its first bytes. Nobody here can say what it holds, so it is refused as a whole,
//! before anything is touched, and never called damage: a repair would throw away what the newer version can read.

use super::{InspectError, at};
use crate::format::checkpoint::{self, CheckpointError, HANDED_ON_NAME, SLOT_NAMES};
use crate::format::given_up::{self, GIVEN_UP_NAME};
use crate::format::swap::{self, SWAP_NAME};
use ringmill_reactor::Fs;
use std::fmt;
use std::path::{Path, PathBuf};

/// A file of a version that this one does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newer {
    pub path: PathBuf,
    pub what: String,
}

impl fmt::Display for Newer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}

/// The first such file of the log's in a data folder, whose cores have their folders in `core_dirs`. Quick.
///
/// # Errors
/// [`InspectError::Io`].
pub fn newer(fs: &dyn Fs, data_dir: &Path, core_dirs: &[PathBuf]) -> Result<Option<Newer>, InspectError> {
    let handed_on = of_checkpoint(fs, data_dir.join(HANDED_ON_NAME))?;
    core_dirs.iter().try_fold(handed_on, |found, dir| match found {
        Some(found) => Ok(Some(found)),
        None => newer_in_core(fs, dir),
    })
}

/// The same of one core's folder.
///
/// # Errors
/// As [`newer`].
pub(crate) fn newer_in_core(fs: &dyn Fs, dir: &Path) -> Result<Option<Newer>, InspectError> {
    for name in SLOT_NAMES {
        if let Some(found) = of_checkpoint(fs, dir.join(name))? {
            return Ok(Some(found));
        }
    }
    for (name, newer) in
        [(SWAP_NAME, swap::newer as fn(&str) -> Option<String>), (GIVEN_UP_NAME, given_up::newer)]
    {
        let path = dir.join(name);
        if !fs.exists(&path) {
            continue;
        }
        let text = fs.read_all(&path).map_err(at(&path))?;
        if let Some(what) = newer(&String::from_utf8_lossy(&text)) {
            return Ok(Some(Newer { path, what }));
        }
    }
    Ok(None)
}

fn of_checkpoint(fs: &dyn Fs, path: PathBuf) -> Result<Option<Newer>, InspectError> {
    match checkpoint::check_known(fs, &path) {
        Err(CheckpointError::Io(error)) => Err(at(&path)(error)),
        Err(error) => Ok(Some(Newer { what: error.to_string(), path })),
        Ok(()) => Ok(None),
    }
}
