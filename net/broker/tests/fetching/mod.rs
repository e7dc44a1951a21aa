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
        let at = broker.banner.split("http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap();
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let sum = |name: &str| {
            let rows: Vec<u64> = text
                .lines()
                .filter_map(|line| {
                    line.strip_prefix(name)?.strip_prefix('{')?.rsplit(' ').next()?.parse().ok()
                })
                .collect();
            assert_eq!(rows.len(), 2, "{name} of two cores in {text}");
            rows.iter().sum()
        };
        Sent {
            in_place: sum("ringmill_fetch_in_place_bytes_total"),
            copied: sum("ringmill_fetch_copied_bytes_total"),
            sent: sum("ringmill_sent_bytes_total"),
            cold_read: sum("ringmill_cold_read_bytes_total"),
        }
    }
}

/// Whoever waits for records of a topic is told when it is deleted, on whatever core its partitions are.
pub fn a_deleted_topic_is_not_waited_for() {
    const UNKNOWN_TOPIC_OR_PARTITION: i64 = 3;
    let dir = folder();
    let broker = Plan::within(&dir, "2").start();
    let address = broker.address;
    let mut client = Client::connect(address);
    client.create_with("t", 2, "retention.ms", "-1");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..6)
            .map(|at| {
                scope.spawn(move || {
                    let terms = Terms { wait_ms: PATIENCE_MS, min_bytes: 1, max_bytes: 1 << 20 };
                    Client::connect(address).fetch_on("t", &[(at % 2, 0)], terms)
                })
            })
            .collect();
        // Some are there by then; those that come later find no topic, and are answered the same.
        std::thread::sleep(Duration::from_millis(300));
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
