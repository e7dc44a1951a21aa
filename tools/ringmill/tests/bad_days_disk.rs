//! Bad days of the disk under a real broker: it fills up under load, and batches come that are larger than anything the
//! log was made for.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::small_disk::SmallDisk;
use common::{
    ANYBODY, Author, Broker, Client, KAFKA_STORAGE_ERROR, MESSAGE_TOO_LARGE, NONE, PATIENCE,
    REQUEST_TIMED_OUT, batch, not_mounted, run,
};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TOPIC: &str = "filling";
const PARTITIONS: i32 = 4;
const PRODUCERS: usize = 4;
/// `DiskFull` in ERRORS.md.
const DISK_FULL: i32 = 9;
/// Records in a batch, and bytes in a record.
const COUNT: u64 = 8;
const RECORD_BYTES: usize = 8 << 10;

/// What the producers and the test tell each other.
#[derive(Default)]
struct Load {
    address: Mutex<String>,
    stop: AtomicBool,
    acked: [AtomicU64; PRODUCERS],
    refused: [AtomicU64; PRODUCERS],
}

impl Load {
    fn acked(&self) -> Vec<u64> {
        self.acked.iter().map(|n| n.load(Ordering::Relaxed)).collect()
    }

    fn refused(&self) -> Vec<u64> {
        self.refused.iter().map(|n| n.load(Ordering::Relaxed)).collect()
    }
}

