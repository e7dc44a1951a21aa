//! What a scrape of the admin port says of groups while real members consume: states, lag, rebalances, commits.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{ANYBODY, Broker, NONE, batch, run, samples};
use kafka_wire::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use kafka_wire_core::StrBytes;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const TOPIC: &str = "read";
const PARTITIONS: i32 = 2;
const REBALANCES: &str = "ringmill_group_rebalances_total";

/// The sum of a metric's samples whose labels hold all of `with`; `None` where there is none.
fn sum(broker: &Broker, metric: &str, with: &[&str]) -> Option<f64> {
    let text = broker.scrape();
    let of = samples(&text, metric).filter(|(labels, _)| with.iter().all(|part| labels.contains(part)));
    of.map(|(_, value)| value).reduce(|a, b| a + b)
}

fn lag(broker: &Broker) -> Option<f64> {
    sum(broker, "ringmill_group_lag_records", &["group=\"readers\"", "topic=\"read\""])
}

fn groups(broker: &Broker, state: &str, protocol: &str) -> Option<f64> {
    let (state, protocol) = (format!("state=\"{state}\""), format!("protocol=\"{protocol}\""));
    sum(broker, "ringmill_groups", &[&state, &protocol])
}

#[track_caller]
fn wait_until(what: &str, broker: &Broker, is: impl Fn(&Broker) -> bool) {
    let begun = Instant::now();
    while !is(broker) {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}\n{}", broker.scrape());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn produce(broker: &Broker, count: usize) {
    let mut client = broker.client();
    for partition in 0..PARTITIONS {
        let values: Vec<String> = (0..count / PARTITIONS as usize).map(|n| n.to_string()).collect();
        assert_eq!(client.produce(TOPIC, partition, &batch(ANYBODY, &values)).unwrap(), NONE);
    }
}

fn member(broker: &Broker) -> Child {
    let arguments = ["consume", TOPIC, "--group", "readers", "--quiet", "-b", &broker.address];
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmill"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn a_scrape_shows_what_the_members_of_a_group_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), &["--set", "group.initial.rebalance.delay.ms=100"]);
    assert_eq!(broker.client().create(TOPIC, PARTITIONS, &[]).unwrap(), NONE);
    produce(&broker, 100);
    assert_eq!((groups(&broker, "Stable", "Classic"), lag(&broker)), (None, None));
    assert_eq!(sum(&broker, REBALANCES, &[]), Some(0.0));
    // One member reads a part, commits it and leaves.
    let some = ["consume", TOPIC, "--group", "readers", "--count", "30", "--quiet", "-b", &broker.address];
    assert_eq!(run(&some).0, 0);
    assert_eq!((groups(&broker, "Empty", "Classic"), lag(&broker)), (Some(1.0), Some(70.0)));
    let after_one = sum(&broker, REBALANCES, &[]).unwrap();
    assert!(after_one >= 1.0, "{after_one}");
    assert!(sum(&broker, "ringmill_group_commit_seconds_count", &[]).unwrap() >= 1.0);
    // Two read the rest, together: the second one's coming deals the partitions anew.
    let mut members = vec![member(&broker)];
    wait_until("the group has a member", &broker, |broker| groups(broker, "Stable", "Classic") == Some(1.0));
    let with_one = sum(&broker, REBALANCES, &[]).unwrap();
    assert!(with_one > after_one, "{with_one} {after_one}");
    members.push(member(&broker));
    wait_until("the second came", &broker, |broker| {
        sum(broker, REBALANCES, &[]).unwrap() > with_one && groups(broker, "Stable", "Classic") == Some(1.0)
    });
    wait_until("all is committed", &broker, |broker| lag(broker) == Some(0.0));
    produce(&broker, 10);
    wait_until("what came is committed", &broker, |broker| lag(broker) == Some(0.0));
    // Nobody commits any more.
    for mut member in members {
        member.kill().unwrap();
        member.wait().unwrap();
    }
    produce(&broker, 8);
    assert_eq!(lag(&broker), Some(8.0));
    let each: Vec<f64> =
        samples(&broker.scrape(), "ringmill_group_lag_records").map(|(_, value)| value).collect();
    assert_eq!(each, [4.0, 4.0], "by partition");
    // Groups of the other protocol count by themselves, and survive a kill with the rest.
    let before = sum(&broker, REBALANCES, &[]).unwrap();
    let mut request = ConsumerGroupHeartbeatRequest::default();
    request.group_id = StrBytes::from("new");
    request.member_id = StrBytes::from("somebody");
    request.member_epoch = 0;
    request.rebalance_timeout_ms = 60_000;
    request.subscribed_topic_names = Some(vec![StrBytes::from(TOPIC)]);
    request.topic_partitions = Some(Vec::new());
    let answer: ConsumerGroupHeartbeatResponse = broker.client().call_flexible(&request, 1).unwrap();
    assert_eq!(answer.error_code, NONE, "{:?}", answer.error_message);
    assert_eq!(sum(&broker, "ringmill_groups", &["protocol=\"Consumer\""]), Some(1.0));
    assert!(sum(&broker, REBALANCES, &[]).unwrap() > before);
    broker.kill();
    broker = Broker::start(dir.path(), &[]);
    wait_until("groups are read", &broker, |broker| sum(broker, "ringmill_groups", &[]) == Some(2.0));
    assert_eq!(lag(&broker), Some(8.0));
    assert_eq!(broker.stop().code(), Some(0));
}
