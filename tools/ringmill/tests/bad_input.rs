//! Bytes that cost more than they look like, at a real broker: slow in number, packed small, said of themselves by members
//! of groups, and anything at all on the admin port. Each is answered or closed, memory stays within bounds, and nobody else
//! waits.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{
    ANYBODY, Broker, Client, MESSAGE_TOO_LARGE, NONE, PATIENCE, REQUEST_TIMED_OUT, batch, connections_max,
};
use kafka_wire::join_group_request::JoinGroupRequestProtocol;
use kafka_wire::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_wire::{
    JoinGroupRequest, JoinGroupResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest,
    MetadataResponse,
};
use kafka_wire_core::{Bytes, StrBytes};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Nobody who behaves waits longer than this for anything, whatever the others do.
const NEVER_LONGER: Duration = Duration::from_secs(2);

/// One round of what a careful client does: small and large batches in, the newest one out.
#[track_caller]
fn round(client: &mut Client, topic: &str, large: &[u8]) {
    for records in [&batch(ANYBODY, &["small"]), large] {
        let begun = Instant::now();
        assert_eq!(client.produce(topic, 0, records).unwrap(), NONE);
        assert!(begun.elapsed() < NEVER_LONGER, "{} bytes took {:?}", records.len(), begun.elapsed());
    }
    let begun = Instant::now();
    let got = client.fetch(topic, 0, 0, 1 << 20).unwrap();
    assert_eq!(got.error_code, NONE);
    assert!(begun.elapsed() < NEVER_LONGER, "a read took {:?}", begun.elapsed());
}

/// Thousands who claim a large request and send a byte of it a second, and some who send a small one that slowly. The
/// latter are answered, the former cost next to nothing, and their neighbour does not notice.
#[test]
fn a_byte_a_second_harms_nobody() {
    const SECONDS: usize = 26;
    let slow_count = connections_max().min(3000);
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), &["--memory", "64MiB"]);
    let mut client = broker.client();
    assert_eq!(client.create("beside", 1, &[]).unwrap(), NONE);
    let large = batch(ANYBODY, &[vec![b'l'; 900_000]]);
    round(&mut client, "beside", &large);

    // A frame of 50,000 bytes, or of nearly all that a core can hold; Produce 7 as it begins.
    let claims = [50_000u32, 12 << 20].map(|length| {
        [&length.to_be_bytes()[..], &[0, 0, 0, 7, 0, 0, 0, 1, 0, 1, b'x', 0xff, 0xff], &[0; 32]].concat()
    });
    // ApiVersions 0, whole: it takes as many seconds as it has bytes.
    let honest = [&16u32.to_be_bytes()[..], &[0, 18, 0, 0, 0, 0, 0, 9, 0, 6], b"slowly"].concat();
    let mut slow: Vec<(TcpStream, &[u8])> = (0..slow_count)
        .map(|n| (TcpStream::connect(&broker.address).unwrap(), claims[n % 2].as_slice()))
        .collect();
    slow.extend((0..50).map(|_| (TcpStream::connect(&broker.address).unwrap(), honest.as_slice())));
    // The length at once, so that the claim stands from the start.
    slow.iter_mut().for_each(|(stream, bytes)| stream.write_all(&bytes[..4]).unwrap());

    let begun = Instant::now();
    for second in 0..SECONDS {
        for (stream, bytes) in &mut slow {
            if let Some(byte) = bytes.get(4 + second) {
                stream.write_all(&[*byte]).unwrap();
            }
        }
        while begun.elapsed() < Duration::from_secs(second as u64 + 1) {
            round(&mut client, "beside", &large);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let resident_kib = broker.resident_kib();
    assert!(resident_kib < 160 << 10, "{resident_kib} KiB resident with --memory 64MiB");
    for (stream, _) in slow.iter_mut().skip(slow_count) {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 10];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[4..], [0, 0, 0, 9, 0, 0], "correlation id and error");
    }
    broker.assert_alive();
}

