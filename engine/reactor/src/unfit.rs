//! What lies at a path and cannot serve, where the kernel's word for it ("Is a directory") says neither which path it means
//! nor what to do, and where it says nothing at all: opening a named pipe waits until somebody writes to it.
//!
//! Only [`check_file`] is asked before a call; the rest when one has failed. Never touches anything.

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use std::error::Error;
use std::fmt;
use std::fs::FileType;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Comes inside an [`io::Error`]; names its path itself, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// A folder, a named pipe, a socket or a device where a file must be.
    NotAFile { path: PathBuf, is: &'static str },
    /// Something else where a folder must be.
    NotAFolder { path: PathBuf, is: &'static str },
    /// A link to what is not there.
    Dangling { path: PathBuf, to: PathBuf },
    /// An attribute forbids the change to everybody, root too.
    Locked { path: PathBuf, is: &'static str, flag: char },
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::NotAFile { path, is } => write!(
                f,
                "{} is {is}, and a file must be there: move it away, and put the file back if there was one",
                path.display()
            ),
            Unfit::NotAFolder { path, is } => write!(
                f,
                "{} is {is}, and a folder must be there: move it away, and put the folder back if there was one",
                path.display()
            ),
            Unfit::Dangling { path, to } => write!(
                f,
                "{} is a link to {}, which is not there: mount the device that it leads to, or put back what was there",
                path.display(),
                to.display()
            ),
            Unfit::Locked { path, is, flag } => {
                let path = path.display();
                write!(
                    f,
                    "{path} is {is} and cannot be changed: take the attribute away with `chattr -{flag} {path}`"
                )
            }
        }
    }
}

impl Error for Unfit {}

impl Unfit {
    /// The one inside of an error.
    pub fn of(error: &io::Error) -> Option<&Unfit> {
        error.get_ref()?.downcast_ref()
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            Unfit::NotAFile { .. } => io::ErrorKind::IsADirectory,
            Unfit::NotAFolder { .. } => io::ErrorKind::NotADirectory,
            // Not `NotFound`: what lies behind the link may be all there is.
            Unfit::Dangling { .. } => io::ErrorKind::InvalidInput,
            Unfit::Locked { .. } => io::ErrorKind::PermissionDenied,
        }
    }
}

impl From<Unfit> for io::Error {
    fn from(unfit: Unfit) -> io::Error {
        io::Error::new(unfit.kind(), unfit)
    }
}

/// What failed at a path, as one sentence that names the path once.
pub struct At<'a>(pub &'a Path, pub &'a io::Error);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Unfit::of(self.1) {
            Some(unfit) => unfit.fmt(f),
            None => write!(f, "{}: {}", self.0.display(), self.1),
        }
    }
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a named pipe (FIFO)",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => "a file",
    }
}

/// Refuses what lies at `path` and is no file, or a link to none: to be asked before it is opened. What is not there may be made.
///
/// # Errors
/// [`Unfit::NotAFile`], [`Unfit::Dangling`].
pub fn check_file(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(found) => Err(Unfit::NotAFile { path: path.to_path_buf(), is: name_of(found.file_type()) }.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            dangling(path).map_or(Ok(()), |unfit| Err(unfit.into()))
        }
        // Opening it says the same.
        Err(_) => Ok(()),
    }
}

fn dangling(path: &Path) -> Option<Unfit> {
    let to = std::fs::read_link(path).ok()?;
    let is_gone = std::fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    is_gone.then(|| Unfit::Dangling { path: path.to_path_buf(), to })
}

/// The error of a call that was to do something at `path`, said better where that is possible.
pub(crate) fn explain(path: &Path, error: io::Error) -> io::Error {
    let unfit = match error.raw_os_error() {
        Some(libc::ENOENT) => path.ancestors().find_map(dangling),
        Some(libc::EEXIST | libc::ENOTDIR) => {
            path.ancestors().find_map(|above| dangling(above).or_else(|| in_the_way(above)))
        }
        Some(libc::EISDIR) if path.is_dir() => {
            Some(Unfit::NotAFile { path: path.to_path_buf(), is: "a folder" })
        }
        Some(libc::EPERM) => path.ancestors().take(2).find_map(locked),
        _ => None,
    };
    unfit.map_or(error, io::Error::from)
}

/// No folder.
fn in_the_way(path: &Path) -> Option<Unfit> {
    let found = std::fs::metadata(path).ok().filter(|found| !found.is_dir())?;
    Some(Unfit::NotAFolder { path: path.to_path_buf(), is: name_of(found.file_type()) })
}

