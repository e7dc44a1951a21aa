//! The generator against a broker of a few lines, which can be told to pause.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use ringmill_load::{LoadError, Outcome, Payload, Plan, Schedule, Sizes, Target};
use ringmill_record::produced::validate_produced;
use ringmill_wire::RequestHeader;
use ringmill_wire::produce::{ProducePartitionAnswer, ProduceRequest, ProduceResponse};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When a broker sleeps: this long after its first request, for so long.
#[derive(Clone, Copy, Default)]
struct Pause {
    after: Duration,
    lasts: Duration,
}

struct Broker {
    address: SocketAddr,
    records: Arc<AtomicU64>,
}

/// Takes Produce, checks each batch as ringmill would, answers; ends with the process. `hang_up_after` requests it
/// closes the connection.
fn broker(pause: Pause, hang_up_after: u64) -> Broker {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let records = Arc::new(AtomicU64::new(0));
    let seen = records.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, seen) = (stream.unwrap(), seen.clone());
            std::thread::spawn(move || {
                let (mut slept, mut begin, mut requests) = (false, None, 0);
                let mut length = [0; 4];
                while requests < hang_up_after && stream.read_exact(&mut length).is_ok() {
                    requests += 1;
                    let begin = *begin.get_or_insert_with(Instant::now);
                    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
                    stream.read_exact(&mut frame).unwrap();
                    if !slept && !pause.lasts.is_zero() && begin.elapsed() >= pause.after {
                        slept = true;
                        std::thread::sleep(pause.lasts);
                    }
                    let header = RequestHeader::parse(&frame).unwrap();
                    let request = ProduceRequest::parse(&header, &frame).unwrap();
                    let mut out = Vec::new();
                    let mut answer =
                        ProduceResponse::begin(&mut out, header.response_head(), request.topic_count);
                    for topic in request.topics() {
                        answer.topic(topic.topic, topic.partition_count);
                        for partition in topic.partitions() {
                            let batch = validate_produced(partition.records, 9).unwrap();
                            seen.fetch_add(batch.header.record_count as u64, Ordering::Relaxed);
                            let none = ringmill_types::ErrorCode::None;
                            answer.partition(&ProducePartitionAnswer::error(partition.index, none));
                        }
                    }
                    answer.finish(0, &[]);
                    if request.acks != 0 && stream.write_all(&out).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Broker { address, records }
}

fn plan(broker: &Broker, schedule: &str, records: u64) -> Plan {
    let targets = (0..3).map(|partition| Target { partition, leader: broker.address }).collect();
    Plan {
        schedule: schedule.parse::<Schedule>().unwrap(),
        linger: Duration::ZERO,
        timeout: Duration::from_secs(20),
        ..Plan::new("load", targets, records, Sizes::Fixed(100))
    }
}

/// Runs a plan to its end.
fn run(plan: &Plan) -> (Outcome, Result<(), LoadError>) {
    ringmill_load::run(plan, &mut |_| ControlFlow::Continue(()))
}

#[test]
fn every_record_arrives_once_whatever_the_shape() {
    for (producers, schedule, acks, linger_ms) in
        [(1, "-1", -1, 0), (7, "20000", -1, 2), (3, "poisson:30000", 1, 0), (2, "burst:20000:100", 0, 1)]
    {
        let broker = broker(Pause::default(), u64::MAX);
        let plan = Plan {
            producers,
            acks,
            linger: Duration::from_millis(linger_ms),
            ..plan(&broker, schedule, 5_000)
        };
        let (outcome, result) = run(&plan);
        result.unwrap();
        assert_eq!((outcome.records, outcome.errors), (5_000, 0), "{schedule}");
        assert_eq!((outcome.intended.count(), outcome.actual.count()), (5_000, 5_000));
        // With acks 0 the last may still be on their way.
        let deadline = Instant::now() + Duration::from_secs(10);
        while broker.records.load(Ordering::Relaxed) < 5_000 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(broker.records.load(Ordering::Relaxed), 5_000, "{schedule}");
    }
}

#[test]
fn requests_larger_than_the_sockets_buffers_do_not_get_into_each_other() {
    // Every connection has more than one request that the kernel cannot take at once.
    let pause = Pause { after: Duration::ZERO, lasts: Duration::from_millis(200) };
    let broker = broker(pause, u64::MAX);
    let targets = (0..100).map(|partition| Target { partition, leader: broker.address }).collect();
    let plan = Plan {
        linger: Duration::ZERO,
        socket_buffer: Some(128 << 10),
        timeout: Duration::from_secs(20),
        ..Plan::new("load", targets, 10_000, Sizes::Fixed(1000))
    };
    let (outcome, result) = run(&plan);
    result.unwrap();
    assert_eq!((outcome.records, outcome.errors), (10_000, 0));
    assert_eq!(broker.records.load(Ordering::Relaxed), 10_000);
}

#[test]
fn a_broker_that_pauses_makes_every_record_meant_for_that_time_late() {
    let pause = Pause { after: Duration::from_secs(1), lasts: Duration::from_millis(500) };
    let broker = broker(pause, u64::MAX);
    let (outcome, result) = run(&plan(&broker, "1000", 3_000));
    result.unwrap();
    assert_eq!(outcome.records, 3_000);
    // Half a second at 1,000/s: the last of them waited hardly at all, so a little is taken off.
    let late = outcome.intended.count_above(20_000_000);
    assert!(late >= 450, "{late} late records");
    assert!(outcome.intended.ms(0.99) > 400.0, "p99 says it: {} ms", outcome.intended.ms(0.99));
    // What left when it could tells less: that is the difference to show.
    assert!(outcome.actual.count_above(20_000_000) <= late);
}

#[test]
fn requests_stay_whole_when_sockets_are_full() {
    // Far more than a socket holds, while nobody reads.
    let pause = Pause { after: Duration::ZERO, lasts: Duration::from_millis(300) };
    let broker = broker(pause, u64::MAX);
    let plan = Plan {
        producers: 2,
        batch_bytes: 1 << 20,
        in_flight_max: 20,
        buffer_bytes: 64 << 20,
        ..Plan { payload: Payload::Letters(Sizes::Fixed(10_000)), ..plan(&broker, "-1", 10_000) }
    };
    let (outcome, result) = run(&plan);
    result.unwrap();
    assert_eq!((outcome.records, outcome.errors), (10_000, 0));
    assert_eq!(broker.records.load(Ordering::Relaxed), 10_000);
}

#[test]
fn a_span_ends_the_schedule_and_what_was_made_is_answered() {
    let broker = broker(Pause::default(), u64::MAX);
    let span = Some(Duration::from_millis(300));
    let plan = Plan { span, ..plan(&broker, "10000", u64::MAX >> 1) };
    let (outcome, result) = run(&plan);
    result.unwrap();
    assert!((2_900..=3_100).contains(&outcome.records), "{}", outcome.records);
    assert_eq!(outcome.records, broker.records.load(Ordering::Relaxed));
    assert!(outcome.turns > 0 && outcome.batches >= outcome.requests);
}

#[test]
fn warm_up_is_left_out() {
    let broker = broker(Pause::default(), u64::MAX);
    let plan = Plan { warmup: 1_000, ..plan(&broker, "10000", 3_000) };
    let (outcome, result) = run(&plan);
    result.unwrap();
    assert_eq!(broker.records.load(Ordering::Relaxed), 3_000);
    assert_eq!((outcome.records, outcome.warmup.records), (2_000, 1_000));
    assert_eq!((outcome.intended.count(), outcome.warmup.intended.count()), (2_000, 1_000));
}

#[test]
fn what_fails_is_a_sentence_and_the_results_so_far() {
    let broker = broker(Pause::default(), 10);
    let (outcome, result) = run(&plan(&broker, "1000", 3_000));
    assert!(matches!(result, Err(LoadError::Lost(_))), "{result:?}");
    assert!(outcome.records > 0 && outcome.records < 3_000, "{}", outcome.records);

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut plan = plan(&broker, "1000", 10);
    plan.targets[0].leader = nobody;
    let (_, result) = run(&plan);
    assert!(matches!(result, Err(LoadError::Connect(..))), "{result:?}");
    plan.records = 0;
    assert!(matches!(run(&plan).1, Err(LoadError::Plan(_))));
}

/// Takes Produce of idempotent producers as Kafka does: a sequence that does not follow is refused. Every so many
/// batches it says that it does not lead the partition. Counts what was stored.
fn reluctant_broker(refuse_every: u64) -> Broker {
    const NOT_LEADER: i16 = 6;
    const OUT_OF_ORDER: i16 = 45;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let records = Arc::new(AtomicU64::new(0));
    let stored = records.clone();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut length, mut batches) = ([0; 4], 0u64);
        let mut next = std::collections::HashMap::new();
        while stream.read_exact(&mut length).is_ok() {
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut frame).unwrap();
            let header = RequestHeader::parse(&frame).unwrap();
            let request = ProduceRequest::parse(&header, &frame).unwrap();
            let mut out = Vec::new();
            let mut answer = ProduceResponse::begin(&mut out, header.response_head(), request.topic_count);
            for topic in request.topics() {
                answer.topic(topic.topic, topic.partition_count);
                for partition in topic.partitions() {
                    batches += 1;
                    let batch = validate_produced(partition.records, 9).unwrap().header;
                    let expected = next.entry(partition.index).or_insert(0);
                    let code = if batches.is_multiple_of(refuse_every) {
                        NOT_LEADER
                    } else if batch.base_sequence != *expected {
                        OUT_OF_ORDER
                    } else {
                        *expected += batch.record_count;
                        stored.fetch_add(batch.record_count as u64, Ordering::Relaxed);
                        0
                    };
                    let code = ringmill_types::ErrorCode::ALL.iter().find(|c| c.code() == code).unwrap();
                    answer.partition(&ProducePartitionAnswer::error(partition.index, *code));
                }
            }
            answer.finish(0, &[]);
            if stream.write_all(&out).is_err() {
                return;
            }
        }
    });
    Broker { address, records }
}

#[test]
fn what_is_refused_for_the_moment_is_sent_again_in_order_and_stored_once() {
    let broker = reluctant_broker(7);
    let plan = Plan {
        identities: vec![(4711, 0)],
        batch_bytes: 1000,
        retry_backoff: Duration::from_millis(2),
        ..plan(&broker, "20000", 5_000)
    };
    let (outcome, result) = run(&plan);
    result.unwrap();
    assert_eq!((outcome.records, outcome.errors), (5_000, 0));
    assert_eq!(broker.records.load(Ordering::Relaxed), 5_000);
    assert!(outcome.retries > 50, "{} retries", outcome.retries);

    let broker = reluctant_broker(7);
    let plan = Plan { targets: vec![Target { partition: 0, leader: broker.address }], retries: 0, ..plan };
    let (outcome, result) = run(&plan);
    result.unwrap();
    assert!(outcome.errors > 0, "without retries, a refusal is an error");
    assert_eq!(outcome.records, broker.records.load(Ordering::Relaxed));
    assert_eq!(outcome.records + outcome.errors, 5_000);
}
