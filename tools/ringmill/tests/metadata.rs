//! Metadata: every core answers it from its image, right after what it says was decided, and control hears only of topics that are
//! to be made.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{ANYBODY, Broker, Client, NONE, PATIENCE, batch, creatable};
use kafka_wire::create_partitions_request::CreatePartitionsTopic;
use kafka_wire::metadata_request::MetadataRequestTopic;
use kafka_wire::{
    CreatePartitionsRequest, CreatePartitionsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    MetadataRequest, MetadataResponse,
};
use kafka_wire_core::{StrBytes, Uuid};
use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

const UNKNOWN_TOPIC: i16 = 3;
const INVALID_TOPIC: i16 = 17;
const UNKNOWN_TOPIC_ID: i16 = 100;
const STEPS: &str = "ringmill_control_step_seconds_count";
/// Enough for the kernel to spread them over two cores.
const CONNECTIONS: usize = 16;

fn by_name(name: &str) -> MetadataRequestTopic {
    let mut topic = MetadataRequestTopic::default();
    topic.name = Some(StrBytes::from(name));
    topic
}

fn by_id(id: Uuid) -> MetadataRequestTopic {
    let mut topic = MetadataRequestTopic::default();
    (topic.name, topic.topic_id) = (None, id);
    topic
}

/// Of these topics, none of which is to be made.
fn about(topics: Vec<MetadataRequestTopic>) -> MetadataRequest {
    let mut request = MetadataRequest::default();
    (request.topics, request.allow_auto_topic_creation) = (Some(topics), false);
    request
}

fn ask(client: &mut Client, request: &MetadataRequest, version: i16) -> MetadataResponse {
    let flexible = version >= 9;
    let answer =
        if flexible { client.call_flexible(request, version) } else { client.call(request, version) };
    answer.unwrap()
}

/// Error, name and number of partitions of each topic.
fn told(answer: &MetadataResponse) -> Vec<(i16, String, usize)> {
    let of = |name: &Option<StrBytes>| name.as_ref().map_or("-".to_string(), |name| name.to_string());
    answer.topics.iter().map(|t| (t.error_code, of(&t.name), t.partitions.len())).collect()
}

fn names_of_all(client: &mut Client) -> Vec<String> {
    let mut all = MetadataRequest::default();
    all.topics = None;
    let answer = ask(client, &all, 8);
    answer.topics.iter().map(|topic| topic.name.as_ref().unwrap().to_string()).collect()
}

/// Counted by whoever handles messages of cores. A scrape costs one of each core.
fn steps(broker: &Broker) -> f64 {
    broker.metric(STEPS)
}

#[test]
fn every_version_says_the_same_and_each_topic_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &["--cores", "2"]);
    let mut client = broker.client();
    let topics = [("many", 7), ("a.b", 1), ("one", 1)];
    let made = topics.map(|(name, partitions)| creatable(name, partitions, &[]));
    assert_eq!(client.create_together(made.to_vec()).unwrap(), [NONE; 3]);
    let mut all = MetadataRequest::default();
    all.topics = None;
    let ids: Vec<Uuid> = ask(&mut client, &all, 12).topics.iter().map(|topic| topic.topic_id).collect();
    let nobodys = Uuid::from_bytes([7; 16]);

    for version in 0..=13 {
        let mut all = all.clone();
        if version == 0 {
            all.topics = Some(Vec::new());
        }
        all.include_topic_authorized_operations = version >= 8;
        all.include_cluster_authorized_operations = (8..=10).contains(&version);
        let answer = ask(&mut client, &all, version);
        let every = [(NONE, "a.b".into(), 1), (NONE, "many".into(), 7), (NONE, "one".into(), 1)];
        assert_eq!(told(&answer), every, "version {version}");
        let operations = (
            if version >= 8 { 3576 } else { i32::MIN },
            if (8..=10).contains(&version) { 8096 } else { i32::MIN },
        );
        let shown = (answer.topics[0].topic_authorized_operations, answer.cluster_authorized_operations);
        assert_eq!(shown, operations, "version {version}");
        assert_eq!((answer.brokers.len(), answer.brokers[0].node_id), (1, 1));
        assert_eq!(format!("{}:{}", answer.brokers[0].host, answer.brokers[0].port), broker.address);
        assert_eq!(answer.cluster_id.is_some(), version >= 2);
        for (index, partition) in answer.topics[1].partitions.iter().enumerate() {
            assert_eq!((partition.error_code, partition.partition_index), (NONE, index as i32));
            assert_eq!((partition.leader_id, partition.leader_epoch), (1, if version >= 7 { 0 } else { -1 }));
            assert_eq!((&partition.replica_nodes[..], &partition.isr_nodes[..]), (&[1][..], &[1][..]));
        }

        // In the order of the request, each once. Before version 4 asking would make the missing ones that can be made.
        let mut names = vec!["one", "a_b", "no such name", "many", "one", "no such name", "a.b"];
        let mut expected = vec![
            (NONE, "one".to_string(), 1),
            (INVALID_TOPIC, "a_b".into(), 0),
            (INVALID_TOPIC, "no such name".into(), 0),
            (NONE, "many".into(), 7),
            (NONE, "a.b".into(), 1),
        ];
        if version >= 4 {
            names.push("none");
            expected.push((UNKNOWN_TOPIC, "none".into(), 0));
        }
        let mut request = about(names.into_iter().map(by_name).collect());
        request.allow_auto_topic_creation = version < 4;
        if version >= 10 {
            let wanted = request.topics.as_mut().unwrap();
            wanted.extend([by_id(ids[0]), by_id(nobodys), by_id(nobodys)]);
            // Before version 12 there is no null for the name of nothing.
            let nothing = if version >= 12 { "-" } else { "" };
            expected.push((UNKNOWN_TOPIC_ID, nothing.into(), 0));
        }
        let answer = ask(&mut client, &request, version);
        assert_eq!(told(&answer), expected, "version {version}");
        if version >= 10 {
            assert_eq!(answer.topics.last().unwrap().topic_id, nobodys);
            let answer = ask(&mut client, &about(vec![by_id(ids[1])]), version);
            assert_eq!(told(&answer), [(NONE, "many".into(), 7)]);
        }
        if version >= 1 {
            request.topics = Some(Vec::new());
            assert_eq!(told(&ask(&mut client, &request, version)), []);
        }
    }
}

