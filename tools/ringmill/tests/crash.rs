//! kill -9 under load, again and again: every acked record is there afterwards, once, in its producer's order.
//!
//! `RINGMILL_CRASH_ROUNDS=50 cargo test --release -p ringmill --test crash` is the long form; CI runs the short one.
//! `RINGMILL_CRASH_DATA=DIR` puts the data folder on another file system (`tools/ci/filesystems.sh`).

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{
    Author, Broker, Client, KAFKA_STORAGE_ERROR, NONE, REQUEST_TIMED_OUT, UNKNOWN_TOPIC_OR_PARTITION, batch,
};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TOPIC: &str = "crash";
const PRODUCERS: usize = 4;
const PARTITIONS: i32 = 4;

fn start(data: &Path) -> Broker {
    Broker::start(data, &["--set", "log.segment.bytes=1048576"])
}

/// Produces until told to stop, through any number of crashes; returns how many records were acked.
fn run_producer(number: usize, address: &Mutex<String>, stop: &AtomicBool) -> u64 {
    const COUNT: i32 = 5;
    let mut id = None;
    let mut acked = 0u64;
    let mut sequence = 0i32;
    let mut client: Option<Client> = None;
    while !stop.load(Ordering::Relaxed) {
        let Some(connected) = client.as_mut() else {
            let at = address.lock().unwrap().clone();
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
            let values = (acked..acked + COUNT as u64).map(|n| format!("{number}/{n}/{}", "x".repeat(200)));
            let records = batch(Author { id, sequence }, &values.collect::<Vec<_>>());
            connected.produce(TOPIC, (number as i32) % PARTITIONS, &records)
        })();
        match outcome {
            Ok(NONE) => {
                acked += COUNT as u64;
                sequence += COUNT;
            }
            // Not there yet, or not now: the same batch again.
            Ok(UNKNOWN_TOPIC_OR_PARTITION | REQUEST_TIMED_OUT | KAFKA_STORAGE_ERROR) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(code) => panic!("producer {number}: error {code} at sequence {sequence}"),
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
            std::thread::spawn(move || run_producer(number, &address, &stop))
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