/// `chattr +i` or `chattr +a`.
fn locked(path: &Path) -> Option<Unfit> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::empty()).ok()?.stx_attributes;
    let (is, flag) = if found.contains(StatxAttributes::IMMUTABLE) {
        ("immutable", 'i')
    } else if found.contains(StatxAttributes::APPEND) {
        ("append-only", 'a')
    } else {
        return None;
    };
    Some(Unfit::Locked { path: path.to_path_buf(), is, flag })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fs::{Fs, OpenMode};
    use crate::stdfs::StdFs;
    use rustix::fs::{FileType as Kind, Mode, mknodat};
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn told<T>(done: io::Result<T>) -> Unfit {
        let error = done.err().unwrap();
        Unfit::of(&error).cloned().unwrap_or_else(|| panic!("{error}"))
    }

    const MODES: [OpenMode; 5] =
        [OpenMode::Read, OpenMode::Write, OpenMode::Create, OpenMode::ReadDirect, OpenMode::CreateDirect];

    /// A pipe would be waited for: this test would not end.
    #[test]
    fn what_is_no_file_is_not_opened_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        mknodat(CWD, at("pipe"), Kind::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        symlink("/dev/null", at("device")).unwrap();
        let kinds = [
            ("pipe", "a named pipe (FIFO)"),
            ("socket", "a socket"),
            ("folder", "a folder"),
            ("device", "a device"),
        ];
        for (name, is) in kinds {
            for mode in MODES {
                let told = told(StdFs.open(&at(name), mode));
                assert_eq!(told, Unfit::NotAFile { path: at(name), is }, "{mode:?}");
            }
        }
        assert!(StdFs.read_all(&at("none")).is_err_and(|error| error.raw_os_error() == Some(libc::ENOENT)));
    }

    #[test]
    fn a_link_to_nothing_is_neither_followed_nor_taken_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (link, to) = (dir.path().join("link"), dir.path().join("gone"));
        symlink(&to, &link).unwrap();
        let expected = Unfit::Dangling { path: link.clone(), to: to.clone() };
        for mode in MODES {
            assert_eq!(told(StdFs.open(&link, mode)), expected, "{mode:?}");
        }
        assert_eq!(told(StdFs.open(&link.join("file"), OpenMode::Create)), expected);
        assert_eq!(told(StdFs.create_dir_all(&link.join("deeper"))), expected);
        assert_eq!(told(StdFs.list(&link)), expected);
        assert!(StdFs.exists(&link), "somebody put it there");
        assert!(!to.exists(), "nothing is made where a device is to be");
        std::fs::create_dir(&to).unwrap();
        assert!(StdFs.list(&link).unwrap().is_empty());
    }

    #[test]
    fn a_file_where_a_folder_must_be_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let expected = Unfit::NotAFolder { path: file.clone(), is: "a file" };
        assert_eq!(told(StdFs.create_dir_all(&file)), expected);
        assert_eq!(told(StdFs.create_dir_all(&file.join("a/b"))), expected);
        assert_eq!(told(StdFs.list(&file)), expected);
        assert_eq!(told(StdFs.open(&file.join("a"), OpenMode::Create)), expected);
        let folder = dir.path().join("folder");
        std::fs::create_dir(&folder).unwrap();
        let expected = Unfit::NotAFile { path: folder.clone(), is: "a folder" };
        assert_eq!(told(StdFs.rename(&file, &folder)), expected);
        assert_eq!(told(StdFs.remove_file(&folder)), expected);
    }

    /// Needs root, and a file system that has the attribute; says so without.
    #[test]
    fn an_attribute_that_forbids_a_change_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for (flag, is, locks) in [
            ('i', "immutable", &file),
            ('a', "append-only", &file),
            ('i', "immutable", &dir.path().to_path_buf()),
        ] {
            let change = |sign: char| {
                let mut command = std::process::Command::new("chattr");
                command
                    .arg(format!("{sign}{flag}"))
                    .arg(locks)
                    .output()
                    .is_ok_and(|done| done.status.success())
            };
            if !change('+') {
                eprintln!("*** SKIPPED: attributes of files: chattr +{flag} is refused here ***");
                return;
            }
            let done = if locks == &file {
                StdFs.open(&file, OpenMode::Write).map(drop)
            } else {
                StdFs.rename(&file, &dir.path().join("other"))
            };
            assert!(change('-'));
            assert_eq!(told(done), Unfit::Locked { path: locks.clone(), is, flag });
        }
    }
}
