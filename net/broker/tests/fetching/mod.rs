//! Fetches that wait, and those that do not.

use crate::client::{Client, Terms};
use crate::{Broker, Plan, check_transcript, folder, hex, unhex};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Far more than an answer takes that does not wait, and far less than a client's patience below.
const AT_ONCE: Duration = Duration::from_secs(20);
const PATIENCE_MS: i32 = 50_000;

/// Answers are whole batches and have a bound: who asks for nearly as much, for more, or for more than one look at the
/// disk gives, is answered with what fits once that much is there.
pub fn what_is_there_is_not_waited_for() {
    const BATCH: usize = 990_000;
    let dir = folder();
    let plan = Plan::within(&dir, "2");
    let mut broker = plan.start();
    let mut client = Client::connect(broker.address);
    client.create_with("t", 2, "retention.ms", "-1");
    for at in 0..48 {
        client.produce_throttled("t", at % 2, BATCH);
    }
    for round in ["from memory", "from disk"] {
        let mut client = Client::connect(broker.address);
        for (partitions, min_bytes, max_bytes) in [
            (1, 16 << 20, 50 << 20),
            (1, (16 << 20) - 1000, 16 << 20),
            (1, 8 << 20, 50 << 20),
            (1, i32::MAX, i32::MAX),
            (1, 2_500_000, 2_500_000),
            (2, 40 << 20, 50 << 20),
            (2, 7_500_000, 7_500_000),
        ] {
            let parts: Vec<(i32, i64)> = (0..partitions).map(|partition| (partition, 0)).collect();
            let begun = Instant::now();
            let terms = Terms { wait_ms: PATIENCE_MS, min_bytes, max_bytes };
            let sizes = client.fetch_on("t", &parts, terms);
            let what = format!("{min_bytes} to {max_bytes} bytes of {partitions} partitions {round}");
            assert!(begun.elapsed() < AT_ONCE, "{what} took {:?}: {sizes:?}", begun.elapsed());
            let bytes: usize = sizes.iter().map(|(_, size)| size.unwrap()).sum();
            assert!(bytes > BATCH && bytes <= max_bytes as usize, "{what}: {bytes} bytes");
        }
        // What a partition may give is less than what is waited for: as in Kafka, it is waited for.
        let begun = Instant::now();
        let terms = Terms { wait_ms: 400, min_bytes: 2 << 20, max_bytes: 50 << 20 };
        let sizes = client.fetch_on("t", &[(0, 23)], terms);
        assert!(begun.elapsed() >= Duration::from_millis(400), "{sizes:?} {round}");
        assert!(sizes.iter().all(|(_, size)| size.is_ok_and(|bytes| bytes > BATCH)), "{sizes:?}");
        broker.stop();
        broker = plan.start();
    }
    broker.stop();
}

/// Records leave from the tail ring's groups, and from the blocks that were read for them, without a copy; only an answer under
/// 4 KiB is copied. With SENDMSG_ZC and without it, which makes no difference until a send is large enough for it
/// (`ZERO_COPY_FROM_BYTES`).
pub fn records_are_sent_from_where_they_lie() {
    const BATCHES: usize = 8;
    const BATCH: usize = 200_000;
    for set in ["", "features.off=zero_copy"] {
        let dir = folder();
        let plan = Plan { set: set.into(), ..Plan::within(&dir, "2") };
        let mut broker = plan.start();
        let mut client = Client::connect(broker.address);
        client.create_with("t", 2, "retention.ms", "-1");
        for at in 0..BATCHES {
            client.produce_throttled("t", at as i32 % 2, BATCH);
        }
        let small_at = client.produce("t", 0);
        for is_cold in [false, true] {
            let what = format!("{set} cold {is_cold}");
            // One connection, so that no other answer is counted between.
            let mut client = Client::connect(broker.address);
            let before = Sent::of(&broker);
            let min_bytes = (BATCHES * BATCH) as i32;
            let terms = Terms { wait_ms: PATIENCE_MS, min_bytes, max_bytes: 50 << 20 };
            let sizes = client.fetch_on("t", &[(0, 0), (1, 0)], terms);
            let bytes: usize = sizes.iter().map(|(_, size)| size.unwrap()).sum();
            assert!(bytes >= BATCHES * BATCH, "{what}: {bytes} bytes");
            let large = Sent::of(&broker);
            assert_eq!(large.in_place - before.in_place, bytes as u64, "{what}");
            assert_eq!(large.copied, before.copied, "{what}");
            // Counted when the kernel has said so, which may be after the client has them.
            let begun = Instant::now();
            while Sent::of(&broker).sent - before.sent < bytes as u64 {
                assert!(begun.elapsed() < AT_ONCE, "{what}: {:?} after {before:?}", Sent::of(&broker));
            }
            let read = large.cold_read - before.cold_read;
            assert_eq!(read >= bytes as u64, is_cold, "{what}: {read} of {bytes} bytes were read");
            assert!(is_cold || read == 0, "{what}: {read} bytes were read");

            let sizes = client.fetch_on("t", &[(0, small_at)], Terms { min_bytes: 1, ..terms });
            let small = Sent::of(&broker);
            assert_eq!(Ok((small.copied - large.copied) as usize), sizes[0].1, "{what}");
            assert_eq!(small.in_place, large.in_place, "{what}");
            broker.stop();
            broker = plan.start();
        }
        broker.stop();
    }
}

