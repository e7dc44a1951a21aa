//! What a core's log is told at start, and the switches by which the simulator plants faults.

use crate::compaction::CompactJob;
use crate::folder::FolderNames;
use crate::format::checkpoint::PartitionState;
use ringmill_reactor::Flush;
use ringmill_types::CoreId;
use ringmill_types::limits;
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;

/// How acks become durable. `Dsync` only where a probe showed it better (kernel-notes/flush-method.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushMethod {
    /// Write, then a linked `fdatasync`.
    Fdatasync,
    /// `RWF_DSYNC` on every write.
    Dsync,
}

/// Options of one core's log. Sizes in bytes.
#[derive(Clone, Debug)]
pub struct LogOptions {
    pub core: CoreId,
    /// Holds `topics/`.
    pub data_dir: PathBuf,
    /// Holds this core's log files and checkpoints; may be on another device.
    pub log_dir: PathBuf,
    pub flush_method: FlushMethod,
    /// Flushes in flight at once.
    pub flush_depth: usize,
    /// How long a group waits for company although a flush could leave, microseconds.
    pub linger_us: u64,
    /// A group is sealed when it holds this much.
    pub group_bytes: usize,
    pub file_bytes: u64,
    pub first_file_bytes: u64,
    pub files_max: usize,
    /// Bound on the memory of the tail ring.
    pub tail_bytes: u64,
    /// Bound on cold blocks kept.
    pub cache_bytes: u64,
    /// Destage writes in flight at once.
    pub destage_depth: usize,
    /// Cold reads in flight at once.
    pub cold_reads_max: usize,
    pub producer_expiration_ms: i64,
    pub retention_check_ms: i64,
    /// Who compacts; `None`: nobody.
    pub compactor: Option<SyncSender<CompactJob>>,
    /// Time between looks for a partition worth compacting.
    pub compaction_check_ms: i64,
    /// Memory for the keys of one pass.
    pub compaction_map_bytes: usize,
    /// Segment files held open, never more; several, so that destaging and readers have one each.
    pub open_files_max: usize,
    /// What other cores' last checkpoints said of partitions that are this core's now: a log without a checkpoint of its
    /// own begins with it, and need not read their segments. Missing ones are found by reading.
    pub inherited: Vec<PartitionState>,
    /// One for all cores of a process.
    pub folder_names: FolderNames,
    pub faults: Faults,
}

impl LogOptions {
    pub fn new(core: CoreId, data_dir: PathBuf) -> LogOptions {
        LogOptions {
            core,
            log_dir: data_dir.join(format!("core-{core}")),
            data_dir,
            flush_method: FlushMethod::Fdatasync,
            flush_depth: 1,
            linger_us: 0,
            group_bytes: limits::GROUP_BYTES_DEFAULT,
            file_bytes: limits::CORE_LOG_FILE_BYTES_DEFAULT,
            first_file_bytes: limits::CORE_LOG_FIRST_FILE_BYTES,
            files_max: limits::CORE_LOG_FILES_DEFAULT,
            tail_bytes: 256 << 20,
            cache_bytes: 64 << 20,
            destage_depth: 4,
            cold_reads_max: 32,
            producer_expiration_ms: 24 * 3600 * 1000,
            retention_check_ms: 300_000,
            compactor: None,
            compaction_check_ms: 15_000,
            compaction_map_bytes: 64 << 20,
            open_files_max: 512,
            inherited: Vec::new(),
            folder_names: FolderNames::default(),
            faults: Faults::default(),
        }
    }

    pub(crate) fn write_flush(&self) -> Flush {
        match self.flush_method {
            FlushMethod::Fdatasync => Flush::Linked,
            FlushMethod::Dsync => Flush::Dsync,
        }
    }
}

/// Faults that the simulator must be able to find. All off outside its own tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Treat a group as durable once its write completed, flush or not.
    pub ack_before_flush: bool,
    /// Reuse core-log space when destaged, without syncing the segments.
    pub reclaim_before_sync: bool,
    /// Recovery accepts any well-formed group at the expected place, whatever life it is from.
    pub trust_stale_groups: bool,
    /// Compaction takes delete markers before `delete.retention.ms` is over.
    pub markers_go_at_once: bool,
    /// Compaction leaves the older records of a key in place whose newest is a delete marker.
    pub markers_supersede_nothing: bool,
}