/// Every counter is larger than it was in `before`, before long: a producer may wait ten seconds for an answer, and more
/// than once.
#[track_caller]
fn wait_until_above(what: &str, before: &[u64], now: impl Fn() -> Vec<u64>, broker: &mut Broker) {
    let begun = Instant::now();
    while now().iter().zip(before).any(|(now, before)| now <= before) {
        broker.assert_alive();
        assert!(begun.elapsed() < 3 * PATIENCE, "{what}: {before:?}, then {:?}\n{}", now(), broker.said());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn record(producer: usize, number: u64) -> Vec<u8> {
    let mut value = format!("{producer}/{number}/").into_bytes();
    value.resize(RECORD_BYTES, b'x');
    value
}

/// A client as careful ones are: idempotent, and what was refused for now is sent again as it was.
fn run_producer(number: usize, load: &Load) {
    let mut id = None;
    let mut sent = 0;
    let mut client: Option<Client> = None;
    while !load.stop.load(Ordering::Relaxed) {
        let Some(connected) = client.as_mut() else {
            let at = load.address.lock().unwrap().clone();
            client = Client::connect(&at).ok();
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let outcome = (|| {
            let id = match id {
                Some(id) => id,
                None => *id.insert(connected.producer_id()?),
            };
            let values: Vec<_> = (sent..sent + COUNT).map(|n| record(number, n)).collect();
            connected.produce(
                TOPIC,
                number as i32 % PARTITIONS,
                &batch(Author { id, sequence: sent as i32 }, &values),
            )
        })();
        match outcome {
            Ok(NONE) => {
                sent += COUNT;
                load.acked[number].store(sent, Ordering::Relaxed);
            }
            Ok(KAFKA_STORAGE_ERROR | REQUEST_TIMED_OUT) => {
                load.refused[number].fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(code) => panic!("producer {number}: error {code} at sequence {sent}"),
            Err(_) => client = None,
        }
    }
}

/// Reads everything, and finds at least what was acked before it began: of each producer in order, without a gap.
#[track_caller]
fn check_all(broker: &Broker, load: &Load) {
    let acked = load.acked();
    let mut client = broker.client();
    let mut next = [0; PRODUCERS];
    for partition in 0..PARTITIONS {
        for stored in client.read_from(TOPIC, partition, 0) {
            let text = String::from_utf8(stored.value).unwrap();
            let producer: usize = text.split('/').next().unwrap().parse().unwrap();
            assert_eq!(text.as_bytes(), record(producer, next[producer]), "offset {}", stored.offset);
            next[producer] += 1;
        }
    }
    for (producer, (stored, acked)) in next.iter().zip(acked).enumerate() {
        assert!(*stored >= acked, "producer {producer}: {acked} records were acked, {stored} are there");
    }
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_heals() {
    match SmallDisk::make(128) {
        Ok(disk) => assert!(fill_up(&disk), "a full disk is no reason not to start, or not to delete"),
        Err(why) => not_mounted("a disk that fills up under load", &why),
    }
}

#[test]
fn a_full_btrfs_does_not_stop_the_core_log() {
    match SmallDisk::btrfs(256) {
        // Whether its metadata leaves room for a start is btrfs's to say.
        Ok(disk) => {
            fill_up(&disk);
        }
        Err(why) => not_mounted("a btrfs that fills up under load", &why),
    }
}

/// Options of a broker whose logs a small disk holds, and these settings.
fn small_logs<'a>(sets: &[&'a str]) -> Vec<&'a str> {
    let small = ["log.segment.bytes=1MiB", "core.log.file.bytes=8MiB", "core.log.bytes=16MiB"];
    small.iter().chain(sets).flat_map(|set| ["--set", *set]).collect()
}

/// The whole story; whether the broker started again while the disk was full, and a deleted topic was enough to heal it.
fn fill_up(disk: &SmallDisk) -> bool {
    let options = small_logs(&["log.segment.delete.delay.ms=0"]);
    let start = || Broker::try_start_by(disk.ringmill(), &disk.data(), &options).unwrap();
    // Nobody gets at it before it is needed, however fast they fill what else becomes free.
    disk.hold_back(16 << 20);
    let mut broker = start();
    let mut client = broker.client();
    for topic in [TOPIC, "ballast"] {
        assert_eq!(client.create(topic, PARTITIONS, &[]).unwrap(), NONE);
    }
    for partition in 0..PARTITIONS {
        let values: Vec<_> = (0..64).map(|n| record(9, n)).collect();
        for _ in 0..8 {
            assert_eq!(client.produce("ballast", partition, &batch(ANYBODY, &values)).unwrap(), NONE);
        }
    }
    disk.fill(12 << 20);
    let load = Arc::new(Load { address: Mutex::new(broker.address.clone()), ..Load::default() });
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|number| {
            let load = load.clone();
            std::thread::spawn(move || run_producer(number, &load))
        })
        .collect();

    wait_until_above(
        "the disk fills up and producers hear of it",
        &[0; PRODUCERS],
        || load.refused(),
        &mut broker,
    );
    check_all(&broker, &load);
    // Whether a decision still finds room in the journal depends on its last block; it is answered either way.
    client.create("perhaps-no-room-for-it", 1, &[]).unwrap();
    broker.assert_alive();

    disk.free();
    let before = load.acked();
    wait_until_above("with room again they go on by themselves", &before, || load.acked(), &mut broker);
    check_all(&broker, &load);

    // Full once more, and the power of the process goes too.
    disk.fill(0);
    let before = load.refused();
    wait_until_above("full again", &before, || load.refused(), &mut broker);
    broker.kill();
    let started_full;
    (broker, started_full) = start_when_full(disk, &options, &load);

    load.stop.store(true, Ordering::Relaxed);
    producers.into_iter().for_each(|p| p.join().unwrap());
    let status = broker.stop();
    assert_eq!(status.code(), Some(0), "an orderly stop on a nearly full disk\n{}", broker.said());
    broker = start();
    check_all(&broker, &load);
    started_full
}

/// Where it comes up on the full disk, deleting a topic heals it; where it refuses either, room does. Whether it did both.
fn start_when_full(disk: &SmallDisk, options: &[&str], load: &Load) -> (Broker, bool) {
    // The room to come is small, so it is enough that somebody gets it.
    let all_acked = || vec![load.acked().iter().sum()];
    match Broker::try_start_by(disk.ringmill(), &disk.data(), options) {
        Ok(mut broker) => {
            *load.address.lock().unwrap() = broker.address.clone();
            check_all(&broker, load);
            let before = load.refused();
            wait_until_above("still full after the restart", &before, || load.refused(), &mut broker);
            // Deleting what nobody needs heals it, without anyone's hand on the disk.
            let before = all_acked();
            let (code, said) =
                run(&["topic", "delete", "ballast", "--yes", "--bootstrap-server", &broker.address]);
            if code != 0 {
                // One that writes little in place may not have room even for the decision.
                assert!(said.contains("the metadata journal could not be written"), "{said}");
                disk.give_back();
            }
            wait_until_above("a deleted topic is room", &before, all_acked, &mut broker);
            (broker, code == 0)
        }
        // A file system that writes nothing in place may not have room for what a start writes.
        Err(refusal) => {
            assert_eq!(refusal.code, Some(DISK_FULL), "{}", refusal.said);
            assert!(refusal.said.contains("free space"), "{}", refusal.said);
            let before = all_acked();
            disk.give_back();
            let mut broker = Broker::try_start_by(disk.ringmill(), &disk.data(), options).unwrap();
            *load.address.lock().unwrap() = broker.address.clone();
            check_all(&broker, load);
            wait_until_above("with room it starts", &before, all_acked, &mut broker);
            (broker, false)
        }
    }
}

/// A disk may have room and no inode: a start writes its checkpoint where the last one lies, and serves.
#[test]
fn a_start_where_no_file_can_be_made_serves_reads() {
    let disk = match SmallDisk::make(128) {
        Ok(disk) => disk,
        Err(why) => return not_mounted("a start without inodes", &why),
    };
    let options = small_logs(&[]);
    let mut broker = Broker::try_start_by(disk.ringmill(), &disk.data(), &options).unwrap();
    let mut client = broker.client();
    assert_eq!(client.create(TOPIC, 1, &[]).unwrap(), NONE);
    assert_eq!(client.produce(TOPIC, 0, &batch(ANYBODY, &["kept"])).unwrap(), NONE);
    broker.kill();
    let (many, mut made) = (disk.data().with_file_name("many"), 0);
    std::fs::create_dir(&many).unwrap();
    let refused = loop {
        match std::fs::File::create_new(many.join(made.to_string())) {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
        // A tmpfs, where no loop device can be mounted, may know no end of them.
        if made > 1_000_000 {
            return not_mounted("a start without inodes", "this file system does not run out of them");
        }
    };
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull, "after {made} files");
    for _ in 0..2 {
        let mut broker = Broker::try_start_by(disk.ringmill(), &disk.data(), &options).unwrap();
        assert_eq!(broker.client().read_from(TOPIC, 0, 0).len(), 1);
        broker.kill();
    }
}

/// `log.retention.check.interval.ms` is five minutes; on a full disk nobody waits for it.
#[test]
fn a_lowered_retention_frees_a_full_disk() {
    let disk = match SmallDisk::make(128) {
        Ok(disk) => disk,
        Err(why) => return not_mounted("retention on a full disk", &why),
    };
    let options = small_logs(&[]);
    let broker = Broker::try_start_by(disk.ringmill(), &disk.data(), &options).unwrap();
    let mut client = broker.client();
    assert_eq!(client.create(TOPIC, 1, &[]).unwrap(), NONE);
    let values: Vec<_> = (0..64).map(|n| record(0, n)).collect();
    let batch = batch(ANYBODY, &values);
    for _ in 0..60 {
        assert_eq!(client.produce(TOPIC, 0, &batch).unwrap(), NONE);
    }
    disk.fill(4 << 20);
    while client.produce(TOPIC, 0, &batch).unwrap() == NONE {}
    let alter = ["topic", "alter", TOPIC, "--config", "retention.bytes=1048576", "-b", &broker.address];
    let (code, said) = run(&alter);
    assert_eq!(code, 0, "{said}");
    let begun = Instant::now();
    while client.produce(TOPIC, 0, &batch).unwrap() != NONE {
        assert!(begun.elapsed() < PATIENCE, "no room was made:\n{}", broker.said());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What found no room stays in the core log, and the last line says so.
#[test]
fn a_stop_on_a_full_disk_says_what_it_left() {
    let disk = match SmallDisk::make(128) {
        Ok(disk) => disk,
        Err(why) => return not_mounted("a stop on a full disk", &why),
    };
    let options = small_logs(&[]);
    let start = || Broker::try_start_by(disk.ringmill(), &disk.data(), &options).unwrap();
    let mut broker = start();
    let mut client = broker.client();
    assert_eq!(client.create(TOPIC, 1, &[]).unwrap(), NONE);
    disk.fill(4 << 20);
    let mut acked = 0;
    loop {
        let values: Vec<_> = (acked..acked + COUNT).map(|n| record(0, n)).collect();
        match client.produce(TOPIC, 0, &batch(ANYBODY, &values)).unwrap() {
            NONE => acked += COUNT,
            KAFKA_STORAGE_ERROR | REQUEST_TIMED_OUT => break,
            code => panic!("error {code} after {acked} records"),
        }
    }
    assert_eq!(broker.stop().code(), Some(0), "{}", broker.said());
    let said = broker.said();
    assert!(said.contains("stays in the core logs, flushed; the next start replays it"), "{said}");
    assert!(!said.contains("everything is flushed"), "{said}");
    disk.free();
    let mut broker = start();
    assert!(broker.client().read_from(TOPIC, 0, 0).len() as u64 >= acked);
    assert_eq!(broker.stop().code(), Some(0));
    assert!(broker.said().contains("everything is flushed, destaged and checkpointed"), "{}", broker.said());
}

/// The old core logs hold what has no room in segments: the start says how much is to be freed, which is enough, and that
/// the old number of cores starts, which it does.
#[test]
fn another_number_of_cores_on_a_full_disk_says_what_to_free() {
    let disk = match SmallDisk::make(128) {
        Ok(disk) => disk,
        Err(why) => return not_mounted("a change of cores on a full disk", &why),
    };
    let options = small_logs(&[]);
    let start = |cores: &str| {
        let options = [&options[..], &["--cores", cores]].concat();
        Broker::try_start_by(disk.ringmill(), &disk.data(), &options)
    };
    let mut broker = start("2").unwrap();
    let mut client = broker.client();
    assert_eq!(client.create(TOPIC, 2, &[]).unwrap(), NONE);
    disk.fill(4 << 20);
    let mut acked = [0; 2];
    for partition in [0, 1].into_iter().cycle() {
        let values: Vec<_> = (acked[partition]..acked[partition] + COUNT).map(|n| record(0, n)).collect();
        match client.produce(TOPIC, partition as i32, &batch(ANYBODY, &values)).unwrap() {
            NONE => acked[partition] += COUNT,
            KAFKA_STORAGE_ERROR | REQUEST_TIMED_OUT => break,
            code => panic!("error {code} after {acked:?} records"),
        }
    }
    broker.kill();
    let check = |broker: &Broker| {
        for (partition, acked) in (0..).zip(acked) {
            assert!(
                broker.client().read_from(TOPIC, partition, 0).len() as u64 >= acked,
                "partition {partition}"
            );
        }
    };

    let refusal = start("3").err().expect("there is no room for what has to be moved");
    assert_eq!(refusal.code, Some(DISK_FULL), "{}", refusal.said);
    assert!(refusal.said.contains("or start with --cores 2, as before"), "{}", refusal.said);
    let to_free = refusal.said.split_once("So free ").and_then(|(_, rest)| rest.split_once(" bytes there"));
    let to_free: u64 = to_free.expect("it says how much").0.parse().unwrap();
    let mut broker = start("2").expect("the old number starts");
    check(&broker);
    broker.kill();

    disk.free();
    disk.fill(to_free);
    let mut broker = start("3").expect("what it said to free is enough");
    check(&broker);
    assert_eq!(broker.stop().code(), Some(0), "{}", broker.said());
}

/// A hundred MiB in one batch: larger than a flush group, a chunk of the tail ring, and the default of everything.
#[test]
fn a_batch_of_a_hundred_mebibytes_is_stored_and_survives() {
    const VALUE_BYTES: usize = 100 << 20;
    let dir = tempfile::tempdir().unwrap();
    let sets = ["--set", "message.max.bytes=110MiB", "--set", "socket.request.max.bytes=120MiB"];
    let options = [&["--memory", "1GiB"][..], &sets].concat();
    let mut broker = Broker::start(dir.path(), &options);
    let mut client = broker.client();
    assert_eq!(client.create("huge", 1, &[("max.message.bytes", "115343360")]).unwrap(), NONE);
    assert_eq!(client.create("modest", 1, &[("max.message.bytes", "1048588")]).unwrap(), NONE);

    let mut value = vec![b'h'; VALUE_BYTES];
    value[VALUE_BYTES - 1] = b'!';
    let huge = batch(ANYBODY, &[&value]);
    assert_eq!(client.produce("modest", 0, &huge).unwrap(), MESSAGE_TOO_LARGE);
    // Small neighbours on both sides: nothing waits behind it for ever, and nothing is cut.
    let small = batch(ANYBODY, &["small"]);
    for records in [&small, &huge, &small] {
        assert_eq!(client.produce("huge", 0, records).unwrap(), NONE);
    }
    let is_whole = |broker: &Broker, when: &str| {
        let stored = broker.client().read_from("huge", 0, 0);
        let lengths: Vec<usize> = stored.iter().map(|s| s.value.len()).collect();
        assert_eq!(lengths, [5, VALUE_BYTES, 5], "{when}");
        assert!(stored[1].value == value, "the same bytes {when}");
    };
    is_whole(&broker, "from memory");
    broker.kill();
    broker = Broker::start(dir.path(), &options);
    is_whole(&broker, "after kill -9");
    assert_eq!(broker.stop().code(), Some(0), "{}", broker.said());
    broker = Broker::start(dir.path(), &options);
    is_whole(&broker, "from its segment");
}

/// Lines of the log that have nowhere to go are lost, and nothing else.
#[test]
fn a_log_that_cannot_be_written_ends_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut silent = Command::new("sh");
    silent.args(["-c", r#"exec "$0" "$@" 2>/dev/full"#, env!("CARGO_BIN_EXE_ringmill")]);
    let mut broker = Broker::try_start_by(silent, dir.path(), &["--log-level", "debug"]).expect("it starts");
    // Not a request: the connection is closed, and why is logged.
    let mut stranger = TcpStream::connect(&broker.address).unwrap();
    stranger.write_all(&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]).unwrap();
    stranger.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(matches!(stranger.read(&mut [0; 16]), Ok(0) | Err(_)));
    broker.client();
    broker.assert_alive();
    assert!(broker.stop().success(), "{}", broker.said());
}
