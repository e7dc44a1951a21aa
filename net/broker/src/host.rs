//! What this machine is and allows: memory, name, file system, room on disk, limits.
//!
//! Reads only, except [`raise_limits`], which lifts this process's soft limits to its hard ones.

use crate::args::HostFacts;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::{Path, PathBuf};

/// Looks at the host once.
pub fn facts() -> HostFacts {
    HostFacts { cpus: allowed_cpus(), memory_bytes: memory_bytes(), hostname: hostname() }
}

/// CPUs this thread may run on, ascending; CPU 0 alone if the kernel will not say.
fn allowed_cpus() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect(),
        Err(_) => vec![0],
    }
}

/// The host's name as clients would look it up; `localhost` when it has none.
pub fn hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() || name == "(none)" { "localhost".into() } else { name }
}

/// `6.18.4` and so on.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// RAM, or the memory limit of this process's control groups where that is less.
pub fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    let ram = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit));
    cgroup_limit().map_or(ram, |limit| limit.min(ram))
}

/// The least `memory.max` from this process's control group (v2) up to the root.
fn cgroup_limit() -> Option<u64> {
    let membership = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let relative = membership.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let mut folder: PathBuf = root.join(relative);
    let mut least = None;
    loop {
        if let Ok(text) = std::fs::read_to_string(folder.join("memory.max"))
            && let Ok(limit) = text.trim().parse::<u64>()
        {
            least = Some(least.map_or(limit, |seen: u64| seen.min(limit)));
        }
        if folder == root || !folder.pop() {
            return least;
        }
    }
}

/// What a file system is worth to a log that promises durability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Footing {
    /// Direct I/O and honest flushes.
    Sound,
    /// Works through the page cache; the sentence says what that means.
    Buffered(&'static str),
    /// It is memory: a broker works there, and a power cut takes everything.
    Memory,
    /// Cannot keep the promises.
    Refused(&'static str),
}

/// A file system by its magic number (statfs(2)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    pub name: String,
    pub footing: Footing,
}

/// What [`Footing::Memory`] means.
pub const MEMORY: &str = "it is memory: acknowledged records do not survive a power cut";

const FILE_SYSTEMS: &[(i64, &str, Footing)] = &[
    (0xEF53, "ext4", Footing::Sound),
    (0x5846_5342, "XFS", Footing::Sound),
    (0x9123_683E, "btrfs", Footing::Sound),
    (0xF2F5_2010, "F2FS", Footing::Sound),
    (0x2FC1_2FC1, "ZFS", Footing::Buffered("it caches on its own; flushes are honest, tails are longer")),
    (0x0102_1994, "tmpfs", Footing::Memory),
    (0x8584_58F6, "ramfs", Footing::Memory),
    (
        0x794C_7630,
        "overlay",
        Footing::Buffered("it is a container's scratch layer; mount a volume for data that should stay"),
    ),
    (0x6969, "NFS", Footing::Refused("a lost server turns flushes into errors and locks are not dependable")),
    (0xFF53_4D42, "CIFS", Footing::Refused("flushes reach the server's cache only")),
    (0xFE53_4D42, "SMB2", Footing::Refused("flushes reach the server's cache only")),
    (0x0102_1997, "9p", Footing::Refused("flushes reach the host's cache only")),
    (0x5346_4846, "WSL 9p", Footing::Refused("flushes reach the host's cache only")),
];

/// The file system that holds `path`, or its nearest ancestor that exists.
///
/// # Errors
/// What statfs(2) says of that ancestor.
pub fn file_system(path: &Path) -> std::io::Result<FileSystem> {
    let stat = rustix::fs::statfs(nearest_existing(path))?;
    // The field is a signed word on some machines and magic numbers are 32 bits: compare those.
    let magic = stat.f_type as i64 & 0xFFFF_FFFF;
    Ok(FILE_SYSTEMS.iter().find(|(number, _, _)| *number == magic).map_or_else(
        || FileSystem {
            name: format!("file system {magic:#x}"),
            footing: Footing::Buffered("it is not one this broker was tested on; ext4, XFS and btrfs are"),
        },
        |(_, name, footing)| FileSystem { name: (*name).into(), footing: *footing },
    ))
}

/// `path` itself, or the closest folder above it that exists.
pub fn nearest_existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    absolute.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/")).to_path_buf()
}

/// A limit of this process after [`raise_limits`]; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub open_files: Option<u64>,
    pub locked_bytes: Option<u64>,
    /// Of one file.
    pub file_bytes: Option<u64>,
}

/// Lifts the soft limits to the hard ones. What cannot be raised stays as it was.
pub fn raise_limits() -> Limits {
    Limits {
        open_files: raise(Resource::Nofile),
        locked_bytes: raise(Resource::Memlock),
        file_bytes: raise(Resource::Fsize),
    }
}

fn raise(resource: Resource) -> Option<u64> {
    let before = getrlimit(resource);
    let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
    if before.current != before.maximum && setrlimit(resource, wanted).is_err() {
        return before.current;
    }
    wanted.current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let facts = facts();
        assert!(!facts.cpus.is_empty());
        assert!(facts.cpus.is_sorted());
        assert!(facts.memory_bytes > 64 << 20);
        assert!(!facts.hostname.is_empty());
        assert!(kernel_release().starts_with(|c: char| c.is_ascii_digit()));
    }

    #[test]
    fn file_systems_are_told_apart() {
        assert_eq!(
            file_system(Path::new("/dev/shm/not/there/yet")).expect("mounted").footing,
            Footing::Memory
        );
        let proc = file_system(Path::new("/proc")).expect("mounted");
        assert!(matches!(proc.footing, Footing::Buffered(_)), "{proc:?}");
    }

    #[test]
    fn raising_limits_reaches_the_hard_limit() {
        let limits = raise_limits();
        assert_eq!(limits.open_files, getrlimit(Resource::Nofile).maximum);
    }
}
