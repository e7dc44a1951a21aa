//! What of the kernel a ring may use, and why there may be none.

use io_uring::IoUring;
use ringmill_types::limits::LOCKED_BYTES_MIN;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};

/// Submission slots; more operations wait in a queue of ours.
const ENTRIES: u32 = 1024;
/// Completions the kernel can hold: what a burst of connections may produce between two turns.
const COMPLETIONS: u32 = 16 * 1024;

/// Techniques that can be switched off, each with a fallback that CI runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingFeatures {
    /// `IORING_SETUP_DEFER_TASKRUN | SINGLE_ISSUER` (6.1).
    pub defer_taskrun: bool,
    /// Provided buffer ring for receives (5.19); else poll, then receive.
    pub provided_buffers: bool,
    /// Multishot accept (5.19); else one accept at a time.
    pub multishot_accept: bool,
    /// `SENDMSG_ZC` where the core asks for it (6.1).
    pub zero_copy: bool,
}

impl RingFeatures {
    pub const ALL: RingFeatures =
        RingFeatures { defer_taskrun: true, provided_buffers: true, multishot_accept: true, zero_copy: true };

    /// Names and states, for start-up and `ringmill check`.
    pub fn list(&self) -> [(&'static str, bool); 4] {
        [
            ("defer_taskrun", self.defer_taskrun),
            ("provided_buffers", self.provided_buffers),
            ("multishot_accept", self.multishot_accept),
            ("zero_copy", self.zero_copy),
        ]
    }

    /// Switches one off by name; false for a name that is none.
    pub fn switch_off(&mut self, name: &str) -> bool {
        match name {
            "defer_taskrun" => self.defer_taskrun = false,
            "provided_buffers" => self.provided_buffers = false,
            "multishot_accept" => self.multishot_accept = false,
            "zero_copy" => self.zero_copy = false,
            _ => return false,
        }
        true
    }
}

/// Techniques with files and memory that can be switched off, each with a fallback that CI runs. They are the process's and no
/// ring's: files are opened by cores, by the threads beside them and by a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HostFeature {
    /// `O_DIRECT` for core logs and segments; else through the page cache. Upkeep opens its files itself, and as it always does.
    DirectIo = 1,
    /// `MADV_HUGEPAGE` for large memory; else pages of 4 KiB.
    HugePages = 2,
    /// `FS_NOCOW_FL` for new files on btrfs; else it looks for new blocks at every write.
    Nocow = 4,
    /// `fallocate` for room ahead of segments; else zeros are written.
    Fallocate = 8,
}

static SWITCHED_OFF: AtomicU8 = AtomicU8::new(0);

impl HostFeature {
    pub const ALL: [HostFeature; 4] =
        [HostFeature::DirectIo, HostFeature::HugePages, HostFeature::Nocow, HostFeature::Fallocate];

    pub fn name(self) -> &'static str {
        match self {
            HostFeature::DirectIo => "direct_io",
            HostFeature::HugePages => "huge_pages",
            HostFeature::Nocow => "nocow",
            HostFeature::Fallocate => "fallocate",
        }
    }

    /// Sets which are off, for every file that is opened and all memory that is taken from now on.
    pub fn set_off(off: &[HostFeature]) {
        let bits = off.iter().fold(0, |bits, feature| bits | *feature as u8);
        SWITCHED_OFF.store(bits, Ordering::Relaxed);
    }

    pub fn is_on(self) -> bool {
        SWITCHED_OFF.load(Ordering::Relaxed) & self as u8 == 0
    }
}

/// How a ring is made.
#[derive(Clone, Copy, Debug)]
pub struct RingOptions {
    pub pool_limit_bytes: u64,
    pub features: RingFeatures,
}

/// Why there is no ring.
#[derive(Debug)]
pub enum RingError {
    /// `EPERM`, `ENOSYS`, `EACCES`: switched off for this process.
    Forbidden(io::Error),
    /// `ENOMEM`: memlock too small for the ring itself.
    Memory(io::Error),
    Other(io::Error),
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RingError::Forbidden(error) => write!(
                f,
                "io_uring is not allowed here ({error}): set kernel.io_uring_disabled=0, and in a container allow io_uring_setup, io_uring_enter and io_uring_register in its seccomp profile"
            ),
            RingError::Memory(error) => write!(
                f,
                "io_uring got no memory ({error}): raise the memlock limit (ulimit -l) to {} MiB or more",
                LOCKED_BYTES_MIN >> 20
            ),
            RingError::Other(error) => write!(f, "io_uring could not be set up: {error}"),
        }
    }
}

impl std::error::Error for RingError {}

impl From<io::Error> for RingError {
    fn from(error: io::Error) -> RingError {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::ENOSYS | libc::EACCES) => RingError::Forbidden(error),
            Some(libc::ENOMEM) => RingError::Memory(error),
            _ => RingError::Other(error),
        }
    }
}

/// The best ring this kernel gives.
pub(crate) fn setup(features: &mut RingFeatures) -> Result<IoUring, RingError> {
    let base = || {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(COMPLETIONS).setup_clamp().setup_submit_all();
        builder
    };
    if features.defer_taskrun {
        let mut builder = base();
        builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        match builder.build(ENTRIES) {
            Ok(ring) => return Ok(ring),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => features.defer_taskrun = false,
            Err(error) => return Err(error.into()),
        }
    }
    let mut builder = base();
    builder.setup_coop_taskrun().setup_taskrun_flag();
    Ok(builder.build(ENTRIES)?)
}
