//! The scrub against real files: sound, damaged, vanished, and under a rate limit.
#![allow(clippy::unwrap_used)]

use ringmill_types::Offset;
use ringmill_upkeep::check::Damage;
use ringmill_upkeep::{Outcome, Report, ScrubRequest, UpkeepOptions, spawn};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

fn batch(base_offset: i64, body: usize) -> Vec<u8> {
    let mut bytes = vec![0u8; 61 + body];
    let length = (bytes.len() - 12) as i32;
    bytes[0..8].copy_from_slice(&base_offset.to_be_bytes());
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[16] = 2;
    bytes[57..61].copy_from_slice(&1i32.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn write_segment(folder: &Path, base: i64, batches: i64, body: usize) -> ScrubRequest {
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join(format!("{base:020}.log"));
    let bytes: Vec<u8> = (0..batches).flat_map(|n| batch(base + n, body)).collect();
    std::fs::write(&path, bytes).unwrap();
    std::fs::File::open(&path).unwrap().sync_all().unwrap();
    let partition = folder.file_name().unwrap().to_string_lossy().into_owned();
    ScrubRequest { path, partition, base_offset: Offset(base), bound: Offset(base + batches) }
}

fn options(topics: &Path) -> (UpkeepOptions, Receiver<Report>) {
    let (sender, receiver) = channel();
    let options = UpkeepOptions {
        passes: std::sync::mpsc::sync_channel(1).1,
        compact_bytes_per_second: 1 << 30,
        topics: topics.to_path_buf(),
        cpus: Vec::new(),
        bytes_per_second: 1 << 30,
        round_every: Duration::from_secs(3600),
        first_round_after: Duration::from_secs(3600),
        second_look_after: Duration::from_millis(1),
        on_report: Box::new(move |report| {
            // The test may have seen enough already.
            let _ = sender.send(report);
        }),
    };
    (options, receiver)
}

/// A folder on the disk the build lives on: the system's temporary folder may be memory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[test]
fn a_flipped_bit_on_disk_is_found_and_a_sound_segment_is_not_blamed() {
    let dir = folder();
    let partition = dir.path().join("orders-0");
    let sound = write_segment(&partition, 0, 700, 1000);
    let damaged = write_segment(&partition, 700, 700, 1000);
    let at = 500 * 1061 + 300;
    let mut bytes = std::fs::read(&damaged.path).unwrap();
    bytes[at] ^= 0x40;
    std::fs::write(&damaged.path, bytes).unwrap();

    let (options, reports) = options(dir.path());
    let upkeep = spawn(options).unwrap();
    assert!(upkeep.scrub(sound));
    assert!(upkeep.scrub(damaged));
    assert_eq!(
        reports.recv_timeout(PATIENCE).unwrap().outcome,
        Outcome::Clean { bytes: 700 * 1061, batches: 700 }
    );
    match reports.recv_timeout(PATIENCE).unwrap().outcome {
        Outcome::Damaged { at, offset, what: Damage::Crc { .. } } => {
            assert_eq!((at, offset), (500 * 1061, Offset(1200)))
        }
        other => panic!("{other:?}"),
    }
    let stats = upkeep.stats();
    upkeep.stop();
    let read = stats.bytes_read.load(std::sync::atomic::Ordering::Relaxed);
    assert!(read > 2 * 700 * 1000, "damage is looked at twice, read {read}");
}

/// What a request says is older than what the folder holds: segments are joined by compaction meanwhile.
#[test]
fn a_segment_that_took_in_the_next_one_is_not_blamed() {
    let dir = folder();
    let partition = dir.path().join("orders-0");
    let joined = write_segment(&partition, 0, 20, 10);
    write_segment(&partition, 20, 3, 10);
    let (options, reports) = options(dir.path());
    let upkeep = spawn(options).unwrap();
    let listed_before = ScrubRequest { bound: Offset(10), ..joined };
    assert!(upkeep.scrub(listed_before.clone()));
    assert_eq!(
        reports.recv_timeout(PATIENCE).unwrap().outcome,
        Outcome::Clean { bytes: 20 * 71, batches: 20 }
    );
    write_segment(&partition, 10, 3, 10);
    assert!(upkeep.scrub(listed_before));
    match reports.recv_timeout(PATIENCE).unwrap().outcome {
        Outcome::Damaged { offset, what, .. } => {
            assert_eq!((offset, what), (Offset(10), Damage::Beyond { base: Offset(10), bound: Offset(10) }))
        }
        other => panic!("{other:?}"),
    }
    upkeep.stop();
}

#[test]
fn a_round_reads_sealed_segments_only_and_absent_files_are_no_error() {
    let dir = folder();
    let a = dir.path().join("a-0");
    write_segment(&a, 0, 3, 10);
    let newest = write_segment(&a, 3, 3, 10);
    std::fs::write(newest.path, b"the newest segment is being written and must not be read").unwrap();
    write_segment(&dir.path().join("b-1"), 0, 3, 10);

    let (mut options, reports) = options(dir.path());
    options.first_round_after = Duration::ZERO;
    let upkeep = spawn(options).unwrap();
    let report = reports.recv_timeout(PATIENCE).unwrap();
    assert_eq!(report.request.partition, "a-0");
    assert_eq!(report.outcome, Outcome::Clean { bytes: 3 * 71, batches: 3 });
    let absent = ScrubRequest {
        path: a.join("absent.log"),
        partition: "a-0".into(),
        base_offset: Offset(0),
        bound: Offset(3),
    };
    assert!(upkeep.scrub(absent));
    assert_eq!(reports.recv_timeout(PATIENCE).unwrap().outcome, Outcome::Gone);
    upkeep.stop();
    assert!(reports.try_iter().next().is_none(), "one sealed segment, one report");
}

/// Opening a pipe would wait for somebody to write to it.
#[test]
fn a_pipe_in_the_place_of_a_segment_is_named_and_not_waited_for() {
    let dir = folder();
    let partition = dir.path().join("orders-0");
    let piped = write_segment(&partition, 0, 3, 10);
    std::fs::remove_file(&piped.path).unwrap();
    mknodat(CWD, &piped.path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let sound = write_segment(&partition, 3, 3, 10);
    let (options, reports) = options(dir.path());
    let upkeep = spawn(options).unwrap();
    assert!(upkeep.scrub(piped.clone()));
    assert!(upkeep.scrub(sound));
    match reports.recv_timeout(PATIENCE).unwrap().outcome {
        Outcome::Unreadable { error } => {
            assert!(error.contains(&format!("{} is a named pipe", piped.path.display())), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(reports.recv_timeout(PATIENCE).unwrap().outcome, Outcome::Clean { bytes: 3 * 71, batches: 3 });
    upkeep.stop();
}

#[test]
fn the_rate_limit_holds_and_a_stop_does_not_wait_for_it() {
    let dir = folder();
    let large = write_segment(&dir.path().join("t-0"), 0, 2000, 1000);
    let (mut options, reports) = options(dir.path());
    options.bytes_per_second = 4 << 20;
    let upkeep = spawn(options).unwrap();
    let begun = Instant::now();
    assert!(upkeep.scrub(large.clone()));
    assert!(matches!(reports.recv_timeout(PATIENCE).unwrap().outcome, Outcome::Clean { .. }));
    assert!(begun.elapsed() >= Duration::from_millis(400), "2.1 MB at 4 MiB/s took {:?}", begun.elapsed());
    upkeep.stop();

    let (mut slow, reports) = self::options(dir.path());
    slow.bytes_per_second = 1 << 10;
    let upkeep = spawn(slow).unwrap();
    assert!(upkeep.scrub(large));
    let stats = upkeep.stats();
    while stats.bytes_read.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    let begun = Instant::now();
    upkeep.stop();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(matches!(reports.recv_timeout(PATIENCE).unwrap().outcome, Outcome::Resting { .. }));
}

#[test]
fn switched_off_it_says_so() {
    let dir = folder();
    let request = write_segment(&dir.path().join("t-0"), 0, 1, 10);
    let (mut options, reports) = options(dir.path());
    options.bytes_per_second = 0;
    let upkeep = spawn(options).unwrap();
    assert!(upkeep.scrub(request));
    assert!(matches!(reports.recv_timeout(PATIENCE).unwrap().outcome, Outcome::Resting { .. }));
    upkeep.stop();
}
