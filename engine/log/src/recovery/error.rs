//! Why a core's log cannot be opened.

use crate::adopt::AdoptError;
use crate::inspect::{InspectError, Newer, exchanged_cores, repair};
use ringmill_reactor::unfit::At;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a core's log cannot be opened. Each sentence says what to do.
#[derive(Debug)]
pub enum RecoveryError {
    Io {
        path: PathBuf,
        error: io::Error,
    },
    /// Acked groups are missing or damaged.
    Damaged {
        /// For the command that repairs, here and below.
        data_dir: PathBuf,
        path: PathBuf,
        offset: u64,
        sequence: u64,
        /// Those that lose records, by name.
        partitions: String,
        what: String,
    },
    MissingFile {
        data_dir: PathBuf,
        path: PathBuf,
    },
    /// A core-log file lacks its end.
    CutOff {
        data_dir: PathBuf,
        what: String,
    },
    Checkpoint {
        data_dir: PathBuf,
        path: PathBuf,
        what: String,
    },
    /// A newer version wrote what lies there.
    Newer(Newer),
    /// The checkpoint is another core's: folders, or files in them, changed places.
    Foreign {
        path: PathBuf,
        found: u16,
    },
    /// Files of the core log changed places.
    Exchanged {
        what: String,
    },
    /// The metadata journal contradicts what this core knows of a partition.
    Contradicted {
        what: String,
    },
    /// A partition folder that was put in place cannot be served.
    Adopt(AdoptError),
    NoMemory,
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoveryError::Io { path, error } => At(path, error).fmt(f),
            RecoveryError::Damaged { data_dir, path, offset, sequence, partitions, what } => write!(
                f,
                "acked data is damaged: {} at byte {offset} (flush group {sequence}): {what}; partitions: {}. Nothing was changed. \
                 Restore the file from a copy, or run `{}` to go on without these records",
                path.display(),
                partitions,
                repair_command(data_dir)
            ),
            RecoveryError::MissingFile { data_dir, path } => write!(
                f,
                "core-log file {} is missing, and it may hold acked records. Put it back, or run `{}`",
                path.display(),
                repair_command(data_dir)
            ),
            RecoveryError::CutOff { data_dir, what } => write!(
                f,
                "{what}. Nothing was changed. Restore the file from a copy, or run `{}` to go on without these records",
                repair_command(data_dir)
            ),
            RecoveryError::Checkpoint { data_dir, path, what } => write!(
                f,
                "neither checkpoint in {} can be read: {what}. Restore one from a copy, or run `{}`",
                path.display(),
                repair_command(data_dir)
            ),
            RecoveryError::Newer(newer) => newer.fmt(f),
            RecoveryError::Foreign { path, found } => {
                write!(f, "{}. Nothing was changed", exchanged_cores(path, *found))
            }
            RecoveryError::Exchanged { what } => write!(f, "{what}. Nothing was changed"),
            RecoveryError::Contradicted { what } => f.write_str(what),
            RecoveryError::Adopt(error) => error.fmt(f),
            RecoveryError::NoMemory => {
                f.write_str("replaying the core log needs more memory than --memory allows; raise it")
            }
        }
    }
}

impl std::error::Error for RecoveryError {}

impl From<InspectError> for RecoveryError {
    fn from(error: InspectError) -> RecoveryError {
        match error {
            InspectError::Io { path, error } => RecoveryError::Io { path, error },
            InspectError::Unknown { path } => {
                RecoveryError::Io { path, error: io::Error::from(io::ErrorKind::NotFound) }
            }
        }
    }
}

fn repair_command(data_dir: &Path) -> String {
    repair::command(data_dir, repair::Scope::CoreLogs)
}

/// For `map_err`: what failed there.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> RecoveryError + '_ {
    move |error| RecoveryError::Io { path: path.to_path_buf(), error }
}
