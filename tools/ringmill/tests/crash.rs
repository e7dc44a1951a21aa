//! kill -9 under load, again and again: every acked record is there afterwards, once, in its producer's order.
//!
//! `RINGMILL_CRASH_ROUNDS=50 cargo test --release -p ringmill --test crash` is the long form; CI runs the short one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::{Bytes, BytesMut};
use kafka_wire::fetch_request::{FetchPartition, FetchTopic};
use kafka_wire::metadata_request::MetadataRequestTopic;
use kafka_wire::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_wire::{
    FetchRequest, FetchResponse, InitProducerIdRequest, InitProducerIdResponse, KafkaRequest,
    MetadataRequest, MetadataResponse, OutboundFrameLimits, ProduceRequest, ProduceResponse, encode_request,
};
use kafka_wire_core::{ApiVersion, DecodeLimits, KafkaDecode, StrBytes};
use ringmill_record::{Batches, Records};
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TOPIC: &str = "crash";
const PRODUCERS: usize = 4;
const PARTITIONS: i32 = 4;

struct Broker {
    child: Child,
    address: String,
}

fn start(data: &Path) -> Broker {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringmill"))
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--cores",
            "2",
            "--memory",
            "256MiB",
        ])
        .args(["--set", "num.partitions=4", "--set", "log.segment.bytes=1048576", "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines
        .by_ref()
        .map(Result::unwrap)
        .find_map(|line| line.trim().strip_prefix("listens").map(|a| a.trim().to_string()))
        .expect("the banner says where it listens");
    // Keep reading, so that the broker never meets a closed pipe.
    std::thread::spawn(move || lines.for_each(drop));
    Broker { child, address }
}

struct Client {
    stream: TcpStream,
    correlation: i32,
}

impl Client {
    fn connect(address: &str) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Client { stream, correlation: 0 })
    }

    /// `flexible`: the response header has tagged fields.
    fn call<Q: KafkaRequest, A: KafkaDecode>(
        &mut self,
        request: &Q,
        version: i16,
        flexible: bool,
    ) -> io::Result<A> {
        self.correlation += 1;
        let mut out = BytesMut::new();
        let limits = OutboundFrameLimits::new(64 << 20);
        encode_request(
            &mut out,
            self.correlation,
            Some(StrBytes::from("crash")),
            request,
            ApiVersion::new(version),
            limits,
        )
        .map_err(|e| io::Error::other(e.to_string()))?;
        self.stream.write_all(&out)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body)?;
        let skip = if flexible { 5 } else { 4 };
        let body = Bytes::from(body).slice(skip..);
        A::decode_from_bytes(body, ApiVersion::new(version), DecodeLimits::default())
            .map_err(|e| io::Error::other(e.to_string()))
    }
}

