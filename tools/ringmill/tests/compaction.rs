//! A compacted topic under the real binary, with kill -9 in the middle of everything: the newest acked record of each key is
//! there, at growing offsets, and most of what it superseded has gone. `RINGMILL_KEEP=DIR` leaves the folder for
//! `kafka.sh run kafka.tools.DumpLogSegments`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{
    Broker, Client, KAFKA_STORAGE_ERROR, NONE, REQUEST_TIMED_OUT, UNKNOWN_TOPIC_OR_PARTITION, data_folder,
};
use ringmill_record::write::{Sealing, no_headers, put_record, seal};
use ringmill_record::{Batches, HEADER_BYTES, Records};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const TOPIC: &str = "state";
const KEYS: u64 = 100;
const COUNT: u64 = 10;
const SETTINGS: &[&str] =
    &["--set", "log.segment.bytes=1048576", "--set", "tail.bytes=8MiB", "--set", "log.cleaner.backoff.ms=50"];

fn batch(id: i64, first: u64) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    for (delta, n) in (0..).zip(first..first + COUNT) {
        let (key, value) = (format!("key {}", n % KEYS), format!("{n}/{}", "x".repeat(900)));
        put_record(&mut out, 0, delta, Some(key.as_bytes()), Some(value.as_bytes()), no_headers());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let plain = Sealing::plain(now, now, COUNT as i32);
    let by =
        Sealing { producer_id: id, producer_epoch: 0, base_sequence: (first % (1 << 31)) as i32, ..plain };
    seal(&mut out, &by);
    out
}

/// Produces through any number of crashes, idempotently; how many records were acked.
fn produce(address: &Mutex<String>, stop: &AtomicBool) -> u64 {
    let (mut id, mut acked, mut client) = (None, 0, None::<Client>);
    while !stop.load(Ordering::Relaxed) {
        let Some(connected) = client.as_mut() else {
            client = Client::connect(&address.lock().unwrap().clone()).ok();
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        let outcome = (|| {
            let id = match id {
                Some(id) => id,
                None => *id.insert(connected.producer_id()?),
            };
            connected.produce(TOPIC, 0, &batch(id, acked))
        })();
        match outcome {
            Ok(NONE) => acked += COUNT,
            Ok(UNKNOWN_TOPIC_OR_PARTITION | REQUEST_TIMED_OUT | KAFKA_STORAGE_ERROR) => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(code) => panic!("error {code} at {acked}"),
            Err(_) => client = None,
        }
    }
    acked
}

/// The newest number of each key, and how many records there are.
fn read(client: &mut Client) -> (BTreeMap<u64, u64>, u64) {
    let (mut newest, mut count, mut offset) = (BTreeMap::new(), 0, 0);
    loop {
        let got = client.fetch(TOPIC, 0, offset, 4 << 20).unwrap();
        assert_eq!(got.error_code, NONE, "at {offset}");
        let Some(bytes) = got.records.as_ref().filter(|bytes| !bytes.is_empty()) else {
            assert_eq!(offset, got.high_watermark, "everything up to the high watermark");
            return (newest, count);
        };
        for (header, bytes) in Batches::new(bytes) {
            assert!(header.next_offset().0 > offset && header.base_offset.0 >= 0);
            for record in Records::new(&header, bytes).unwrap().map(Result::unwrap) {
                let at = header.base_offset.0 + i64::from(record.offset_delta);
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                let n: u64 = value.split('/').next().unwrap().parse().unwrap();
                assert_eq!(at, n as i64, "a record keeps its offset, and nothing is there twice");
                assert_eq!(record.key.unwrap(), format!("key {}", n % KEYS).as_bytes());
                newest.insert(n % KEYS, n);
                count += 1;
            }
            offset = header.next_offset().0;
        }
    }
}

#[test]
fn the_newest_record_of_each_key_survives_kill_nine() {
    let dir = tempfile::tempdir().unwrap();
    let data = data_folder(&dir);
    let mut broker = Broker::start(&data, SETTINGS);
    let configs = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.01")];
    assert_eq!(broker.client().create(TOPIC, 1, &configs).unwrap(), NONE);
    let (address, stop) = (Mutex::new(broker.address.clone()), AtomicBool::new(false));
    let acked = std::thread::scope(|scope| {
        let producer = scope.spawn(|| produce(&address, &stop));
        broker.live_through_kills(8, &data, SETTINGS, &address);
        std::thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        producer.join().unwrap()
    });
    let begun = Instant::now();
    let (mut newest, mut count) = read(&mut broker.client());
    while count > acked / 2 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{count} of {acked} records are there still");
        std::thread::sleep(Duration::from_millis(200));
        (newest, count) = read(&mut broker.client());
    }
    println!("{acked} acked, {count} left");
    assert!(acked > 1000, "{acked}");
    for n in acked - KEYS..acked {
        assert!(newest.get(&(n % KEYS)).is_some_and(|found| *found >= n), "key {}: {n} was acked", n % KEYS);
    }
    broker.kill();
    broker = Broker::start(&data, SETTINGS);
    assert_eq!(read(&mut broker.client()).0, newest);
    assert_eq!(broker.stop().code(), Some(0));
}
