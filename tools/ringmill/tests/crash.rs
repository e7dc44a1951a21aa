//! kill -9 under load, again and again: every acked record is there afterwards, once, in its producer's order.
//!
//! `RINGMILL_CRASH_ROUNDS=50 cargo test --release -p ringmill --test crash` is the long form; CI runs the short one.
//! `RINGMILL_CRASH_DATA=DIR` puts the data folder on another file system (`tools/ci/filesystems.sh`).

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{
    ANYBODY, Author, Broker, Client, KAFKA_STORAGE_ERROR, NONE, REQUEST_TIMED_OUT,
    UNKNOWN_TOPIC_OR_PARTITION, batch, run,
};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TOPIC: &str = "crash";
/// Two for each partition, so that their batches lie between each other's: one that waits for each answer, and one with as many
/// requests in flight as an idempotent producer may have.
const PRODUCERS: usize = 8;
const PARTITIONS: i32 = 4;
const IN_FLIGHT: [u64; 2] = [1, 5];

fn start(data: &Path) -> Broker {
    Broker::start(data, &["--set", "log.segment.bytes=1048576"])
}

/// Produces until told to stop, through any number of crashes, with so many requests in flight; returns how many records were
/// acked.
fn run_producer(number: usize, in_flight_max: u64, address: &Mutex<String>, stop: &AtomicBool) -> u64 {
    const COUNT: u64 = 5;
    let mut id = None;
    let (mut acked, mut in_flight) = (0u64, 0u64);
    let mut client: Option<Client> = None;
    while !stop.load(Ordering::Relaxed) {
        let Some(connected) = client.as_mut() else {
            let at = address.lock().unwrap().clone();
            in_flight = 0;
            client = Client::connect(&at).ok();
            if client.is_none() {
                std::thread::sleep(Duration::from_millis(5));
            }
            continue;
        };
        let outcome = (|| {
            let id = match id {
                Some(id) => id,
                None => *id.insert(connected.producer_id()?),
            };
            while in_flight < in_flight_max {
                let first = acked + in_flight * COUNT;
                let values: Vec<_> =
                    (first..first + COUNT).map(|n| format!("{number}/{n}/{}", "x".repeat(200))).collect();
                let records = batch(Author { id, sequence: first as i32 }, &values);
                connected.send_produce(TOPIC, (number as i32) % PARTITIONS, &records)?;
                in_flight += 1;
            }
            connected.receive_produced()
        })();
        match outcome {
            Ok(NONE) => {
                acked += COUNT;
                in_flight -= 1;
            }
            // Not there yet, or not now: the same batches again, and on a new connection, as those behind it may be out of order.
            Ok(UNKNOWN_TOPIC_OR_PARTITION | REQUEST_TIMED_OUT | KAFKA_STORAGE_ERROR) => {
                std::thread::sleep(Duration::from_millis(5));
                client = None;
            }
            Ok(code) => panic!("producer {number}: error {code} after {acked} records"),
            Err(_) => client = None,
        }
    }
    acked
}

/// Every record is there once, in its producer's order: how many of each producer.
fn count_by_producer(client: &mut Client) -> HashMap<usize, u64> {
    let mut next: HashMap<usize, u64> = HashMap::new();
    for partition in 0..PARTITIONS {
        let mut before = String::new();
        for record in client.read_from(TOPIC, partition, 0) {
            let value = String::from_utf8(record.value).unwrap();
            let mut parts = value.split('/');
            let producer: usize = parts.next().unwrap().parse().unwrap();
            let number: u64 = parts.next().unwrap().parse().unwrap();
            let from = format!(
                "offset {} of {partition}: producer id {} sequence {}",
                record.offset, record.producer, record.sequence
            );
            let expected = next.entry(producer).or_default();
            assert_eq!(
                number, *expected,
                "producer {producer}: in order, without loss or duplicates; {from}; before it {before}"
            );
            *expected += 1;
            before = from;
        }
    }
    next
}

#[test]
fn acked_records_survive_kill_nine_under_load() {
    let rounds: u32 = std::env::var("RINGMILL_CRASH_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(8);
    let dir = match std::env::var_os("RINGMILL_CRASH_DATA") {
        Some(place) => tempfile::tempdir_in(place).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let mut broker = start(dir.path());
    assert_eq!(broker.client().create(TOPIC, PARTITIONS, &[]).unwrap(), NONE);
    let address = Arc::new(Mutex::new(broker.address.clone()));
    let stop = Arc::new(AtomicBool::new(false));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|number| {
            let (address, stop) = (address.clone(), stop.clone());
            let in_flight_max = IN_FLIGHT[number / PARTITIONS as usize];
            std::thread::spawn(move || run_producer(number, in_flight_max, &address, &stop))
        })
        .collect();
    for round in 0..rounds {
        // Long enough for destaging and checkpoints in some rounds, short enough to cut recovery itself in others.
        std::thread::sleep(Duration::from_millis(u64::from(40 + round * 97 % 700)));
        broker.kill();
        let begun = Instant::now();
        broker = start(dir.path());
        println!("round {round}: recovered in {:?}", begun.elapsed());
        *address.lock().unwrap() = broker.address.clone();
    }
    std::thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::Relaxed);
    let acked: Vec<u64> = producers.into_iter().map(|p| p.join().unwrap()).collect();
    broker.kill();
    broker = start(dir.path());
    let stored = count_by_producer(&mut broker.client());
    for (producer, acked) in acked.iter().enumerate() {
        let stored = stored.get(&producer).copied().unwrap_or(0);
        println!("producer {producer}: {acked} acked, {stored} stored");
        assert!(stored >= *acked, "producer {producer}: {acked} records were acked, {stored} are there");
        assert!(*acked > 0, "producer {producer} got something through");
    }
}