#[test]
fn what_was_decided_shows_on_every_connection_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &["--cores", "2"]);
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| broker.client()).collect();
    for round in 0..5 {
        let name = format!("t-{round}");
        let mut shows = |expected: Option<usize>| {
            for client in &mut clients {
                let error = if expected.is_some() { NONE } else { UNKNOWN_TOPIC };
                let named = ask(client, &about(vec![by_name(&name)]), 8);
                assert_eq!(told(&named), [(error, name.clone(), expected.unwrap_or(0))]);
                assert_eq!(names_of_all(client).contains(&name), expected.is_some(), "{name}");
            }
        };
        let mut admin = broker.client();
        shows(None);
        assert_eq!(admin.create(&name, 3, &[]).unwrap(), NONE);
        shows(Some(3));

        let mut topic = CreatePartitionsTopic::default();
        (topic.name, topic.count, topic.assignments) = (StrBytes::from(name.clone()), 8, None);
        let mut more = CreatePartitionsRequest::default();
        (more.topics, more.timeout_ms) = (vec![topic], 10_000);
        let answer: CreatePartitionsResponse = admin.call(&more, 1).unwrap();
        assert_eq!(answer.results[0].error_code, NONE);
        shows(Some(8));

        let mut gone = DeleteTopicsRequest::default();
        (gone.topic_names, gone.timeout_ms) = (vec![StrBytes::from(name.clone())], 10_000);
        let answer: DeleteTopicsResponse = admin.call(&gone, 1).unwrap();
        assert_eq!(answer.responses[0].error_code, NONE);
        shows(None);
    }
}

#[test]
fn control_hears_of_topics_that_are_to_be_made_and_of_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &["--cores", "2"]);
    let mut client = broker.client();
    for topic in 0..20 {
        assert_eq!(client.create(&format!("t.{topic}"), 10, &[]).unwrap(), NONE);
    }
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| broker.client()).collect();
    let mut all = MetadataRequest::default();
    all.topics = None;
    let mut may_create = about(vec![by_name("t.1"), by_name("not a name"), by_name("t_1")]);
    may_create.allow_auto_topic_creation = true;
    let storm = [all, about(vec![by_name("t.1"), by_name("missing")]), may_create];
    let (before, requests) = (steps(&broker), broker.metric("ringmill_requests_total"));
    let rounds = 20;
    for _ in 0..rounds {
        for client in &mut clients {
            for request in &storm {
                ask(client, request, 8);
            }
        }
    }
    let heard = steps(&broker) - before;
    let asked = (rounds * CONNECTIONS * storm.len()) as f64;
    assert_eq!(broker.metric("ringmill_requests_total") - requests, asked);
    assert!(heard < 20.0, "control handled {heard} messages while {asked} requests were answered");

    let mut made = about(vec![by_name("t.1"), by_name("new"), by_name("new"), by_name("t_1")]);
    made.allow_auto_topic_creation = true;
    let first =
        [(NONE, "t.1".to_string(), 10), (UNKNOWN_TOPIC, "new".into(), 0), (INVALID_TOPIC, "t_1".into(), 0)];
    assert_eq!(told(&ask(&mut client, &made, 8)), first, "as from Kafka, the answer is of before");
    for client in &mut clients {
        assert_eq!(told(&ask(client, &made, 8))[1], (NONE, "new".into(), 1));
    }
    let offsets = "__consumer_offsets";
    let mut internal = about(vec![by_name(offsets)]);
    internal.allow_auto_topic_creation = true;
    assert_eq!(told(&ask(&mut client, &internal, 8)), [(UNKNOWN_TOPIC, offsets.into(), 0)]);
    let answer = ask(&mut client, &internal, 8);
    assert_eq!(told(&answer), [(NONE, offsets.into(), 50)]);
    assert!(answer.topics[0].is_internal);
}

