//! What one core's log gets out of a disk, without sockets and clients.
//!
//! `cargo run --release -p ringmill-bench-micro --bin log-disk -- groups FOLDER SECONDS`
//! : one batch that fills a 4 KiB flush group, durable, then the next. Compare with
//!   `cargo run --release -p ringmill-reactor --example raw -- write FOLDER SECONDS`.
//!
//! `… -- stream FOLDER MEBIBYTES`
//! : batches of 1 MiB as fast as there is room, until all of it is in synced segments; core log and destage counted.
//!
//! Prints one line of JSON. FOLDER gets a folder of its own inside, which is removed again.

use ringmill_bench_micro::{LogRig, batch};
use ringmill_log::LogOptions;
use ringmill_reactor::Backend;
use ringmill_reactor::ring::{RingBackend, RingFeatures, RingOptions};
use ringmill_record::BatchHeader;
use ringmill_types::CoreId;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A value that makes a batch of one record fill most of a 4 KiB group, with its header and entry table.
const SMALL_VALUE_BYTES: usize = 3_000;
const LARGE_VALUE_BYTES: usize = 1000;
const LARGE_RECORDS: i32 = 1000;
const POOL_BYTES: u64 = 1 << 30;
/// Turns before counting, so that files are made and the code is warm.
const WARM_GROUPS: usize = 2000;

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(folder: &Path) -> (LogRig<RingBackend>, Folder) {
    let own = folder.join(format!("log-disk-{}", std::process::id()));
    let ring = RingOptions { pool_limit_bytes: POOL_BYTES, features: RingFeatures::ALL };
    let io = RingBackend::new(ring).expect("a ring");
    let rig = LogRig::open(io, LogOptions::new(CoreId(0), own.clone()), 1);
    (rig, Folder(own))
}

fn groups(folder: &Path, span: Duration) {
    let (mut rig, _folder) = open(folder);
    let slot = rig.slot(0);
    let wall_ms = rig.io.wall_ms();
    let bytes = batch(1, SMALL_VALUE_BYTES, wall_ms);
    let header = BatchHeader::parse(&bytes).expect("a whole batch");
    let (mut latencies, mut before, mut begin) = (Vec::new(), rig.metrics(), Instant::now());
    let mut warm = WARM_GROUPS;
    while warm > 0 || begin.elapsed() < span {
        let started = Instant::now();
        let end = rig.log.view(slot).expect("the partition is there").log_end;
        if !rig.try_append(slot, &header, &bytes) {
            rig.turn();
            continue;
        }
        while rig.durable(slot) <= end {
            rig.turn();
        }
        if warm > 0 {
            warm -= 1;
            if warm == 0 {
                (before, begin) = (rig.metrics(), Instant::now());
            }
        } else {
            latencies.push(started.elapsed().as_nanos() as u64);
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let after = rig.metrics();
    latencies.sort_unstable();
    let at = |part: f64| {
        latencies.get((latencies.len() as f64 * part) as usize).map_or(0.0, |ns| *ns as f64 / 1e3)
    };
    let count = after.groups - before.groups;
    println!(
        "{{\"loop\":\"groups\",\"count\":{count},\"per_second\":{:.0},\"p50_us\":{:.1},\"p99_us\":{:.1},\
         \"p999_us\":{:.1},\"bytes_per_group\":{}}}",
        count as f64 / seconds,
        at(0.5),
        at(0.99),
        at(0.999),
        (after.group_bytes - before.group_bytes) / count.max(1)
    );
    rig.stop();
}

fn stream(folder: &Path, mebibytes: u64) {
    let (mut rig, _folder) = open(folder);
    let slot = rig.slot(0);
    let wall_ms = rig.io.wall_ms();
    let bytes = batch(LARGE_RECORDS, LARGE_VALUE_BYTES, wall_ms);
    let header = BatchHeader::parse(&bytes).expect("a whole batch");
    let (before, begin) = (rig.metrics(), Instant::now());
    let mut taken = 0u64;
    while taken < mebibytes << 20 {
        while taken < mebibytes << 20 && rig.try_append(slot, &header, &bytes) {
            taken += bytes.len() as u64;
        }
        rig.turn();
    }
    rig.stop();
    let seconds = begin.elapsed().as_secs_f64();
    let after = rig.metrics();
    let (log, destage) = (after.group_bytes - before.group_bytes, after.destage_bytes - before.destage_bytes);
    println!(
        "{{\"loop\":\"stream\",\"seconds\":{seconds:.2},\"user_mb_s\":{:.0},\"core_log_mb_s\":{:.0},\
         \"destage_mb_s\":{:.0},\"disk_mb_s\":{:.0}}}",
        taken as f64 / 1e6 / seconds,
        log as f64 / 1e6 / seconds,
        destage as f64 / 1e6 / seconds,
        (log + destage) as f64 / 1e6 / seconds
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["groups", folder, seconds] => match seconds.parse() {
            Ok(seconds) => groups(Path::new(folder), Duration::from_secs_f64(seconds)),
            Err(_) => usage(),
        },
        ["stream", folder, mebibytes] => match mebibytes.parse() {
            Ok(mebibytes) => stream(Path::new(folder), mebibytes),
            Err(_) => usage(),
        },
        _ => usage(),
    }
}

fn usage() {
    eprintln!("usage: log-disk groups FOLDER SECONDS | log-disk stream FOLDER MEBIBYTES");
    std::process::exit(2);
}
