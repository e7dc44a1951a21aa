//! From settings to what each plane is told: the arithmetic of sharing, and nothing else.
//!
//! Every bound that is given for the whole broker is divided here, so that no plane divides again.

use crate::args::{BrokerOptions, CorePlacement};
use crate::config::units::show_bytes;
use crate::config::{FlushMethod, Settings};
use crate::exit::{Failure, Reason};
use crate::host::Limits;
use crate::identity::{Identity, Method};
use crate::probe;
use ringmill_core::CoreSettings;
use ringmill_device::Identity as Device;
use ringmill_log::LogOptions;
use ringmill_reactor::ring::{HostFeature, RingFeatures, RingOptions};
use ringmill_types::limits::{LOCKED_BYTES_MIN, OPEN_FILES_MIN};
use std::path::{Path, PathBuf};

/// Open files kept back from connections and segments: journal, admin port and its clients, threads of upkeep, standard
/// streams.
const FILES_RESERVED: u64 = 32;
/// And for each core: its ring, its listener, what wakes it, checkpoints, the files of its core log as it comes by default.
const FILES_OF_CORE: u64 = 16;
/// Of the open files left, what segment files may take: one in this many.
const SEGMENT_FILES_SHARE: u64 = 4;
/// Segment files one core keeps open at most. Each that is written to stays open until a checkpoint, and one that finds no
/// place makes a checkpoint early: no core writes to as many in the time between two.
const SEGMENT_FILES_MAX: u64 = 65_536;
/// Segment files one core needs to destage and read at one time.
const SEGMENT_FILES_MIN: u64 = 16;

/// Which method the cores use on `device`, and why: for the banner.
pub fn flush_method(
    wanted: FlushMethod,
    identity: &Identity,
    kernel: &str,
    device: Option<&Device>,
) -> (Method, &'static str) {
    match (wanted, &identity.flush) {
        (FlushMethod::Fdatasync, _) => (Method::Fdatasync, "flush.method"),
        (FlushMethod::Dsync, _) => (Method::Dsync, "flush.method"),
        // Also where the folder was measured on another device and then copied here.
        (FlushMethod::Auto, _) if probe::rules_out_dsync(device) => {
            (Method::Fdatasync, "its device has a volatile cache and no FUA")
        }
        (FlushMethod::Auto, Some(probe)) if probe.kernel == kernel => (probe.method, "measured here"),
        (FlushMethod::Auto, Some(_)) => (Method::Fdatasync, "to be measured again on this kernel"),
        (FlushMethod::Auto, None) => (Method::Fdatasync, "to be measured at a quiet moment"),
    }
}

/// Features to try, without those switched off.
pub fn features(settings: &Settings) -> RingFeatures {
    let mut features = RingFeatures::ALL;
    for name in &settings.features_off {
        let known =
            features.switch_off(name) || HostFeature::ALL.iter().any(|feature| feature.name() == name);
        assert!(known, "features.off was checked against these lists");
    }
    features
}

/// Of `features.off`, what is no ring's.
pub fn host_features_off(settings: &Settings) -> Vec<HostFeature> {
    let is_off = |feature: &HostFeature| settings.features_off.iter().any(|name| name == feature.name());
    HostFeature::ALL.into_iter().filter(is_off).collect()
}

/// How many open files connections and segments of one core may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileShare {
    pub connections: usize,
    pub segments: usize,
}

/// Refuses a limit on open files with which no core could serve a connection.
///
/// # Errors
/// A [`Failure`] that says how many are needed.
pub fn enough_files(open_files: Option<u64>, cores: usize) -> Result<(), Failure> {
    let needed = FILES_RESERVED + cores as u64 * (FILES_OF_CORE + SEGMENT_FILES_MIN + 1);
    match open_files.filter(|most| *most < needed) {
        None => Ok(()),
        Some(most) => Err(Failure::new(
            Reason::LimitsTooLow,
            format!(
                "nofile is {most}, and {cores} core(s) need {needed} open files to serve one connection each, {OPEN_FILES_MIN} to serve as \
                 they should. Raise it (LimitNOFILE=, ulimit -n), or take fewer cores (--cores). Nothing was touched."
            ),
        )),
    }
}