/// As large as batches may be in as little memory as there may be: what cannot work is refused in a sentence, the rest
/// works, for all who try at once.
#[test]
fn large_messages_in_the_smallest_memory() {
    const BATCH_BYTES: usize = 8 << 20;
    const PRODUCERS: usize = 16;
    const ROUNDS: usize = 3;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let refusal = Broker::try_start(&data, &["--memory", "64MiB", "--set", "message.max.bytes=9MiB"])
        .err()
        .expect("two cores cannot hold such batches");
    assert!(refusal.said.contains("message.max.bytes = 9MiB; give 72MiB or more"), "{}", refusal.said);
    assert!(!data.exists(), "refused before anything was touched");
    let refusal = Broker::try_start(&data, &["--memory", "63MiB"]).err().expect("below the least");
    assert!(refusal.said.contains("memory"), "{}", refusal.said);

    let mut broker = Broker::start(&data, &["--memory", "64MiB", "--set", "message.max.bytes=8MiB"]);
    let mut client = broker.client();
    assert_eq!(client.create("large", 4, &[]).unwrap(), NONE);
    let over = batch(ANYBODY, &[vec![b'o'; BATCH_BYTES]]);
    assert_eq!(client.produce("large", 0, &over).unwrap(), MESSAGE_TOO_LARGE);
    // A request that no core could ever hold is not waited for.
    let mut stranger = TcpStream::connect(&broker.address).unwrap();
    stranger.write_all(&(40u32 << 20).to_be_bytes()).unwrap();
    stranger.write_all(&[0; 32]).unwrap();
    broker.wait_until_said("a frame of 41943040 bytes, and no memory", NEVER_LONGER);
    let value = vec![b'v'; BATCH_BYTES - 100];
    let whole = batch(ANYBODY, &[&value]);
    assert!(whole.len() <= BATCH_BYTES);

    let begun = Instant::now();
    std::thread::scope(|scope| {
        for n in 0..PRODUCERS {
            let (whole, address) = (&whole, &broker.address);
            scope.spawn(move || {
                let mut client = Client::connect(address).unwrap();
                for _ in 0..ROUNDS {
                    // As a producer does: what was not taken for want of room, or cut off, is sent again.
                    loop {
                        match client.produce("large", n as i32 % 4, whole) {
                            Ok(NONE) => break,
                            Ok(REQUEST_TIMED_OUT) => {}
                            Ok(code) => panic!("error {code}"),
                            Err(_) => client = Client::connect(address).unwrap(),
                        }
                        assert!(begun.elapsed() < Duration::from_secs(90), "producer {n} gets nowhere");
                    }
                }
            });
        }
    });
    let resident_kib = broker.resident_kib();
    assert!(resident_kib < 160 << 10, "{resident_kib} KiB resident with --memory 64MiB");
    let mut stored = 0;
    for partition in 0..4 {
        stored += client.read_from("large", partition, 0).len();
    }
    // One that was cut off may have been stored all the same.
    assert!(stored >= PRODUCERS * ROUNDS, "{stored}");
    assert_eq!(broker.stop().code(), Some(0), "{}", broker.said());
}

