//! [`Fs`] on the simulated disk. A handle or file system of an earlier life fails, so an old job cannot touch the disk.

use super::disk::{Disk, os};
use crate::fs::{DirEntry, FileHandle, FileInner, FilePlace, Fs, OpenMode};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The simulated file system as one life of the process sees it.
#[derive(Clone)]
pub struct SimFs {
    disk: Arc<Mutex<Disk>>,
    life: u64,
}

/// The node of a simulated file. A handle of the real file system is a mistake of whoever mixed the two.
pub(crate) fn node_of(file: &FileHandle) -> (u64, u64) {
    match file.0.place {
        FilePlace::Sim { node, life, .. } => (node, life),
        FilePlace::Os(_) => panic!("a real file in a simulation"),
    }
}

impl SimFs {
    pub(crate) fn new(disk: Arc<Mutex<Disk>>) -> SimFs {
        let life = disk.lock().unwrap_or_else(PoisonError::into_inner).life;
        SimFs { disk, life }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk for one call, unless this life is over; the fuse may end it right here.
    fn call(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = self.lock();
        if disk.life == self.life && disk.fuse == Some(0) {
            disk.cut();
        }
        if disk.life != self.life {
            return Err(os(libc::EIO));
        }
        disk.fuse = disk.fuse.map(|left| left - 1);
        Ok(disk)
    }

    fn on<R>(&self, file: &FileHandle, act: impl FnOnce(&mut Disk, u64) -> io::Result<R>) -> io::Result<R> {
        let (node, life) = node_of(file);
        let mut disk = self.call()?;
        if life != disk.life {
            return Err(os(libc::EIO));
        }
        act(&mut disk, node)
    }
}

impl Fs for SimFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<FileHandle> {
        let create = matches!(mode, OpenMode::Create | OpenMode::CreateDirect);
        let direct = matches!(mode, OpenMode::ReadDirect | OpenMode::CreateDirect);
        let mut disk = self.call()?;
        let counted = disk.take_descriptor()?;
        let node = disk.open(path, create)?;
        let place = FilePlace::Sim { node, life: self.life, _counted: counted };
        Ok(FileHandle(Arc::new(FileInner { place, direct })))
    }

    fn read_at(&self, file: &FileHandle, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.on(file, |disk, node| disk.read(node, buf, offset))
    }

    fn write_at(&self, file: &FileHandle, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.on(file, |disk, node| disk.write(node, bytes, offset))
    }

    fn sync_data(&self, file: &FileHandle) -> io::Result<()> {
        self.on(file, |disk, node| {
            let covered = disk.coverable(node);
            disk.flush(node, &covered)
        })
    }

    fn allocate(&self, file: &FileHandle, offset: u64, len: u64) -> io::Result<()> {
        self.on(file, |disk, node| disk.allocate(node, offset, len))
    }

    fn set_len(&self, file: &FileHandle, len: u64) -> io::Result<()> {
        self.on(file, |disk, node| disk.set_len(node, len))
    }

    fn len(&self, file: &FileHandle) -> io::Result<u64> {
        self.on(file, |disk, node| disk.len(node))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.call()?.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.call()?;
        let _folder = disk.take_descriptor()?;
        disk.sync_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call()?.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.call()?.remove(path, false)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.call()?;
        let _folder = disk.take_descriptor()?;
        disk.remove(path, true)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut disk = self.call()?;
        let _folder = disk.take_descriptor()?;
        let found = disk.list(path)?;
        Ok(found.into_iter().map(|(name, is_dir, len)| DirEntry { name, is_dir, len }).collect())
    }

    fn exists(&self, path: &Path) -> bool {
        self.call().is_ok_and(|disk| disk.lookup(path).is_ok())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let disk = self.call()?;
        Ok(disk.capacity_bytes.saturating_sub(disk.used_bytes()))
    }
}