/// Divides the limit on open files between cores, connections and segments; `open_files: None` is no limit.
pub fn share_files(open_files: Option<u64>, connections_max: u32, cores: usize) -> FileShare {
    let cores = cores as u64;
    let kept_back = FILES_RESERVED + cores * FILES_OF_CORE;
    let free = open_files.unwrap_or(u64::MAX).saturating_sub(kept_back) / cores;
    let segments = (free / SEGMENT_FILES_SHARE).clamp(SEGMENT_FILES_MIN, SEGMENT_FILES_MAX);
    let asked = u64::from(connections_max).div_ceil(cores);
    let connections = asked.min(free.saturating_sub(segments)).max(1);
    FileShare { connections: connections as usize, segments: segments as usize }
}

/// What limits of the process are below what a broker needs, and what that bounds: for the banner.
pub fn low_limits(limits: Limits, files: FileShare, largest_file_bytes: u64) -> Vec<String> {
    let mut low = Vec::new();
    if let Some(most) = limits.open_files.filter(|most| *most < OPEN_FILES_MIN) {
        low.push(format!(
            "nofile is {most}, below {OPEN_FILES_MIN}: each core takes {} connections and {} open segments; raise it \
             (LimitNOFILE=, ulimit -n)",
            files.connections, files.segments
        ));
    }
    if let Some(most) = limits.locked_bytes.filter(|most| *most < LOCKED_BYTES_MIN) {
        low.push(format!(
            "memlock is {}, below {}: without CAP_IPC_LOCK rings may get no memory, and below 512KiB segments are not scrubbed; raise it \
             (LimitMEMLOCK=, ulimit -l)",
            show_bytes(most as i64),
            show_bytes(LOCKED_BYTES_MIN as i64)
        ));
    }
    if let Some(most) = limits.file_bytes.filter(|most| *most < largest_file_bytes) {
        low.push(format!(
            "fsize is {}, below {}: what would make a file larger is answered with KAFKA_STORAGE_ERROR; raise it \
             (LimitFSIZE=, ulimit -f), or lower log.segment.bytes and core.log.file.bytes",
            show_bytes(most as i64),
            show_bytes(largest_file_bytes as i64)
        ));
    }
    low
}

/// Files of segments and core logs grow as large as that, where topics have no settings of their own.
pub fn largest_file_bytes(settings: &Settings) -> u64 {
    settings.log_segment_bytes.max(settings.core_log_file_bytes.unwrap_or(0))
}

/// What one core is told.
pub struct CorePlan {
    pub settings: CoreSettings,
    pub log: LogOptions,
    pub ring: RingOptions,
}

/// Where the core logs are.
pub fn log_root(data: &Path, settings: &Settings) -> PathBuf {
    settings.core_log_dir.clone().unwrap_or_else(|| data.to_path_buf())
}

/// Divides memory, files and connections, and hands on the rest.
pub fn core_plan(
    options: &BrokerOptions,
    core: CorePlacement,
    node_id: i32,
    method: Method,
    files: FileShare,
) -> CorePlan {
    let settings = &options.config.settings;
    let cores = options.cores.len() as u64;
    let memory = options.memory_bytes / cores;
    let tail_bytes = settings.tail_bytes.map_or(memory / 2, |bytes| bytes / cores).min(memory);
    let cache_bytes = settings.cache_bytes.map_or(memory / 4, |bytes| bytes / cores).min(memory - tail_bytes);
    let file_bytes = settings.core_log_file_bytes.expect("the configuration check fills it in");
    let log_bytes = settings.core_log_bytes.expect("the configuration check fills it in");
    let mut core_settings = CoreSettings::new(core.core, node_id);
    core_settings.request_bytes_max = settings.socket_request_max_bytes as usize;
    core_settings.idle_ms = bounded(settings.connections_max_idle_ms);
    core_settings.slow_request_ms =
        bounded(if settings.slow_request_ms == 0 { -1 } else { settings.slow_request_ms });
    core_settings.connections_max = files.connections;
    core_settings.auto_create = settings.auto_create_topics_enable;
    let mut log = LogOptions::new(core.core, options.data.clone());
    log.log_dir = log_root(&options.data, settings).join(format!("core-{}", core.core));
    log.flush_method = match method {
        Method::Fdatasync => ringmill_log::FlushMethod::Fdatasync,
        Method::Dsync => ringmill_log::FlushMethod::Dsync,
    };
    log.flush_depth = settings.flush_depth as usize;
    log.linger_us = settings.group_linger_us;
    log.group_bytes = settings.group_bytes as usize;
    log.file_bytes = file_bytes;
    log.first_file_bytes = log.first_file_bytes.max(first_file(settings.message_max_bytes)).min(file_bytes);
    log.files_max = usize::try_from(log_bytes / file_bytes).unwrap_or(usize::MAX);
    log.tail_bytes = tail_bytes;
    log.cache_bytes = cache_bytes;
    log.producer_expiration_ms = settings.producer_id_expiration_ms;
    log.retention_check_ms = settings.log_retention_check_interval_ms;
    log.compaction_check_ms = settings.log_cleaner_backoff_ms;
    log.compaction_map_bytes = compaction_map(options.memory_bytes);
    log.open_files_max = files.segments;
    let ring = RingOptions { pool_limit_bytes: memory, features: features(settings) };
    CorePlan { settings: core_settings, log, ring }
}

