//! Quotas that control keeps, on the real process: partitions created and deleted per second (KIP-599), connections per
//! second and address (KIP-612).

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{Broker, Client, NONE, PATIENCE};
use kafka_wire::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_wire::create_partitions_request::CreatePartitionsTopic;
use kafka_wire::create_topics_request::CreatableTopic;
use kafka_wire::delete_topics_request::DeleteTopicState;
use kafka_wire::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
};
use kafka_wire_core::StrBytes;
use std::io::Read;
use std::time::{Duration, Instant};

const THROTTLING_QUOTA_EXCEEDED: i16 = 89;

/// Sets a quota of the default user or of an address; `None` removes it.
fn set_quota(client: &mut Client, (kind, name): (&str, Option<&str>), key: &str, value: Option<f64>) {
    let mut entity = EntityData::default();
    entity.entity_type = StrBytes::from(kind);
    entity.entity_name = name.map(StrBytes::from);
    let mut op = OpData::default();
    op.key = StrBytes::from(key);
    op.value = value.unwrap_or_default();
    op.remove = value.is_none();
    let mut entry = EntryData::default();
    entry.entity = vec![entity];
    entry.ops = vec![op];
    let mut request = AlterClientQuotasRequest::default();
    request.entries = vec![entry];
    let answer: AlterClientQuotasResponse = client.call(&request, 0).unwrap();
    assert_eq!(answer.entries[0].error_code, NONE, "{:?}", answer.entries[0].error_message);
}

fn creation(names: &[&str], partitions: i32) -> CreateTopicsRequest {
    let topic = |name: &&str| {
        let mut topic = CreatableTopic::default();
        topic.name = StrBytes::from(*name);
        topic.num_partitions = partitions;
        topic.replication_factor = 1;
        topic
    };
    let mut request = CreateTopicsRequest::default();
    request.topics = names.iter().map(topic).collect();
    request.timeout_ms = 10_000;
    request
}

/// Error codes by topic, and the throttle time.
fn create(client: &mut Client, names: &[&str], partitions: i32) -> (Vec<i16>, i32) {
    let answer: CreateTopicsResponse = client.call_flexible(&creation(names, partitions), 7).unwrap();
    for topic in &answer.topics {
        assert_eq!(topic.error_message, None, "of a quota only the code");
    }
    (answer.topics.iter().map(|topic| topic.error_code).collect(), answer.throttle_time_ms)
}

fn delete(client: &mut Client, name: &str) -> (i16, i32) {
    let mut topic = DeleteTopicState::default();
    topic.name = Some(StrBytes::from(name));
    let mut request = DeleteTopicsRequest::default();
    request.topics = vec![topic];
    request.timeout_ms = 10_000;
    let answer: DeleteTopicsResponse = client.call_flexible(&request, 6).unwrap();
    (answer.responses[0].error_code, answer.throttle_time_ms)
}

fn add_partitions(client: &mut Client, name: &str, count: i32) -> (i16, i32) {
    let mut topic = CreatePartitionsTopic::default();
    topic.name = StrBytes::from(name);
    topic.count = count;
    topic.assignments = None;
    let mut request = CreatePartitionsRequest::default();
    request.topics = vec![topic];
    request.timeout_ms = 10_000;
    let answer: CreatePartitionsResponse = client.call_flexible(&request, 3).unwrap();
    (answer.results[0].error_code, answer.throttle_time_ms)
}

