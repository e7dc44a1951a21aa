//! [`Fs`] on the real file system.

use crate::features::HostFeature;
use crate::fs::{DirEntry, FileHandle, FileInner, FilePlace, Fs, OpenMode};
use crate::reclaim;
use crate::unfit::{check_file, explain};
use ringmill_types::limits::PAGE_BYTES;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// The real file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdFs;

impl FileHandle {
    /// Opened with `O_DIRECT`.
    pub fn is_direct(&self) -> bool {
        self.0.direct
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        match &self.0.place {
            FilePlace::Os(fd) => fd.as_raw_fd(),
            FilePlace::Sim { .. } => panic!("a simulated file has no descriptor"),
        }
    }

    /// A `File` over a duplicate of the descriptor, for the standard library's positioned reads and writes.
    fn borrow_file<R>(&self, use_it: impl FnOnce(&File, bool) -> io::Result<R>) -> io::Result<R> {
        let (fd, direct) = (self.raw_fd(), self.is_direct());
        // SAFETY: the descriptor stays open while `self` lives; `ManuallyDrop` keeps this `File` from closing it.
        let file = std::mem::ManuallyDrop::new(unsafe { <File as std::os::fd::FromRawFd>::from_raw_fd(fd) });
        use_it(&file, direct)
    }
}

/// Page-aligned scratch memory for direct transfers of unaligned callers.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new(len: usize) -> Aligned {
        let bytes = vec![0; len + PAGE_BYTES];
        let start = bytes.as_ptr().align_offset(PAGE_BYTES);
        Aligned { bytes, start }
    }

    fn slice(&mut self, len: usize) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.start + len).expect("allocated a page longer than asked")
    }
}

const SCRATCH_BYTES: usize = 1 << 20;