fn varint(out: &mut Vec<u8>, value: i64) {
    let mut bits = ((value << 1) ^ (value >> 63)) as u64;
    while bits >= 0x80 {
        out.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    out.push(bits as u8);
}

/// A batch of `count` records `producer/number`, numbered from `first`.
fn batch(producer: usize, id: i64, sequence: i32, first: u64, count: i32) -> Vec<u8> {
    let mut records = Vec::new();
    for n in 0..count {
        let value = format!("{producer}/{}/{}", first + n as u64, "x".repeat(200));
        let mut record = vec![0];
        varint(&mut record, 0);
        varint(&mut record, i64::from(n));
        varint(&mut record, -1);
        varint(&mut record, value.len() as i64);
        record.extend_from_slice(value.as_bytes());
        varint(&mut record, 0);
        varint(&mut records, record.len() as i64);
        records.extend(record);
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let mut body = Vec::new();
    body.extend(0i16.to_be_bytes());
    body.extend((count - 1).to_be_bytes());
    body.extend(now.to_be_bytes());
    body.extend(now.to_be_bytes());
    body.extend(id.to_be_bytes());
    body.extend(0i16.to_be_bytes());
    body.extend(sequence.to_be_bytes());
    body.extend(count.to_be_bytes());
    body.extend(records);
    let mut out = Vec::new();
    out.extend(0i64.to_be_bytes());
    out.extend((body.len() as i32 + 9).to_be_bytes());
    out.extend((-1i32).to_be_bytes());
    out.push(2);
    out.extend(crc32c::crc32c(&body).to_be_bytes());
    out.extend(body);
    out
}

fn producer_id(client: &mut Client) -> io::Result<i64> {
    let mut request = InitProducerIdRequest::default();
    request.transactional_id = None;
    request.transaction_timeout_ms = 1000;
    let answer: InitProducerIdResponse = client.call(&request, 1, false)?;
    assert_eq!(answer.error_code, 0, "an idempotent producer gets its id");
    Ok(answer.producer_id)
}

fn produce(client: &mut Client, partition: i32, records: &[u8]) -> io::Result<i16> {
    let mut data = PartitionProduceData::default();
    data.index = partition;
    data.records = Some(Bytes::copy_from_slice(records));
    let mut topic = TopicProduceData::default();
    topic.name = StrBytes::from(TOPIC);
    topic.partition_data = vec![data];
    let mut request = ProduceRequest::default();
    request.acks = -1;
    request.timeout_ms = 10_000;
    request.topic_data = vec![topic];
    let answer: ProduceResponse = client.call(&request, 7, false)?;
    Ok(answer.responses[0].partition_responses[0].error_code)
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
                None => *id.insert(producer_id(connected)?),
            };
            let records = batch(number, id, sequence, acked, COUNT);
            produce(connected, (number as i32) % PARTITIONS, &records)
        })();
        match outcome {
            Ok(0) => {
                acked += COUNT as u64;
                sequence += COUNT;
            }
            // Not there yet (3), storage (56), timed out (7): the same batch again.
            Ok(3 | 7 | 56) => std::thread::sleep(Duration::from_millis(5)),
            Ok(code) => panic!("producer {number}: error {code} at sequence {sequence}"),
            Err(_) => client = None,
        }
    }
    acked
}

/// Everything in one partition: (producer, number) in offset order. Offsets must be dense.
fn read_all(client: &mut Client, partition: i32) -> Vec<(usize, u64, String)> {
    let mut out = Vec::new();
    let mut offset = 0i64;
    loop {
        let mut part = FetchPartition::default();
        part.partition = partition;
        part.fetch_offset = offset;
        part.partition_max_bytes = 4 << 20;
        let mut topic = FetchTopic::default();
        topic.topic = StrBytes::from(TOPIC);
        topic.partitions = vec![part];
        let mut request = FetchRequest::default();
        request.max_wait_ms = 100;
        request.min_bytes = 1;
        request.max_bytes = 8 << 20;
        request.topics = vec![topic];
        let answer: FetchResponse = client.call(&request, 4, false).unwrap();
        let got = &answer.responses[0].partitions[0];
        assert_eq!(got.error_code, 0, "partition {partition} at {offset}");
        let Some(bytes) = got.records.as_ref().filter(|b| !b.is_empty()) else {
            assert_eq!(offset, got.high_watermark, "everything up to the high watermark can be read");
            return out;
        };
        for (header, bytes) in Batches::new(bytes) {
            assert_eq!(header.base_offset.0, offset, "offsets of partition {partition} are dense");
            for record in Records::new(&header, bytes).unwrap() {
                let value = String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap();
                let mut parts = value.split('/');
                let from = format!(
                    "offset {} of {partition}: producer id {} sequence {} time {}",
                    header.base_offset, header.producer_id, header.base_sequence, header.max_timestamp_ms
                );
                out.push((
                    parts.next().unwrap().parse().unwrap(),
                    parts.next().unwrap().parse().unwrap(),
                    from,
                ));
            }
            offset = header.next_offset().0;
        }
    }
}