/// Ten readers of one cold range, each on a connection of its own, cost little more than one reading of it, though the core's
/// cache holds a quarter of it: they come to each part together.
pub fn ten_readers_of_old_records_share_the_reads() {
    const READERS: usize = 10;
    const PARTS: usize = 16;
    const BATCHES_A_PART: usize = 4;
    let dir = folder();
    let plan = Plan { set: "cache.bytes=32MiB;scrub.bytes.per.second=0".into(), ..Plan::within(&dir, "2") };
    let broker = plan.start();
    let mut client = Client::connect(broker.address);
    // The one segment that is not sealed is read for its index as well.
    client.create_with("t", 1, "segment.bytes", "8388608");
    for _ in 0..PARTS * BATCHES_A_PART {
        client.produce_throttled("t", 0, 990_000);
    }
    let sizes = client.fetch_on("t", &[(0, 0)], Terms { wait_ms: PATIENCE_MS, min_bytes: 1, max_bytes: 1 });
    let part_bytes = BATCHES_A_PART * sizes[0].1.unwrap();
    broker.stop();
    let broker = plan.start();
    let (before, before_disk) = (Sent::of(&broker), disk_read_bytes(&broker));
    let together = std::sync::Barrier::new(READERS);
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                let mut client = Client::connect(broker.address);
                for part in 0..PARTS {
                    together.wait();
                    let from = (part * BATCHES_A_PART) as i64;
                    let (min_bytes, max_bytes) = (part_bytes as i32, part_bytes as i32);
                    let terms = Terms { wait_ms: PATIENCE_MS, min_bytes, max_bytes };
                    assert_eq!(client.fetch_on("t", &[(0, from)], terms), [(0, Ok(part_bytes))], "{part}");
                }
            });
        }
    });
    let after = Sent::of(&broker);
    let pass = (PARTS * part_bytes) as u64;
    let read = after.cold_read - before.cold_read;
    let said = format!("{read} bytes were read for {READERS} readings of {pass}");
    assert_eq!(after.in_place - before.in_place, READERS as u64 * pass, "{said}");
    assert!(read >= pass, "{said}: it was not cold");
    assert!(read < 2 * pass, "{said}");
    // And as the kernel counts it.
    let disk = disk_read_bytes(&broker) - before_disk;
    assert!(disk < 2 * pass, "{disk} from the device; {said}");
    broker.stop();
}

/// What this process had the device read.
fn disk_read_bytes(broker: &Broker) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/io", broker.child.id())).unwrap();
    text.lines().find_map(|line| line.strip_prefix("read_bytes: ")).unwrap().parse().unwrap()
}

/// Bytes to clients since the broker's start, of all cores.
#[derive(Clone, Copy, Debug)]
struct Sent {
    in_place: u64,
    copied: u64,
    sent: u64,
    cold_read: u64,
}

impl Sent {
    fn of(broker: &Broker) -> Sent {
        let text = scrape(broker);
        Sent {
            in_place: of_two_cores(&text, "ringmill_fetch_in_place_bytes_total"),
            copied: of_two_cores(&text, "ringmill_fetch_copied_bytes_total"),
            sent: of_two_cores(&text, "ringmill_sent_bytes_total"),
            cold_read: of_two_cores(&text, "ringmill_cold_read_bytes_total"),
        }
    }
}