/// A batch with one record that says it is compressed, and this body.
fn packed(code: u8, body: &[u8]) -> Vec<u8> {
    let mut out = batch(ANYBODY, &["x"])[..61].to_vec();
    out.extend(body);
    let length = out.len() as i32 - 12;
    out[8..12].copy_from_slice(&length.to_be_bytes());
    out[22] = code;
    let crc = crc32c::crc32c(&out[21..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out
}

/// A zstd frame of 32 GiB in a megabyte: a window of 128 MiB, and blocks that are one byte, 128 Ki times.
fn zstd_bomb() -> Vec<u8> {
    const RUN: u32 = 1 << 1 | (128 << 10) << 3;
    let run = [&RUN.to_le_bytes()[..3], &[0]].concat();
    [&[0x28, 0xb5, 0x2f, 0xfd, 0, (27 - 10) << 3][..], &run.repeat(250_000)].concat()
}

fn offset_at(client: &mut Client, topic: &str, timestamp: i64) -> ListOffsetsResponse {
    let mut part = ListOffsetsPartition::default();
    part.timestamp = timestamp;
    let mut of = ListOffsetsTopic::default();
    of.name = StrBytes::from(topic);
    of.partitions = vec![part];
    let mut request = ListOffsetsRequest::default();
    request.replica_id = -1;
    request.topics = vec![of];
    client.call(&request, 1).unwrap()
}

/// Wherever the broker or a tool opens a batch: for a compacted topic, for a lookup by time, to dump and to consume.
#[test]
fn a_bomb_in_a_batch_is_refused_or_costs_little() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), &[]);
    let mut client = broker.client();
    assert_eq!(client.create("compacted", 1, &[("cleanup.policy", "compact")]).unwrap(), NONE);
    assert_eq!(client.create("plain", 1, &[]).unwrap(), NONE);
    let bomb = packed(4, &zstd_bomb());
    for _ in 0..3 {
        assert_eq!(client.produce("compacted", 0, &bomb).unwrap(), MESSAGE_TOO_LARGE);
    }
    // Elsewhere it passes through as it came, as in Kafka; whoever reads it has to open it.
    assert_eq!(client.produce("plain", 0, &bomb).unwrap(), NONE);
    assert_eq!(client.produce("plain", 0, &batch(ANYBODY, &["after"])).unwrap(), NONE);
    for timestamp in [0, 1_000] {
        let answer = offset_at(&mut client, "plain", timestamp);
        let part = &answer.topics[0].partitions[0];
        assert!(part.error_code != NONE || part.offset <= 0, "{part:?}");
    }
    let resident_kib = broker.resident_kib();
    assert!(resident_kib < 900 << 10, "{resident_kib} KiB resident after bombs of 32 GiB");
    round(&mut client, "plain", &batch(ANYBODY, &["as before"]));

    let consume =
        ["consume", "plain", "--from", "beginning", "--count", "1", "--bootstrap-server", &broker.address];
    let (code, said) = limited(&consume);
    assert_ne!(code, 0, "{said}");
    assert!(said.contains("decompress"), "{said}");
    assert_eq!(broker.stop().code(), Some(0), "{}", broker.said());
    let folder = dir.path().join("topics/plain-0");
    for command in ["verify", "dump"] {
        let (code, said) = limited(&["log", command, folder.to_str().unwrap()]);
        assert_eq!(code, 0, "{command}: {said}");
    }
}

/// Runs a command that may use 3 GiB of address space and no more.
#[track_caller]
fn limited(args: &[&str]) -> (i32, String) {
    let line = format!("ulimit -v {}; exec \"$@\"", 3 << 20);
    let output = std::process::Command::new("sh")
        .args(["-c", &line, "sh", env!("CARGO_BIN_EXE_ringmill")])
        .args(args)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

/// What no scraper sends.
fn hostile_requests() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "GET / HTTP/1.1\r\n",
        "GET  /metrics  HTTP/1.1\r\n\r\n",
        "GET /metrics HTTP/9.9\r\nHost: x\r\n\r\n",
        "GET /../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET //metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v1/topics/%2e%2e%2f%2e%2e%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://elsewhere/metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\nx",
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        "DELETE /v1/topics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\r\n\r\n\r\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    all.push(vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]);
    all.push([b"GET /", "x".repeat(1 << 20).as_bytes(), b" HTTP/1.1\r\n\r\n"].concat());
    all.push([b"GET / HTTP/1.1\r\n", "a: b\r\n".repeat(100_000).as_bytes(), b"\r\n"].concat());
    all.push([b"GET / HTTP/1.1\r\nHost: ", "h".repeat(1 << 20).as_bytes(), b"\r\n\r\n"].concat());
    all.push(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200));
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for n in 0..300 {
        let noise: Vec<u8> = (0..64).flat_map(|_| next().to_le_bytes()).collect();
        // Noise alone, and noise where a path, a header or a body is looked for.
        let lead =
            [&b""[..], b"GET /", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nContent-Length: 9\r\n\r\n"];
        all.push([lead[n % lead.len()], &noise].concat());
    }
    all
}

fn live(broker: &Broker) -> bool {
    let Ok(mut stream) = TcpStream::connect(&broker.admin) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let asked = stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut text = String::new();
    asked.is_ok() && stream.read_to_string(&mut text).is_ok() && text.starts_with("HTTP/1.1 200")
}