#[test]
fn acked_records_survive_kill_nine_under_load() {
    let rounds: u32 = std::env::var("RINGMILL_CRASH_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(8);
    let dir = tempfile::tempdir().unwrap();
    let mut broker = start(dir.path());
    let mut names = MetadataRequestTopic::default();
    names.name = Some(StrBytes::from(TOPIC));
    let mut request = MetadataRequest::default();
    request.topics = Some(vec![names]);
    request.allow_auto_topic_creation = true;
    let _: MetadataResponse = Client::connect(&broker.address).unwrap().call(&request, 4, false).unwrap();
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
        broker.child.kill().unwrap();
        broker.child.wait().unwrap();
        let begun = Instant::now();
        broker = start(dir.path());
        println!("round {round}: recovered in {:?}", begun.elapsed());
        *address.lock().unwrap() = broker.address.clone();
    }
    std::thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::Relaxed);
    let acked: Vec<u64> = producers.into_iter().map(|p| p.join().unwrap()).collect();
    broker.child.kill().unwrap();
    broker.child.wait().unwrap();
    broker = start(dir.path());
    let mut client = Client::connect(&broker.address).unwrap();
    let mut next: HashMap<usize, u64> = HashMap::new();
    for partition in 0..PARTITIONS {
        let mut before = String::new();
        for (producer, number, from) in read_all(&mut client, partition) {
            let expected = next.entry(producer).or_default();
            assert_eq!(
                number, *expected,
                "producer {producer}: in order, without loss or duplicates; {from}; before it {before}"
            );
            *expected += 1;
            before = from;
        }
    }
    broker.child.kill().unwrap();
    broker.child.wait().unwrap();
    for (producer, acked) in acked.iter().enumerate() {
        let stored = next.get(&producer).copied().unwrap_or(0);
        println!("producer {producer}: {acked} acked, {stored} stored");
        assert!(stored >= *acked, "producer {producer}: {acked} records were acked, {stored} are there");
        assert!(*acked > 0, "producer {producer} got something through");
    }
}

/// Bytes nobody should send: each connection is answered or closed, and the broker serves on within its memory.
#[test]
fn hostile_bytes_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = start(dir.path());
    let mut frames: Vec<Vec<u8>> = vec![
        vec![0x7f, 0xff, 0xff, 0xff],
        vec![0xff, 0xff, 0xff, 0xff],
        vec![0, 0, 0, 0],
        vec![0, 0, 0, 4, 0, 0, 0, 0],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    for api in 0..95i16 {
        for version in [0i16, 4, 12, 99] {
            // A header, then array counts of 2^31 - 1 as far as the frame goes.
            let mut body = Vec::new();
            body.extend(api.to_be_bytes());
            body.extend(version.to_be_bytes());
            body.extend([0, 0, 0, 7, 0, 1, b'x', 0]);
            body.extend([0x7f, 0xff, 0xff, 0xff].repeat(12));
            let mut frame = (body.len() as u32).to_be_bytes().to_vec();
            frame.extend(body);
            frames.push(frame);
        }
    }
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..200 {
        let mut junk = Vec::new();
        for _ in 0..64 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            junk.extend(seed.to_le_bytes());
        }
        frames.push(junk);
    }
    // A thousand frames that claim 90 MiB and stop after a few bytes, held open all the while.
    let held: Vec<TcpStream> = (0..1000)
        .map(|_| {
            let mut stream = TcpStream::connect(&broker.address).unwrap();
            stream.write_all(&[0x05, 0xa0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1]).unwrap();
            stream
        })
        .collect();
    for frame in &frames {
        let mut stream = TcpStream::connect(&broker.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        // The broker may have closed already; that is an answer.
        let _ = stream.write_all(frame);
        let _ = stream.read(&mut [0; 64]);
    }
    assert!(broker.child.try_wait().unwrap().is_none(), "the broker is alive");
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.child.id())).unwrap();
    let resident_kb: u64 = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    assert!(resident_kb < 256 << 10, "{resident_kb} KiB resident although nothing was received");
    let mut client = Client::connect(&broker.address).unwrap();
    producer_id(&mut client).expect("good requests are answered as before");
    drop(held);
    broker.child.kill().unwrap();
    broker.child.wait().unwrap();
}
