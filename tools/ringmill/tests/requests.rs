//! Where the time of requests went, as `/metrics` and the log tell it: of every request, by API, whatever became of it, and of each
//! slow one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{ANYBODY, Broker, Client, NONE, PATIENCE, batch, fetch_request, produce_request, samples};
use kafka_wire::{
    ApiVersionsRequest, ApiVersionsResponse, FetchResponse, MetadataRequest, MetadataResponse,
    ProduceResponse,
};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const APIS: [&str; 3] = ["Produce", "Fetch", "Other"];

/// A metric of requests of one API, of all cores together.
fn of(text: &str, metric: &str, api: &str) -> f64 {
    let (name, label) = (format!("ringmill_request{metric}"), format!("api=\"{api}\""));
    let all = samples(text, &name).filter(|(labels, _)| labels.contains(&label));
    all.map(|(_, value)| value).sum()
}

/// The first scrape in which as many requests as were taken of each API have a receive time, a wait, and a send time but for
/// so many: the kernel may tell of a send after the client has the answer.
#[track_caller]
fn quiet(broker: &Broker, unanswered: [f64; 3]) -> String {
    let begun = Instant::now();
    loop {
        let text = broker.scrape();
        let counts = |api: &str| {
            let count = |time: &str| of(&text, &format!("_{time}_seconds_count"), api);
            [of(&text, "s_total", api), count("receive"), count("wait"), count("send")]
        };
        let counted = APIS.map(counts);
        let expected = std::array::from_fn(|at| {
            let taken = counted[at][0];
            [taken, taken, taken, taken - unanswered[at]]
        });
        if counted == expected {
            return text;
        }
        assert!(begun.elapsed() < PATIENCE, "requests, receives, waits, sends: {counted:?} of {APIS:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A request that is closed on instead of answered: its header is sound and its body is not.
fn refused(broker: &Broker, api: i16, version: i16) {
    let mut stream = Client::connect(&broker.address).unwrap().stream;
    let mut frame = vec![0, 0, 0, 30];
    frame.extend(api.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0]);
    frame.push(0);
    frame.extend([0x7f; 19]);
    stream.write_all(&frame).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "no answer to api {api}");
}

#[test]
fn every_request_is_timed_in_all_its_parts_and_counted_where_it_fails() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &["--cores", "1"]);
    let mut client = broker.client();
    assert_eq!(client.create("t", 1, &[]).unwrap(), NONE);
    for value_bytes in [10, 10, 100_000, 900_000] {
        assert_eq!(client.produce("t", 0, &batch(ANYBODY, &[vec![b'x'; value_bytes]])).unwrap(), NONE);
    }
    for _ in 0..5 {
        client.fetch("t", 0, 0, 1 << 20).unwrap();
    }
    let versions: ApiVersionsResponse = client.call(&ApiVersionsRequest::default(), 0).unwrap();
    assert_eq!(versions.error_code, NONE);
    // One that takes its time to come.
    let begun = Instant::now();
    client.stream.write_all(&[0, 0, 0, 14, 0, 3, 0]).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    client.stream.write_all(&[1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0]).unwrap();
    client.receive::<MetadataResponse>(1).unwrap();
    let slow_receive = begun.elapsed();

    let text = quiet(&broker, [0.0; 3]);
    assert_eq!(APIS.map(|api| of(&text, "s_total", api)), [4.0, 5.0, 3.0]);
    assert_eq!(APIS.map(|api| of(&text, "_errors_total", api)), [0.0; 3]);
    let received = of(&text, "_receive_seconds_sum", "Other");
    assert!((0.25..=slow_receive.as_secs_f64()).contains(&received), "{received} s of {slow_receive:?}");
    assert!(of(&text, "_wait_seconds_sum", "Other") > 0.0, "creating a topic takes its time");

    // Refused in the answer: an unknown partition, an offset behind the end, a topic that is there, one that is not.
    assert_ne!(client.produce("t", 7, &batch(ANYBODY, &["x"])).unwrap(), NONE);
    assert_ne!(client.fetch("t", 0, 1000, 1 << 20).unwrap().error_code, NONE);
    assert_ne!(client.create("t", 1, &[]).unwrap(), NONE);
    let mut unknown = MetadataRequest::default();
    let mut topic = kafka_wire::metadata_request::MetadataRequestTopic::default();
    topic.name = Some("nobody knows it".into());
    unknown.topics = Some(vec![topic]);
    let answer: MetadataResponse = client.call(&unknown, 1).unwrap();
    assert_ne!(answer.topics[0].error_code, NONE);
    let text = quiet(&broker, [0.0; 3]);
    assert_eq!(APIS.map(|api| of(&text, "_errors_total", api)), [1.0, 1.0, 2.0]);

    // Closed on instead of answered: by the core, and by control.
    for (api, version) in [(0, 3), (1, 4), (3, 1), (18, 3)] {
        refused(&broker, api, version);
    }
    let text = quiet(&broker, [1.0, 1.0, 2.0]);
    assert_eq!(APIS.map(|api| of(&text, "s_total", api)), [6.0, 7.0, 7.0]);
    assert_eq!(APIS.map(|api| of(&text, "_errors_total", api)), [2.0, 2.0, 4.0]);
}