#[test]
fn the_admin_port_takes_anything() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), &["--memory", "64MiB"]);
    let mut client = broker.client();
    assert_eq!(client.create("beside", 1, &[]).unwrap(), NONE);
    let large = batch(ANYBODY, &[vec![b'l'; 300_000]]);
    for request in hostile_requests() {
        let mut stream = TcpStream::connect(&broker.admin).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        // The broker may have closed already, or answered before it read all: both are answers.
        let _ = stream.write_all(&request);
        let mut answer = [0; 12];
        match stream.read_exact(&mut answer) {
            Ok(()) => assert_eq!(&answer[..9], b"HTTP/1.1 ", "{:?}", String::from_utf8_lossy(&request)),
            Err(error) => assert_ne!(error.kind(), ErrorKind::OutOfMemory),
        }
    }
    round(&mut client, "beside", &large);
    assert!(live(&broker), "good requests are answered as before");

    // More who say nothing than it holds: they are let go, and meanwhile the other port does not notice.
    let silent: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(&broker.admin).unwrap()).collect();
    let begun = Instant::now();
    while !live(&broker) {
        round(&mut client, "beside", &large);
        assert!(begun.elapsed() < Duration::from_secs(60), "the admin port answers nobody any more");
    }
    drop(silent);
    let resident_kib = broker.resident_kib();
    assert!(resident_kib < 160 << 10, "{resident_kib} KiB resident with --memory 64MiB");
    broker.assert_alive();
}

fn join_request(group: &str, metadata: &[u8]) -> JoinGroupRequest {
    let mut protocol = JoinGroupRequestProtocol::default();
    protocol.name = StrBytes::from("range");
    protocol.metadata = Bytes::copy_from_slice(metadata);
    let mut request = JoinGroupRequest::default();
    request.group_id = StrBytes::from(group);
    request.session_timeout_ms = 60_000;
    request.rebalance_timeout_ms = 60_000;
    request.protocol_type = StrBytes::from("consumer");
    request.protocols = vec![protocol];
    request
}

/// A thousand members that say a megabyte each of themselves, in one group and in many. Those that there is no memory for
/// are refused with an error of Kafka's, and whoever asks control for something else is answered meanwhile.
#[test]
fn members_with_much_to_say_are_bounded() {
    const MEMBERS: usize = 1000;
    let dir = tempfile::tempdir().unwrap();
    ringmill_broker::host::raise_limits();
    let mut broker = Broker::start(dir.path(), &["--set", "group.initial.rebalance.delay.ms=3000"]);
    let mut beside = broker.client();
    assert_eq!(beside.create("beside", 1, &[]).unwrap(), NONE);
    let metadata = vec![b'm'; 1 << 20];
    let mut members = Vec::new();
    let mut slowest = Duration::ZERO;
    for n in 0..MEMBERS {
        // The first half in one group, the other half each in its own.
        let group = if n < MEMBERS / 2 { "crowd".to_string() } else { format!("alone-{n}") };
        let mut member = broker.client();
        member.send(&join_request(&group, &metadata), 3).unwrap();
        members.push(member);
        let begun = Instant::now();
        let _: MetadataResponse = beside.call(&MetadataRequest::default(), 4).unwrap();
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < NEVER_LONGER, "control was busy for {slowest:?}");
    let mut codes = std::collections::BTreeMap::new();
    for member in &mut members {
        let answer: JoinGroupResponse = member.receive(3).unwrap();
        *codes.entry(answer.error_code).or_insert(0) += 1;
    }
    let resident_kib = broker.resident_kib();
    assert!(resident_kib < 768 << 10, "{resident_kib} KiB resident with --memory 256MiB; answers {codes:?}");
    assert!(codes.keys().all(|code| [NONE, 15, 81].contains(code)), "{codes:?}");
    broker.assert_alive();
    // And a group as groups are is not in their way.
    drop(members);
    let mut usual = broker.client();
    usual.send(&join_request("usual", b"a topic or two"), 3).unwrap();
    let answer: JoinGroupResponse = usual.receive(3).unwrap();
    assert_eq!(answer.error_code, NONE);
}

/// Strings of more than 32,767 bytes are none in Kafka, however their length is written; records have no room for them.
#[test]
fn names_that_no_record_can_hold_end_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    for (length, is_answered) in [(32_767, true), (32_768, false), (1_000_000, false)] {
        let mut client = broker.client();
        // Flexible: lengths have as many bytes as they need.
        client.send(&join_request(&"g".repeat(length), b"said"), 6).unwrap();
        let got = client.stream.read(&mut [0; 4]);
        assert_eq!(got.is_ok_and(|got| got > 0), is_answered, "a group name of {length} bytes");
    }
    broker.wait_until_said("that cannot be read", PATIENCE);
}