/// Keys of a pass: one pass runs at a time, whatever the number of cores.
fn compaction_map(memory_bytes: u64) -> usize {
    (memory_bytes / 16).clamp(1 << 20, 128 << 20) as usize
}

/// The first file must hold the largest batch too, or it would wait until the ring has grown.
fn first_file(message_max_bytes: u64) -> u64 {
    (message_max_bytes + ringmill_types::limits::GROUP_OVERHEAD_BYTES_MAX as u64).next_multiple_of(1 << 20)
}

/// Longer than any process lives; small enough that a core may count it in nanoseconds.
const NEVER_MS: u64 = 1 << 42;
const _: () = assert!(NEVER_MS < u64::MAX / 2_000_000);

/// Negative is never, and so is more than a lifetime.
fn bounded(ms: i64) -> u64 {
    u64::try_from(ms).map_or(NEVER_MS, |ms| ms.min(NEVER_MS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{HostFacts, ServeArgs};
    use crate::identity::{Generation, ProbeResult, Quantiles, Round};
    use ringmill_device::WriteCache;

    fn options(set: &[&str]) -> BrokerOptions {
        let args = ServeArgs { set: set.iter().map(|s| (*s).to_string()).collect(), ..ServeArgs::default() };
        let host = HostFacts { cpus: vec![0, 1], memory_bytes: 8 << 30, hostname: "h".into() };
        BrokerOptions::resolve(&args, &host).expect("legal")
    }

    fn plan(set: &[&str]) -> CorePlan {
        let options = options(set);
        let files = share_files(Some(1024), options.config.settings.max_connections, 2);
        core_plan(&options, options.cores[1], 7, Method::Dsync, files)
    }

    #[test]
    fn memory_is_divided_once() {
        let plan = plan(&[]);
        assert_eq!(plan.ring.pool_limit_bytes, 512 << 20);
        assert_eq!(plan.log.tail_bytes, 256 << 20);
        assert_eq!(plan.log.cache_bytes, 128 << 20);
        assert_eq!(plan.log.log_dir, Path::new("./ringmill-data/core-1"));
        assert_eq!((plan.log.files_max, plan.log.file_bytes), (8, 64 << 20));
        let plan = self::plan(&["tail.bytes=600MiB", "cache.bytes=400MiB", "core.log.dir=/fast"]);
        assert_eq!((plan.log.tail_bytes, plan.log.cache_bytes), (300 << 20, 200 << 20));
        assert_eq!(plan.log.log_dir, Path::new("/fast/core-1"));
        assert!(plan.log.tail_bytes + plan.log.cache_bytes <= plan.ring.pool_limit_bytes);
    }

    #[test]
    fn a_large_batch_fits_the_first_file() {
        let plan = plan(&["message.max.bytes=104857600", "socket.request.max.bytes=200MiB"]);
        assert!(plan.log.first_file_bytes > 104_857_600);
        assert!(plan.log.first_file_bytes <= plan.log.file_bytes);
    }

    #[test]
    fn open_files_bound_connections() {
        let share = share_files(Some(1024), u32::MAX, 2);
        assert_eq!(share, FileShare { segments: 120, connections: 360 });
        assert!(2 * (share.segments + share.connections) as u64 + FILES_RESERVED + 2 * FILES_OF_CORE <= 1024);
        assert_eq!(share_files(Some(1 << 20), 1000, 4).connections, 250);
        assert_eq!(share_files(None, 1000, 1), FileShare { segments: 65_536, connections: 1000 });
        assert_eq!(share_files(Some(10), 1000, 1).connections, 1);
    }

    #[test]
    fn too_few_open_files_are_refused_with_how_many_it_takes() {
        for (cores, needed) in [(1, 65), (2, 98), (64, 2144)] {
            assert!(enough_files(Some(needed), cores).is_ok() && enough_files(None, cores).is_ok());
            let refused = enough_files(Some(needed - 1), cores).expect_err("one too few");
            assert_eq!(refused.reason, Reason::LimitsTooLow);
            assert!(
                refused.detail.contains(&format!("{cores} core(s) need {needed} open files")),
                "{refused}"
            );
            let share = share_files(Some(needed), u32::MAX, cores);
            assert_eq!(share, FileShare { connections: 1, segments: SEGMENT_FILES_MIN as usize });
        }
    }

    #[test]
    fn limits_too_low_are_said_with_what_they_bound() {
        let files = share_files(Some(256), 1000, 1);
        let limits =
            Limits { open_files: Some(256), locked_bytes: Some(1 << 20), file_bytes: Some(100 << 20) };
        let low = low_limits(limits, files, 1 << 30);
        assert!(
            low[0].starts_with("nofile is 256, below 1024: each core takes 156 connections and 52"),
            "{low:?}"
        );
        assert!(low[1].starts_with("memlock is 1MiB, below 8MiB"), "{low:?}");
        assert!(low[2].starts_with("fsize is 100MiB, below 1GiB"), "{low:?}");
        let enough = Limits {
            open_files: Some(OPEN_FILES_MIN),
            locked_bytes: Some(LOCKED_BYTES_MIN),
            file_bytes: Some(1 << 30),
        };
        assert!(low_limits(enough, files, 1 << 30).is_empty());
        let none = Limits { open_files: None, locked_bytes: None, file_bytes: None };
        assert!(low_limits(none, files, 1 << 30).is_empty());
    }

    #[test]
    fn idle_and_slow_can_be_switched_off() {
        let plan = plan(&["connections.max.idle.ms=-1", "slow.request.ms=0", "features.off=zero_copy"]);
        assert_eq!((plan.settings.idle_ms, plan.settings.slow_request_ms), (NEVER_MS, NEVER_MS));
        assert!(!plan.ring.features.zero_copy);
        assert!(plan.ring.features.provided_buffers);
    }

    #[test]
    fn the_probe_counts_on_its_kernel_and_unless_overruled() {
        let quantiles = Quantiles { p50_us: 1, p90_us: 2, p99_us: 2 };
        let round = Round {
            idle_fdatasync: quantiles,
            idle_dsync: quantiles,
            busy_fdatasync: quantiles,
            busy_dsync: quantiles,
        };
        let probed = ProbeResult { method: Method::Dsync, round, kernel: "6.1".into() };
        let mut identity = Identity {
            node_id: 1,
            cluster_id: "c".into(),
            generation: Generation { number: 1, cores: 1, log_dir: None, drained: false },
            flush: None,
        };
        let disk = |write_cache, fua| Device {
            name: "vda".into(),
            model: String::new(),
            write_cache,
            fua,
            rotational: false,
            size_bytes: 1 << 40,
        };
        let with_fua = disk(WriteCache::WriteBack, true);
        let method =
            |wanted, identity: &Identity, kernel| flush_method(wanted, identity, kernel, Some(&with_fua)).0;
        assert_eq!(method(FlushMethod::Auto, &identity, "6.1"), Method::Fdatasync);
        identity.flush = Some(probed);
        assert_eq!(method(FlushMethod::Auto, &identity, "6.1"), Method::Dsync);
        assert_eq!(method(FlushMethod::Auto, &identity, "6.2"), Method::Fdatasync);
        assert_eq!(method(FlushMethod::Fdatasync, &identity, "6.1"), Method::Fdatasync);
        let without = disk(WriteCache::WriteBack, false);
        let on_it = |wanted| flush_method(wanted, &identity, "6.1", Some(&without)).0;
        assert_eq!(on_it(FlushMethod::Auto), Method::Fdatasync);
        assert_eq!(on_it(FlushMethod::Dsync), Method::Dsync);
    }
}