fn read_full(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(buf.get_mut(done..).unwrap_or_default(), offset + done as u64) {
            Ok(0) => break,
            Ok(got) => {
                done += got;
                // A direct read that ends off a block ended at the end of the file; going on would be EINVAL.
                if !done.is_multiple_of(512) {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// On btrfs: a new file's blocks are written where they lie. It would look for new ones at every write otherwise, so a
/// recycled core-log file would grow old in pieces, and on a full disk an ack or a checkpoint could find no room although
/// its file has its size. Its checksums go with that, as other file systems have none: groups, batches, checkpoints and
/// the journal have CRCs, Kafka's index files and `partition.metadata` do not. Elsewhere, or when refused, nothing is lost.
fn write_in_place(file: &File) {
    use rustix::fs::{IFlags, fstatfs, ioctl_getflags, ioctl_setflags};
    const BTRFS_SUPER_MAGIC: i64 = 0x9123_683E;
    if !HostFeature::Nocow.is_on() {
        return;
    }
    let is_btrfs = fstatfs(file).is_ok_and(|s| s.f_type & 0xFFFF_FFFF == BTRFS_SUPER_MAGIC);
    // The attribute counts only for a file without bytes.
    if is_btrfs
        && file.metadata().is_ok_and(|m| m.len() == 0)
        && let Ok(flags) = ioctl_getflags(file)
        && let Err(error) = ioctl_setflags(file, flags | IFlags::NOCOW)
    {
        tracing::warn!(%error, "btrfs will not write a file in place (chattr +C); on a full disk flushes may fail");
    }
}

/// Opens what must be a file, and waits for nobody.
///
/// # Errors
/// As `open(2)`; [`Unfit`](crate::Unfit) where that says more.
pub fn open_file(path: &Path, options: &OpenOptions) -> io::Result<File> {
    check_file(path)?;
    options.open(path).map_err(|error| explain(path, error))
}

impl Fs for StdFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<FileHandle> {
        let (write, create, direct) = match mode {
            OpenMode::Read => (false, false, false),
            OpenMode::Write => (true, false, false),
            OpenMode::Create => (true, true, false),
            OpenMode::ReadDirect => (false, false, true),
            OpenMode::CreateDirect => (true, true, true),
        };
        let direct = direct && HostFeature::DirectIo.is_on();
        let options = |direct: bool| {
            let mut options = OpenOptions::new();
            options
                .read(true)
                .write(write)
                .create(create)
                .custom_flags(libc::O_CLOEXEC | if direct { libc::O_DIRECT } else { 0 });
            options
        };
        let (file, direct) = match open_file(path, &options(direct)) {
            // tmpfs of old kernels, overlays on them: no direct I/O there, so buffered it is, and the handle says so.
            Err(error) if direct && error.raw_os_error() == Some(libc::EINVAL) => {
                (open_file(path, &options(false))?, false)
            }
            other => (other?, direct),
        };
        if create {
            write_in_place(&file);
        }
        Ok(FileHandle(Arc::new(FileInner { place: FilePlace::Os(OwnedFd::from(file)), direct })))
    }

    fn read_at(&self, file: &FileHandle, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        file.borrow_file(|file, direct| {
            if !direct {
                return read_full(file, buf, offset);
            }
            let mut done = 0;
            let mut scratch =
                Aligned::new(SCRATCH_BYTES.min(buf.len().next_multiple_of(PAGE_BYTES) + PAGE_BYTES));
            let span = scratch.bytes.len() - PAGE_BYTES;
            while done < buf.len() {
                let at = offset + done as u64;
                let skip = (at % PAGE_BYTES as u64) as usize;
                let want = (skip + buf.len() - done).next_multiple_of(PAGE_BYTES).min(span);
                let got = read_full(file, scratch.slice(want), at - skip as u64)?;
                let usable = got.saturating_sub(skip).min(buf.len() - done);
                if usable == 0 {
                    break;
                }
                let from = scratch.slice(want).get(skip..skip + usable).unwrap_or_default().to_vec();
                buf.get_mut(done..done + usable).unwrap_or_default().copy_from_slice(&from);
                done += usable;
            }
            Ok(done)
        })
    }

    fn write_at(&self, file: &FileHandle, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.borrow_file(|file, direct| {
            if !direct || (bytes.as_ptr() as usize).is_multiple_of(PAGE_BYTES) {
                return file.write_all_at(bytes, offset);
            }
            let mut scratch = Aligned::new(SCRATCH_BYTES.min(bytes.len()));
            let mut at = offset;
            for chunk in bytes.chunks(SCRATCH_BYTES) {
                let part = scratch.slice(chunk.len());
                part.copy_from_slice(chunk);
                file.write_all_at(part, at)?;
                at += chunk.len() as u64;
            }
            Ok(())
        })
    }

    fn sync_data(&self, file: &FileHandle) -> io::Result<()> {
        file.borrow_file(|file, _| file.sync_data())
    }

    fn allocate(&self, file: &FileHandle, offset: u64, len: u64) -> io::Result<()> {
        let fd = file.raw_fd();
        let to_off = |n: u64| i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
        if HostFeature::Fallocate.is_on() {
            // SAFETY: a system call on a descriptor that `file` keeps open.
            if unsafe { libc::fallocate(fd, 0, to_off(offset)?, to_off(len)?) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EOPNOTSUPP) {
                return Err(error);
            }
        }
        let size = self.len(file)?;
        let zeros = vec![0; SCRATCH_BYTES];
        let mut at = size.max(offset).next_multiple_of(PAGE_BYTES as u64);
        while at < offset + len {
            let step = (offset + len - at).min(zeros.len() as u64) as usize;
            self.write_at(file, zeros.get(..step).unwrap_or_default(), at)?;
            at += step as u64;
        }
        Ok(())
    }

    fn set_len(&self, file: &FileHandle, len: u64) -> io::Result<()> {
        file.borrow_file(|file, _| file.set_len(len))
    }

    fn len(&self, file: &FileHandle) -> io::Result<u64> {
        file.borrow_file(|file, _| Ok(file.metadata()?.len()))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path).map_err(|error| explain(path, error))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let dir = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        File::open(dir).map_err(|error| explain(path, error))?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to).map_err(|error| explain(to, explain(from, error)))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        reclaim::remove_file(path).map_err(|error| explain(path, error))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        reclaim::remove_dir_all(path).map_err(|error| explain(path, error))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut out = Vec::new();
        for entry in std::fs::read_dir(path).map_err(|error| explain(path, error))? {
            let entry = entry?;
            // A name that vanished since it was listed, or that is no text, is none of ours.
            let (Ok(meta), Ok(name)) = (entry.metadata(), entry.file_name().into_string()) else { continue };
            out.push(DirEntry {
                name,
                is_dir: meta.is_dir(),
                len: if meta.is_dir() { 0 } else { meta.len() },
            });
        }
        out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(out)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists() || path.is_symlink()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
        // SAFETY: an all-zero statvfs is a valid value to be overwritten, and the path ends with a zero byte.
        unsafe {
            let mut stat: libc::statvfs = std::mem::zeroed();
            if libc::statvfs(path.as_ptr(), &raw mut stat) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(stat.f_bavail * stat.f_frsize)
        }
    }
}
