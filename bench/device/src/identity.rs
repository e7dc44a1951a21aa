//! Which block device holds a folder, and what the kernel says about it.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a flush has to empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WriteCache {
    /// None that is volatile.
    WriteThrough,
    WriteBack,
    /// The kernel does not tell.
    Unknown,
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// As under /sys/block.
    pub name: String,
    /// Of its maker; empty where it has none, as virtual ones do.
    pub model: String,
    pub write_cache: WriteCache,
    pub fua: bool,
    pub rotational: bool,
    pub size_bytes: u64,
}

impl Identity {
    /// The device that holds `folder`; `None` for file systems without one.
    pub fn of(folder: &Path) -> Option<Identity> {
        let (name, queue) = queue_of(folder)?;
        let setting = |file: &str| read(&queue.join(file));
        let disk = queue.parent()?;
        let write_cache = match setting("write_cache").as_deref() {
            Some("write through") => WriteCache::WriteThrough,
            Some("write back") => WriteCache::WriteBack,
            Some(_) | None => WriteCache::Unknown,
        };
        // Sectors of 512 bytes, whatever those of the device.
        let sectors = read(&disk.join("size")).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        Some(Identity {
            name,
            model: read(&disk.join("device/model")).unwrap_or_default(),
            write_cache,
            fua: setting("fua").as_deref() == Some("1"),
            rotational: setting("rotational").as_deref() == Some("1"),
            size_bytes: sectors.saturating_mul(512),
        })
    }
}

fn read(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_string())
}

/// Name and queue folder of the block device that holds `folder`.
fn queue_of(folder: &Path) -> Option<(String, PathBuf)> {
    let stat = rustix::fs::stat(folder).ok()?;
    let number = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let by_number = PathBuf::from(format!("/sys/dev/block/{}:{}", number.0, number.1));
    // btrfs and overlay have numbers of their own; the mount table names what they were mounted from.
    let node = std::fs::canonicalize(&by_number).ok().or_else(|| {
        let table = read(Path::new("/proc/self/mountinfo"))?;
        let source = source_of(&table, number)?;
        let device = rustix::fs::stat(source).ok()?.st_rdev;
        let path = format!("/sys/dev/block/{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        std::fs::canonicalize(path).ok()
    })?;
    // A partition has no queue; the disk above it has.
    let disk = [node.as_path(), node.parent()?].into_iter().find(|path| path.join("queue").is_dir())?;
    Some((disk.file_name()?.to_string_lossy().into_owned(), disk.join("queue")))
}

/// The mount source of device `number`, by proc_pid_mountinfo(5): `… major:minor … - type source options`.
fn source_of(table: &str, number: (u32, u32)) -> Option<&str> {
    let wanted = format!("{}:{}", number.0, number.1);
    table.lines().find_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let is_it = head.split(' ').nth(2) == Some(wanted.as_str());
        tail.split(' ').nth(1).filter(|source| is_it && source.starts_with("/dev/"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_names_a_device() {
        let table = "22 1 0:21 / /proc rw shared:5 - proc proc rw\n\
                     36 35 0:45 /sub /data rw,noatime shared:1 - btrfs /dev/sdb1 rw,space_cache";
        assert_eq!(source_of(table, (0, 45)), Some("/dev/sdb1"));
        assert_eq!(source_of(table, (0, 21)), None);
        assert_eq!(source_of(table, (8, 1)), None);
    }

    #[test]
    fn a_file_system_without_a_device_has_no_identity() {
        assert_eq!(Identity::of(Path::new("/proc")), None);
        assert_eq!(Identity::of(Path::new("/no/such/folder")), None);
    }
}