fn scrape(broker: &Broker) -> String {
    let at = broker.banner.split("http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap();
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// A metric that two cores have, both together.
fn of_two_cores(metrics: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix('{')?.rsplit(' ').next()?.parse().ok();
    let rows: Vec<u64> = metrics.lines().filter_map(value).collect();
    assert_eq!(rows.len(), 2, "{name} of two cores in {metrics}");
    rows.iter().sum()
}

/// Whoever waits for records of a topic is told when it is deleted, on whatever core its partitions are.
pub fn a_deleted_topic_is_not_waited_for() {
    const UNKNOWN_TOPIC_OR_PARTITION: i64 = 3;
    const READERS: i32 = 6;
    let dir = folder();
    let broker = Plan::within(&dir, "2").start();
    let address = broker.address;
    let mut client = Client::connect(address);
    client.create_with("t", 2, "retention.ms", "-1");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..READERS)
            .map(|at| {
                scope.spawn(move || {
                    let terms = Terms { wait_ms: PATIENCE_MS, min_bytes: 1, max_bytes: 1 << 20 };
                    Client::connect(address).fetch_on("t", &[(at % 2, 0)], terms)
                })
            })
            .collect();
        while of_two_cores(&scrape(&broker), "ringmill_fetch_waiting") < READERS as u64 {
            assert!(begun.elapsed() < AT_ONCE, "not all of them wait");
        }
        assert_eq!(client.delete_topic("t"), 0);
        for (at, waiting) in waiting.into_iter().enumerate() {
            let said = [(at as i32 % 2, Err(UNKNOWN_TOPIC_OR_PARTITION))];
            assert_eq!(waiting.join().unwrap(), said);
        }
    });
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    broker.stop();
}

/// Sizes of a fetch that are below 0, at the end of the log and before it; and batches of transactions.
pub fn sizes_below_zero_are_answered_as_kafka_does() {
    let dir = folder();
    let broker = Plan::within(&dir, "2").start();
    let mut client = Client::connect(broker.address);
    assert!(check_transcript(&mut client, include_str!("../golden/kafka-4.3.1-fetch.txt")) > 30);
    broker.stop();
}

/// What ends the wait of a fetch, and what does not; and which of its partitions may give more than was asked of them. The
/// topics' partitions lie on both cores.
pub fn fetches_wait_as_in_kafka() {
    const SESSION: &str = "SESSION*";
    let dir = folder();
    let broker = Plan::within(&dir, "2").start();
    let mut client = Client::connect(broker.address);
    let mut session = None;
    for line in include_str!("../golden/kafka-4.3.1-fetch-waits.txt").lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [label, waited_ms, request, answer] = fields[..] else { panic!("{line}") };
        let begun = Instant::now();
        let ours = hex(&client.exchange(&unhex(&request.replace(SESSION, session.as_deref().unwrap_or("")))));
        let took = begun.elapsed();
        if let (None, Some(at)) = (&session, answer.find(SESSION)) {
            session = Some(ours[at..at + SESSION.len()].to_string());
        }
        assert_eq!(ours, answer.replace(SESSION, session.as_deref().unwrap_or("")), "{label}");
        match waited_ms.parse().unwrap() {
            -1 => {}
            0 => assert!(took < AT_ONCE, "{label} took {took:?}"),
            ms => assert!(took >= Duration::from_millis(ms as u64), "{label} took {took:?}"),
        }
    }
    broker.stop();
}

/// Differences from Kafka that COMPATIBILITY.md states: a partition twice in one produce, an isolation level that is none.
pub fn what_no_client_sends_is_taken_as_compatibility_says() {
    let dir = folder();
    let broker = Plan::within(&dir, "2").start();
    let mut client = Client::connect(broker.address);
    client.create_with("t", 2, "retention.ms", "-1");
    // Whatever core the client is at, one partition is another's.
    for partition in [0, 1] {
        assert_eq!(client.produce_two_in_one("t", partition), [0, 1], "partition {partition}");
        assert_eq!(client.end_offset("t", partition), 2, "partition {partition}");
    }
    for isolation in [2, 7, u8::MAX] {
        let mut stranger = Client::connect(broker.address);
        stranger.send_fetch_isolated("t", isolation);
        assert!(stranger.is_cut_off(), "isolation level {isolation}");
    }
    broker.stop();
}