/// Folders as a crash leaves them between the decision to delete a topic and the removal of its folders.
fn cut_in_a_deletion(home: &Path) -> PathBuf {
    let (data, cut) = (home.join("data"), home.join("cut"));
    let mut broker = Broker::start(&data, &[]);
    let mut client = broker.client();
    for (topic, partitions) in [("gone", 2), ("kept", 1)] {
        assert_eq!(client.create(topic, partitions, &[]).unwrap(), NONE);
        assert_eq!(client.produce(topic, 0, &batch(ANYBODY, &[topic])).unwrap(), NONE);
    }
    // Into segments, so that there are folders.
    assert_eq!(broker.stop().code(), Some(0));
    let mut broker = Broker::start(&data, &[]);
    assert!(Command::new("cp").arg("-a").arg(&data).arg(&cut).status().unwrap().success());
    let (code, said) = run(&["topic", "delete", "gone", "--yes", "-b", &broker.address]);
    assert_eq!(code, 0, "{said}");
    broker.kill();
    // The journal is synced before any core hears of it.
    std::fs::copy(data.join("meta/journal"), cut.join("meta/journal")).unwrap();
    assert!(cut.join("topics/gone-0").exists());
    cut
}

fn topics(broker: &Broker) -> Vec<String> {
    let (code, said) = run(&["topic", "list", "--json", "-b", &broker.address]);
    assert_eq!(code, 0, "{said}");
    ["gone", "kept"]
        .iter()
        .filter(|name| said.contains(&format!("\"{name}\"")))
        .map(|n| n.to_string())
        .collect()
}

#[test]
fn a_topic_that_was_deleted_before_a_crash_does_not_come_back() {
    let home = tempfile::tempdir().unwrap();
    let cut = cut_in_a_deletion(home.path());
    // More than once: what the first start clears must not be undone by a crash of its own.
    for _ in 0..2 {
        let mut broker = Broker::start(&cut, &[]);
        assert_eq!(topics(&broker), ["kept"], "{}", broker.said());
        assert_eq!(broker.client().read_from("kept", 0, 0).len(), 1);
        assert!(!cut.join("topics/gone-0").exists());
        broker.kill();
    }
    // The name is free, and its new owner stays.
    let mut broker = Broker::start(&cut, &[]);
    let mut client = broker.client();
    assert_eq!(client.create("gone", 1, &[]).unwrap(), NONE);
    assert_eq!(client.produce("gone", 0, &batch(ANYBODY, &["new"])).unwrap(), NONE);
    broker.kill();
    let mut broker = Broker::start(&cut, &[]);
    let stored = broker.client().read_from("gone", 0, 0);
    assert_eq!(stored.iter().map(|r| &r.value[..]).collect::<Vec<_>>(), [b"new"]);
    assert_eq!(broker.stop().code(), Some(0));
    let left: Vec<_> =
        std::fs::read_dir(cut.join("topics")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with("-delete")), "{left:?}");
}

/// The same folder, but put in place by somebody after an orderly stop: it is adopted, deleted topic or not.
#[test]
fn a_deleted_topics_folder_that_is_brought_back_is_adopted() {
    let home = tempfile::tempdir().unwrap();
    let cut = cut_in_a_deletion(home.path());
    let backup = home.path().join("gone-0");
    assert!(
        Command::new("cp").arg("-a").arg(cut.join("topics/gone-0")).arg(&backup).status().unwrap().success()
    );
    for deleted_just_now in [false, true] {
        let mut broker = Broker::start(&cut, &[]);
        if deleted_just_now {
            let (code, said) = run(&["topic", "delete", "gone", "--yes", "-b", &broker.address]);
            assert_eq!(code, 0, "{said}");
        }
        assert_eq!(topics(&broker), ["kept"]);
        assert_eq!(broker.stop().code(), Some(0));
        assert!(!cut.join("topics/gone-0").exists());
        assert!(
            Command::new("cp").arg("-a").arg(&backup).arg(cut.join("topics")).status().unwrap().success()
        );
        let mut broker = Broker::start(&cut, &[]);
        assert_eq!(topics(&broker), ["gone", "kept"], "{}", broker.said());
        let stored = broker.client().read_from("gone", 0, 0);
        assert_eq!(stored.iter().map(|r| &r.value[..]).collect::<Vec<_>>(), [b"gone"]);
        assert_eq!(broker.stop().code(), Some(0));
    }
}
