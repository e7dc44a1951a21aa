//! Kernel, io_uring, and the limits of this process.

use super::{Finding, read};
use crate::output::bytes;
use ringmill_broker::host;
use ringmill_reactor::ring::{RingBackend, RingFeatures, RingOptions};
use ringmill_types::limits::{LOCKED_BYTES_MIN, OPEN_FILES_MIN};
use rustix::process::{Resource, getrlimit};

/// Oldest kernel supported.
const OLDEST: (u32, u32) = (6, 1);
/// Segments and connections of a broker of some size.
const OPEN_FILES: u64 = 65_536;
const MEMORY_BYTES_MIN: u64 = 512 << 20;

pub fn release() -> Finding {
    let release = host::kernel_release();
    match version(&release) {
        Some(version) if version >= OLDEST => Finding::ok("kernel", format!("Linux {release}")),
        Some(_) => Finding::fail(
            "kernel",
            format!("Linux {release}"),
            "6.1 is the oldest kernel supported; install a newer one",
        ),
        None => Finding::warn(
            "kernel",
            format!("Linux {release}"),
            "the version cannot be read; 6.1 is the oldest supported",
        ),
    }
}

/// `6.18.4-generic` → (6, 18).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// Sets a ring up as a core would, and takes it down again.
pub fn io_uring() -> Finding {
    const NAME: &str = "io_uring";
    if let Some(mode) = read("/proc/sys/kernel/io_uring_disabled").filter(|mode| mode == "2") {
        let found = format!("switched off (kernel.io_uring_disabled={mode})");
        return Finding::fail(
            NAME,
            found,
            "sysctl -w kernel.io_uring_disabled=0, and the same line in /etc/sysctl.d/",
        );
    }
    match RingBackend::new(RingOptions { pool_limit_bytes: 1 << 20, features: RingFeatures::ALL }) {
        Ok(ring) => {
            let (with, without): (Vec<_>, Vec<_>) =
                ring.features().list().into_iter().partition(|(_, has)| *has);
            let names =
                |list: Vec<(&str, bool)>| list.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            let found = format!("works, with {}", names(with));
            if without.is_empty() {
                return Finding::ok(NAME, found);
            }
            let advice =
                format!("without {}: a newer kernel or a higher memlock limit has it", names(without));
            Finding::warn(NAME, found, advice)
        }
        Err(error) => Finding::fail(
            NAME,
            error.to_string(),
            "docker and podman: --security-opt seccomp=FILE with a profile that allows io_uring (tools/dist has one)",
        ),
    }
}

fn limit(bytes_or_count: Option<u64>, show: fn(u64) -> String) -> String {
    bytes_or_count.map_or("unlimited".to_string(), show)
}

/// The hard limit counts: a broker raises its soft limits by itself.
pub fn memlock() -> Finding {
    const NAME: &str = "memlock";
    const HOW: &str = "LimitMEMLOCK=infinity in the systemd unit, --ulimit memlock=-1 for a container, or /etc/security/limits.d";
    let hard = getrlimit(Resource::Memlock).maximum;
    let found = limit(hard, bytes);
    match hard {
        Some(hard) if hard < LOCKED_BYTES_MIN => {
            let least = bytes(LOCKED_BYTES_MIN);
            let what = "without CAP_IPC_LOCK rings may get no memory, and below 512 KiB sealed segments are not scrubbed";
            Finding::warn(NAME, found, format!("below {least}, {what}: {HOW}"))
        }
        Some(_) | None => Finding::ok(NAME, found),
    }
}

pub fn open_files() -> Finding {
    const NAME: &str = "nofile";
    const HOW: &str = "LimitNOFILE=1048576 in the systemd unit, --ulimit nofile=1048576 for a container, or /etc/security/limits.d";
    let hard = getrlimit(Resource::Nofile).maximum;
    let found = limit(hard, |count| count.to_string());
    match hard {
        Some(hard) if hard < OPEN_FILES_MIN => {
            let what = "open files to serve more than a handful of connections";
            Finding::fail(NAME, found, format!("a broker needs {OPEN_FILES_MIN} {what}: {HOW}"))
        }
        Some(hard) if hard < OPEN_FILES => {
            Finding::warn(NAME, found, format!("it bounds connections and open segments: {HOW}"))
        }
        Some(_) | None => Finding::ok(NAME, found),
    }
}

pub fn memory() -> Finding {
    let total = host::memory_bytes();
    let found = format!("{} for this process", bytes(total));
    if total < MEMORY_BYTES_MIN {
        return Finding::warn("memory", found, "each core wants 16 MiB at least; start with fewer --cores");
    }
    Finding::ok("memory", found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_read() {
        assert_eq!(version("6.18.4-generic"), Some((6, 18)));
        assert_eq!(version("6.1.0+deb12"), Some((6, 1)));
        assert_eq!(version("5.15"), Some((5, 15)));
        assert_eq!(version("mystery"), None);
    }
}
