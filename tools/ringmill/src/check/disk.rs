//! The data folder's file system and device.

use super::Finding;
use crate::output::bytes;
use ringmill_broker::host::{self, Footing};
use ringmill_device::{Identity, WriteCache};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Writes of the core log are multiples of this.
const PAGE_BYTES: u32 = 4096;
/// The first core-log files and some segments.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// All that concerns `data`, or the folder it would be made in.
pub fn all(data: &Path) -> Vec<Finding> {
    let folder = host::nearest_existing(data);
    vec![file_system(data), direct_io(&folder), free(&folder), write_cache(&folder)]
}

fn file_system(data: &Path) -> Finding {
    const NAME: &str = "file system";
    match host::file_system(data) {
        Ok(found) => {
            let at = format!("{} at {}", found.name, data.display());
            match found.footing {
                Footing::Sound => Finding::ok(NAME, at),
                Footing::Buffered(why) => {
                    Finding::warn(NAME, format!("{at}: {why}"), "put --data on ext4, XFS or btrfs")
                }
                // It starts there, and cannot keep the promise that a broker is for.
                Footing::Memory => Finding::fail(
                    NAME,
                    format!("{at}: {}", host::MEMORY),
                    "put --data on ext4, XFS or btrfs; a broker starts here, for trials",
                ),
                Footing::Refused(why) => {
                    Finding::fail(NAME, format!("{at}: {why}"), "put --data on ext4, XFS or btrfs")
                }
            }
        }
        Err(error) => {
            Finding::fail(NAME, format!("{}: {error}", data.display()), "choose a folder that can be read")
        }
    }
}

/// Tries it on a file without a name, which is gone when it is closed.
fn direct_io(folder: &Path) -> Finding {
    const NAME: &str = "direct I/O";
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let opened = rustix::fs::open(folder, flags | OFlags::DIRECT, Mode::RUSR | Mode::WUSR);
    match opened {
        Ok(file) => alignment(NAME, &file),
        Err(Errno::INVAL) => Finding::warn(
            NAME,
            "this file system has no O_DIRECT",
            "a broker works through the page cache; use ext4 or XFS",
        ),
        Err(Errno::OPNOTSUPP) => Finding::ok(NAME, "not tried: this file system has no files without a name"),
        Err(error @ (Errno::ACCESS | Errno::PERM | Errno::ROFS)) => Finding::fail(
            NAME,
            format!("{} cannot be written: {error}", folder.display()),
            "give the broker's user a folder it may write",
        ),
        Err(error) => Finding::warn(
            NAME,
            format!("{}: {error}", folder.display()),
            "the broker tries by itself at start",
        ),
    }
}

fn alignment(name: &'static str, file: &OwnedFd) -> Finding {
    let Ok(stat) = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else {
        return Finding::ok(name, "works; the kernel does not tell its alignment");
    };
    let (memory, offset) = (stat.stx_dio_mem_align, stat.stx_dio_offset_align);
    if stat.stx_mask & StatxFlags::DIOALIGN.bits() == 0 || offset == 0 {
        return Finding::ok(name, "works; the kernel does not tell its alignment");
    }
    let found = format!("works; memory aligned to {memory}, offsets to {offset} bytes");
    if memory > PAGE_BYTES || offset > PAGE_BYTES {
        return Finding::fail(
            name,
            found,
            "writes are aligned to 4096 bytes; use a device with blocks of 4096 or less",
        );
    }
    Finding::ok(name, found)
}

fn free(folder: &Path) -> Finding {
    const NAME: &str = "free space";
    match rustix::fs::statvfs(folder) {
        Ok(stat) => {
            let room = stat.f_bavail.saturating_mul(stat.f_frsize);
            let found = format!("{} of {}", bytes(room), bytes(stat.f_blocks.saturating_mul(stat.f_frsize)));
            if room < FREE_BYTES_MIN {
                return Finding::warn(
                    NAME,
                    found,
                    "a core log takes some hundred MiB; lower core.log.bytes or free some",
                );
            }
            Finding::ok(NAME, found)
        }
        Err(error) => Finding::warn(NAME, error.to_string(), "look whether the folder can be read"),
    }
}

/// What a flush costs is decided here: with a volatile cache and no FUA, it empties the whole cache.
fn write_cache(folder: &Path) -> Finding {
    const NAME: &str = "write cache";
    let Some(found) = Identity::of(folder) else {
        return Finding::ok(NAME, "no block device of its own; the file system below decides");
    };
    let device = found.name;
    match found.write_cache {
        WriteCache::WriteThrough => Finding::ok(
            NAME,
            format!("{device}: none that is volatile (write through): a flush costs little"),
        ),
        WriteCache::WriteBack if found.fua => Finding::ok(
            NAME,
            format!("{device}: volatile, with FUA: the broker measures which way to flush is faster"),
        ),
        WriteCache::WriteBack => Finding::ok(
            NAME,
            format!(
                "{device}: volatile, without FUA: each flush empties it; drives with power-loss protection are faster"
            ),
        ),
        WriteCache::Unknown => Finding::warn(
            NAME,
            format!("{device}: the kernel does not tell"),
            "see the data sheet of the device",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_does_not_keep_what_was_acknowledged() {
        let finding = file_system(Path::new("/dev/shm"));
        assert_eq!(finding.verdict, crate::check::Verdict::Fail, "{finding:?}");
        assert!(finding.found.contains("power cut"), "{finding:?}");
    }

    #[test]
    fn a_folder_that_does_not_exist_yet_is_checked_at_its_parent() {
        let findings = all(Path::new("/tmp/ringmill-check-of-nothing/data"));
        assert_eq!(findings.len(), 4);
        assert!(!Path::new("/tmp/ringmill-check-of-nothing").exists(), "checking creates nothing");
    }
}
