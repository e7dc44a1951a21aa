//! What a core must not survive, as a type: the broker gives each an exit code and says what to do.

use ringmill_reactor::Errno;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes that the kernel said it lost. It says so once, so nothing is tried again and nothing is acked any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fatal {
    /// A write or flush of the core log in `dir`.
    CoreLog { dir: PathBuf, error: String },
    /// A sync of segments, or the write of the checkpoint of the core log in `dir`.
    Segments { dir: PathBuf, error: String },
}

impl Fatal {
    pub(crate) fn core_log(dir: &Path, errno: Errno) -> Fatal {
        let error = io::Error::from_raw_os_error(errno.0).to_string();
        Fatal::CoreLog { dir: dir.to_path_buf(), error }
    }

    pub(crate) fn segments(dir: &Path, error: &io::Error) -> Fatal {
        Fatal::Segments { dir: dir.to_path_buf(), error: error.to_string() }
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fatal::CoreLog { dir, error } => {
                write!(f, "writing or flushing the core log in {} failed: {error}", dir.display())
            }
            Fatal::Segments { dir, error } => {
                write!(f, "syncing segments, or writing the checkpoint in {}, failed: {error}", dir.display())
            }
        }
    }
}