/// The lines about slow requests of one API.
fn slow(broker: &Broker, api: &str) -> Vec<String> {
    let api = format!("api=\"{api}\"");
    let said = broker.said();
    said.lines()
        .filter(|line| line.contains("slow request") && line.contains(&api))
        .map(String::from)
        .collect()
}

/// The number behind `name=` in a line.
fn number(line: &str, name: &str) -> Option<u64> {
    let from = line.find(&format!(" {name}="))? + name.len() + 2;
    line[from..].split(' ').next()?.parse().ok()
}

/// Frames of a negative length until told to stop; each has its connection closed with a warning.
fn bad_peers(address: String, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let mut stream = Client::connect(&address).unwrap().stream;
            stream.write_all(&[0xff; 4]).unwrap();
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
        }
    })
}

#[test]
fn a_slow_request_is_logged_with_where_its_time_went_whatever_else_is_logged() {
    const SLOW_MS: u64 = 400;
    let dir = tempfile::tempdir().unwrap();
    let setting = format!("slow.request.ms={SLOW_MS}");
    let broker = Broker::start(dir.path(), &["--cores", "1", "--set", &setting]);
    let mut client = broker.client();
    assert_eq!(client.create("t", 1, &[]).unwrap(), NONE);
    let large = batch(ANYBODY, &[vec![b'x'; 1_000_000]]);
    for _ in 0..16 {
        assert_eq!(client.produce("t", 0, &large).unwrap(), NONE);
    }
    // A long poll is as long as it was asked to be.
    client.send(&fetch_request("t", 0, 16, 1 << 20, 4 * SLOW_MS as i32), 4).unwrap();
    client.receive::<FetchResponse>(4).unwrap();

    // Answers that leave late, as the client does not read, amid connections that are closed with a warning each.
    let stop = Arc::new(AtomicBool::new(false));
    let peers = bad_peers(broker.address.clone(), stop.clone());
    broker.wait_until_said("more warnings about connections", PATIENCE);
    client.send(&fetch_request("t", 0, 0, 16 << 20, 0), 4).unwrap();
    client.send(&MetadataRequest::default(), 1).unwrap();
    client.send(&produce_request("t", 0, &batch(ANYBODY, &["x"])), 7).unwrap();
    std::thread::sleep(Duration::from_millis(3 * SLOW_MS));
    client.receive::<FetchResponse>(4).unwrap();
    client.receive::<MetadataResponse>(1).unwrap();
    client.receive::<ProduceResponse>(7).unwrap();
    broker.wait_until_said("api=\"Produce\"", PATIENCE);
    stop.store(true, Ordering::Relaxed);
    peers.join().unwrap();

    for api in ["Fetch", "Metadata", "Produce"] {
        let lines = slow(&broker, api);
        let late = lines.iter().find(|line| number(line, "send_ms").is_some_and(|ms| ms > SLOW_MS));
        let line = late.unwrap_or_else(|| panic!("no line about {api}: {lines:?}"));
        assert!(line.contains("client_id=\"test\"") && line.contains("peer=127.0.0.1:"), "{line}");
        assert!(number(line, "receive_ms").is_some() && number(line, "wait_ms").is_some(), "{line}");
        if api != "Metadata" {
            assert!(line.contains("topic=\"t\"") && number(line, "partitions") == Some(1), "{line}");
        }
    }
    let polls: Vec<String> =
        slow(&broker, "Fetch").into_iter().filter(|line| line.contains("poll_ms=")).collect();
    assert_eq!(polls, [""; 0], "a long poll is not slow");
}
