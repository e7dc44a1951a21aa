//! What a core's durable writes suffer from reads beside them: none, glommio's at the scrub's rate, glommio's as fast as
//! they go, and a plain thread's as fast as they go.
//!
//! `cargo run --release -p ringmill-upkeep --example beside -- FOLDER SECONDS`
//!
//! The core is a thread that writes 4 KiB and flushes, 1,000 times a second; readers take 256 KiB at a time of a 512 MiB
//! file with direct I/O. One line a way and round: quantiles of the write with its flush, and MB/s read.
#![allow(clippy::unwrap_used)]

use glommio::io::ImmutableFileBuilder;
use glommio::{LocalExecutorBuilder, Placement};
use ringmill_reactor::stdfs::StdFs;
use ringmill_reactor::{Fs, OpenMode, Pool};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const READ_BYTES: usize = 256 << 10;
const FILE_BYTES: u64 = 512 << 20;
const LOG_BYTES: u64 = 64 << 20;
/// Default of scrub.bytes.per.second.
const SCRUB_RATE: u64 = 16 << 20;
const BETWEEN_WRITES: Duration = Duration::from_millis(1);
const ROUNDS: usize = 3;

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Nothing,
    Glommio { bytes_per_second: u64 },
    Thread,
}

const WAYS: [(&str, Way); 4] = [
    ("nothing", Way::Nothing),
    ("glommio, 16 MiB/s", Way::Glommio { bytes_per_second: SCRUB_RATE }),
    ("glommio, unbounded", Way::Glommio { bytes_per_second: u64::MAX }),
    ("thread, unbounded", Way::Thread),
];

/// What reader and core share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    read: AtomicU64,
}

fn fill(path: &Path, bytes: u64) {
    let file = StdFs.open(path, OpenMode::CreateDirect).unwrap();
    let mut buf = Pool::new(4 << 20).take(1 << 20).unwrap();
    buf.set_len(1 << 20);
    for at in (0..bytes).step_by(1 << 20) {
        StdFs.write_at(&file, &buf, at).unwrap();
    }
    StdFs.sync_data(&file).unwrap();
}

fn read_with_glommio(path: PathBuf, bytes_per_second: u64, shared: Arc<Shared>) {
    let executor = LocalExecutorBuilder::new(Placement::Unbound).io_memory(4 * READ_BYTES).make().unwrap();
    executor.run(async move {
        let file = ImmutableFileBuilder::new(&path).build_existing().await.unwrap();
        let begin = Instant::now();
        let mut at = 0;
        while !shared.stop.load(Ordering::Relaxed) {
            let got = file.read_at(at, READ_BYTES).await.unwrap().len() as u64;
            at = (at + got) % FILE_BYTES;
            let total = shared.read.fetch_add(got, Ordering::Relaxed) + got;
            let due = begin + Duration::from_secs_f64(total as f64 / bytes_per_second as f64);
            glommio::timer::sleep(due.saturating_duration_since(Instant::now())).await;
        }
        file.close().await.unwrap();
    });
}

fn read_with_thread(path: &Path, shared: &Shared) {
    let file = StdFs.open(path, OpenMode::ReadDirect).unwrap();
    let mut buf = Pool::new(4 << 20).take(READ_BYTES).unwrap();
    let mut at = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let got = StdFs.read_at(&file, buf.as_mut_full(), at).unwrap() as u64;
        at = (at + got) % FILE_BYTES;
        shared.read.fetch_add(got, Ordering::Relaxed);
    }
}

/// Latencies of paced durable writes for `span`.
fn write(path: &Path, span: Duration) -> Vec<u64> {
    let file = StdFs.open(path, OpenMode::CreateDirect).unwrap();
    let mut page = Pool::new(1 << 20).take(4096).unwrap();
    page.set_len(4096);
    let (begin, mut latencies, mut at) = (Instant::now(), Vec::new(), 0);
    while begin.elapsed() < span {
        let started = Instant::now();
        StdFs.write_at(&file, &page, at).unwrap();
        StdFs.sync_data(&file).unwrap();
        latencies.push(started.elapsed().as_nanos() as u64);
        at = (at + 4096) % LOG_BYTES;
        std::thread::sleep(BETWEEN_WRITES.saturating_sub(started.elapsed()));
    }
    latencies.sort_unstable();
    latencies
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(seconds)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: beside FOLDER SECONDS");
        std::process::exit(2);
    };
    let span = Duration::from_secs_f64(seconds.parse().expect("seconds"));
    let segment = Path::new(&folder).join(format!("beside-segment-{}", std::process::id()));
    let log = Path::new(&folder).join(format!("beside-log-{}", std::process::id()));
    fill(&segment, FILE_BYTES);
    fill(&log, LOG_BYTES);
    println!(
        "{:<20} {:>8} {:>8} {:>8} {:>8} {:>9}",
        "beside", "writes", "p50 us", "p99 us", "p99.9 us", "read MB/s"
    );
    for _ in 0..ROUNDS {
        for (name, way) in WAYS {
            let shared = Arc::new(Shared::default());
            let reader = std::thread::spawn({
                let (segment, shared) = (segment.clone(), Arc::clone(&shared));
                move || match way {
                    Way::Nothing => {}
                    Way::Glommio { bytes_per_second } => read_with_glommio(segment, bytes_per_second, shared),
                    Way::Thread => read_with_thread(&segment, &shared),
                }
            });
            let latencies = write(&log, span);
            let read = shared.read.load(Ordering::Relaxed) as f64 / 1e6 / span.as_secs_f64();
            shared.stop.store(true, Ordering::Relaxed);
            reader.join().unwrap();
            let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize] as f64 / 1e3;
            println!(
                "{name:<20} {:>8} {:>8.1} {:>8.1} {:>8.1} {read:>9.1}",
                latencies.len(),
                at(0.5),
                at(0.99),
                at(0.999)
            );
        }
    }
    for path in [segment, log] {
        let _ = std::fs::remove_file(path);
    }
}
