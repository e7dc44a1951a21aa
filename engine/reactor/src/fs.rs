//! Blocking file work behind a trait, so that recovery, sealing and the journal run in the simulator unchanged.
//!
//! Durability is spelled out: nothing here syncs unless its name says so. New names need [`Fs::sync_dir`] of their
//! folder, new bytes [`Fs::sync_data`].

use std::io;
use std::path::Path;
use std::sync::Arc;

/// How [`Fs::open`] opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Existing file, read only.
    Read,
    /// Existing file, read and write.
    Write,
    /// Read and write; made if absent.
    Create,
    /// As `Read`, with `O_DIRECT` where the file system can (buffers, offsets and lengths page-aligned then).
    ReadDirect,
    /// As `Create`, with `O_DIRECT` where the file system can.
    CreateDirect,
}

/// An open file. Clones share it; closed with the last.
#[derive(Clone)]
pub struct FileHandle(pub(crate) Arc<FileInner>);

pub(crate) struct FileInner {
    pub place: FilePlace,
    pub direct: bool,
}

/// Where an open file lives.
pub(crate) enum FilePlace {
    Os(std::os::fd::OwnedFd),
    /// A file of the simulated disk, and the life of the process that opened it.
    Sim {
        node: u64,
        life: u64,
        _counted: Arc<()>,
    },
}

/// A name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    pub name: String,
    pub is_dir: bool,
    /// Size in bytes; 0 for folders.
    pub len: u64,
}

/// Blocking file operations. `io::Error`s carry `raw_os_error`, so that callers can tell ENOSPC from EIO.
pub trait Fs: Send + Sync {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<FileHandle>;
    /// Fills `buf` from `offset`; returns less only at the end of the file. Any alignment of `buf`: direct files are
    /// read through an aligned copy when needed.
    fn read_at(&self, file: &FileHandle, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes`. On a direct file, offset and length must be page-aligned.
    fn write_at(&self, file: &FileHandle, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// `fdatasync`: data, and the metadata needed to read it (size, extents).
    fn sync_data(&self, file: &FileHandle) -> io::Result<()>;
    /// Reserves blocks for `len` bytes from `offset`; the size grows to cover them. ENOSPC leaves the size as it was.
    fn allocate(&self, file: &FileHandle, offset: u64, len: u64) -> io::Result<()>;
    fn set_len(&self, file: &FileHandle, len: u64) -> io::Result<()>;
    fn len(&self, file: &FileHandle) -> io::Result<u64>;
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in `path` durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Entries in name order.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Something has the name, be it a link to what is not there: what is opened or made by that name fails then.
    fn exists(&self, path: &Path) -> bool;
    /// Bytes an unprivileged writer may still use on the file system that holds `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;

    /// The whole file.
    fn read_all(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let len = self.len(&file)?;
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?];
        let got = self.read_at(&file, &mut bytes, 0)?;
        bytes.truncate(got);
        Ok(bytes)
    }

    /// Replaces the file atomically and durably: temporary sibling, sync, rename, folder sync.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        let file = self.open(&temporary, OpenMode::Create)?;
        self.set_len(&file, 0)?;
        self.write_at(&file, bytes, 0)?;
        self.sync_data(&file)?;
        self.rename(&temporary, path)?;
        self.sync_dir(path.parent().unwrap_or(Path::new(".")))
    }
}