#[test]
fn partitions_cost_their_client_what_the_quota_says() {
    const KEY: &str = "controller_mutation_rate";
    const EVERYBODY: (&str, Option<&str>) = ("user", None);
    const REFUSED: i16 = THROTTLING_QUOTA_EXCEEDED;
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), &[]);
    let mut client = broker.client();
    assert_eq!(create(&mut client, &["before"], 50), (vec![NONE], 0));
    // Two a second; eleven seconds of that are there at once.
    set_quota(&mut client, EVERYBODY, KEY, Some(2.0));
    let (codes, throttle_ms) = create(&mut client, &["a", "b", "c"], 15);
    assert_eq!(codes, [NONE, NONE, REFUSED], "the second overdraws the account, the third finds it so");
    assert!((3_000..=4_000).contains(&throttle_ms), "{throttle_ms}: 8 are missing");
    // The connection is not read for so long, whatever it asks.
    let begun = Instant::now();
    let (code, throttle_ms) = delete(&mut client, "a");
    let waited_ms = begun.elapsed().as_millis() as i32;
    assert!(waited_ms >= 2_900, "{waited_ms}");
    assert_eq!((code, throttle_ms), (NONE, 0), "by then there is room");
    // Other connections of the client are told the same, each by itself.
    let told = [delete(&mut broker.client(), "b"), add_partitions(&mut broker.client(), "before", 51)];
    for (code, throttle_ms) in told {
        assert_eq!(code, REFUSED);
        assert!((5_000..=7_500).contains(&throttle_ms), "{throttle_ms}: 15 are missing");
    }
    // An old client cannot be told: it gets what it wants, and pauses for it.
    let mut old = broker.client();
    let answer: CreateTopicsResponse = old.call(&creation(&["old"], 2), 4).unwrap();
    assert_eq!(answer.topics[0].error_code, NONE);
    assert!((6_000..=8_500).contains(&answer.throttle_time_ms), "{}", answer.throttle_time_ms);
    assert!(broker.metric("ringmill_throttled_requests_total") >= 4.0);
    // The account is the quota's: one restart later it is full again, as in Kafka, and the quota is still there.
    broker.kill();
    broker = Broker::start(dir.path(), &[]);
    let mut client = broker.client();
    assert_eq!(create(&mut client, &["d"], 30), (vec![NONE], 0));
    let (code, _) = delete(&mut broker.client(), "d");
    assert_eq!(code, REFUSED);
    set_quota(&mut client, EVERYBODY, KEY, None);
    assert_eq!(delete(&mut client, "d"), (NONE, 0));
    assert_eq!(broker.stop().code(), Some(0));
}

/// What became of a connection: it was served, or closed unread after so long.
fn connect(broker: &Broker) -> Result<(), Duration> {
    let begun = Instant::now();
    let mut client = broker.client();
    let asked = client.call::<_, AlterClientQuotasResponse>(&AlterClientQuotasRequest::default(), 0);
    match asked {
        Ok(_) => Ok(()),
        Err(error) => {
            assert!(matches!(client.stream.read(&mut [0]), Ok(0) | Err(_)), "{error}");
            Err(begun.elapsed())
        }
    }
}

#[test]
fn an_address_that_connects_too_often_is_shut_out_for_a_while() {
    const KEY: &str = "connection_creation_rate";
    const HERE: (&str, Option<&str>) = ("ip", Some("127.0.0.1"));
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), &[]);
    // Quotas of others, and rates of other kinds, are not ours.
    let mut first = broker.client();
    set_quota(&mut first, ("ip", Some("127.0.0.2")), KEY, Some(1.0));
    for _ in 0..50 {
        assert_eq!(connect(&broker), Ok(()));
    }
    // Ten seconds' worth at once, and those that came while a core asked for the rate.
    set_quota(&mut first, HERE, KEY, Some(1.0));
    let begun = Instant::now();
    let mut served = 0;
    let refused_after = loop {
        match connect(&broker) {
            Ok(()) => served += 1,
            Err(after) => break after,
        }
    };
    let took_s = begun.elapsed().as_secs() as usize;
    assert!((10..=13 + took_s).contains(&served), "{served} in {took_s} s");
    assert!(refused_after < Duration::from_secs(5), "{refused_after:?}");
    // By then there is room for one, and whoever comes with it waits for the next second.
    assert_eq!(connect(&broker), Ok(()));
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(|| connect(&broker))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let refused: Vec<Duration> = all.into_iter().filter_map(Result::err).collect();
    assert!(refused.len() >= 15, "{refused:?}");
    let longest = refused.iter().max().unwrap();
    assert!((100..5_000).contains(&longest.as_millis()), "closed after {longest:?}: later, not at once");
    assert_eq!(broker.metric("ringmill_connections_refused_total"), (1 + refused.len()) as f64);
    // Who is in stays in, and who waits comes in.
    set_quota(&mut first, ("ip", None), KEY, Some(1e6));
    let begun = Instant::now();
    while connect(&broker).is_err() {
        assert!(begun.elapsed() < PATIENCE, "one a second may come in");
    }
    set_quota(&mut first, HERE, KEY, None);
    for _ in 0..50 {
        assert_eq!(connect(&broker), Ok(()), "the others' rate is ours now");
    }
    assert_eq!(broker.stop().code(), Some(0));
}