/// Only one of those who name a new topic at one time makes it; all of them find it when they ask again.
#[test]
fn who_asks_again_finds_the_topic_that_another_made() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &["--cores", "4"]);
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| broker.client()).collect();
    for number in 0..30 {
        let name = format!("new-{number}");
        let asked = about(vec![by_name(&name)]);
        let mut made = asked.clone();
        made.allow_auto_topic_creation = true;
        for client in &mut clients {
            client.send(&made, 8).unwrap();
            client.send(&asked, 8).unwrap();
        }
        for client in &mut clients {
            let first: MetadataResponse = client.receive(8).unwrap();
            assert!([NONE, UNKNOWN_TOPIC].contains(&told(&first)[0].0), "{first:?}");
            let second: MetadataResponse = client.receive(8).unwrap();
            assert_eq!(told(&second), [(NONE, name.clone(), 1)]);
        }
    }
}

#[test]
fn nothing_is_made_where_the_broker_does_not_make_topics() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &["--set", "auto.create.topics.enable=false"]);
    let mut client = broker.client();
    let before = steps(&broker);
    for version in [1, 3, 4, 8] {
        let mut request = about(vec![by_name("new")]);
        request.allow_auto_topic_creation = true;
        for _ in 0..10 {
            assert_eq!(told(&ask(&mut client, &request, version)), [(UNKNOWN_TOPIC, "new".into(), 0)]);
        }
    }
    let heard = steps(&broker) - before;
    assert!(heard < 20.0, "control handled {heard} messages");
    assert_eq!(names_of_all(&mut client), [""; 0]);
}

/// Answers are larger than what asks for them by far: whoever does not take them is not read further.
#[test]
fn who_does_not_take_answers_is_not_read_further() {
    const WRITTEN_BYTES_MAX: usize = 64 << 20;
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), &["--cores", "1"]);
    assert_eq!(broker.client().create("t", 2_000, &[]).unwrap(), NONE);
    let mut greedy = broker.client();
    // Metadata 1 of one topic, again and again: 60 KiB for 24 bytes.
    let one: Vec<u8> =
        [&[0, 0, 0, 17, 0, 3, 0, 1, 0, 0, 0, 7, 255, 255, 0, 0, 0, 1][..], b"\0\x01t"].concat();
    let many = one.repeat(4096);
    greedy.stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let begun = Instant::now();
    let (mut written, resident_kib) = (0, broker.resident_kib());
    let refused = loop {
        assert!(written < WRITTEN_BYTES_MAX && begun.elapsed() < PATIENCE, "read on, after {written} bytes");
        match greedy.stream.write(&many[written % one.len()..]) {
            Ok(bytes) => written += bytes,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{refused}");
    let more_kib = broker.resident_kib().saturating_sub(resident_kib);
    assert!(more_kib < 64 << 10, "{more_kib} KiB for answers that nobody takes");

    // Nobody else notices, and it goes on when somebody takes them: more than waited there.
    assert_eq!(names_of_all(&mut broker.client()), ["t"]);
    for _ in 0..500 {
        let answer: MetadataResponse = greedy.receive(1).unwrap();
        assert_eq!(answer.topics[0].partitions.len(), 2_000);
    }
    broker.assert_alive();
}

/// As many as there are together hold little, a core does not encode all of it in one turn, and who asked gets it all.
#[test]
fn many_who_do_not_take_answers_hold_little() {
    const READERS: usize = 40;
    const REQUESTS: usize = 300;
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), &["--cores", "1", "--memory", "256MiB"]);
    let mut other = broker.client();
    assert_eq!(other.create("t", 2_000, &[]).unwrap(), NONE);
    assert_eq!(other.create("u", 1, &[]).unwrap(), NONE);
    let resident_kib = broker.resident_kib();
    let mut readers: Vec<Client> = (0..READERS).map(|_| broker.client()).collect();
    let asked = about(vec![by_name("t")]);
    for reader in &mut readers {
        for _ in 0..REQUESTS {
            reader.send(&asked, 8).unwrap();
        }
    }
    for _ in 0..20 {
        assert_eq!(other.produce("u", 0, &batch(ANYBODY, &["x"])).unwrap(), NONE);
    }
    for (at, reader) in readers.iter_mut().enumerate() {
        for _ in 0..if at == 0 { REQUESTS } else { 3 } {
            let answer: MetadataResponse = reader.receive(8).unwrap();
            assert_eq!(answer.topics[0].partitions.len(), 2_000);
        }
        // The first has got all of its own: the core has taken as many requests of each of the others, or holds them back.
        let more_kib = broker.resident_kib().saturating_sub(resident_kib);
        assert!(more_kib < (READERS as u64) * 4_096, "{more_kib} KiB for answers that nobody takes");
    }
    broker.assert_alive();
}
