//! How long one request keeps control from everybody else. A [`Desk`] is control without cores: requests go in as a core
//! would hand them over, its own records are stored at once, and every piece of work between two looks at the queues is
//! timed. The requests are the worst of their kind that are taken at all.
//!
//! The ordinary run makes each of them once, small, and looks at the answers only: `cargo test -p ringmill-control`. The
//! one that counts makes them large and holds the longest step against [`STEP_MAX`]:
//! `cargo test --release -p ringmill-control stalls -- --ignored --nocapture --test-threads 1`
//! CI does not run that: it is elapsed time, and the nearest kind keeps within a thirtieth of the bar on a quiet machine
//! (`bench/runs/2026-11-22-two-cpus-stalls-2`), so that a neighbour there would fail it. To be run by hand after a change here.

use super::*;
use kafka_wire::consumer_group_heartbeat_request::TopicPartitions;
use kafka_wire::describe_groups_response::DescribedGroup;
use kafka_wire::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_wire::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_wire::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, DeleteGroupsRequest, DeleteGroupsResponse,
    DescribeGroupsRequest, DescribeGroupsResponse, DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse, JoinGroupRequest, JoinGroupResponse, KafkaMessage, KafkaRequest,
    ListGroupsRequest, ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest,
    OffsetFetchResponse, OutboundFrameLimits, SyncGroupRequest, SyncGroupResponse, encode_request,
    join_group_request, sync_group_request,
};
use kafka_wire_core::{ApiVersion, Bytes, DecodeLimits, Decoder, KafkaDecode, KafkaEncode, StrBytes};
use ringmill_core::ConnKey;
use ringmill_metadata::PartitionRecord;
use ringmill_reactor::stdfs::StdFs;
use ringmill_types::{LeaderEpoch, TopicId};

/// What one request may keep control from everybody else for.
const STEP_MAX: Duration = Duration::from_millis(10);
/// A machine that does something else now and then: the best of so many tries counts.
const TRIES: usize = 5;
const FOREVER: i32 = 300_000;

/// How much there is of everything.
#[derive(Clone, Copy)]
struct Size {
    topics: usize,
    groups: usize,
    members: usize,
    said_bytes: usize,
    partitions: i32,
    listed: usize,
}

const SMALL: Size =
    Size { topics: 40, groups: 30, members: 4, said_bytes: 1_000, partitions: 20, listed: 10 };
const LARGE: Size = Size {
    topics: 10_000,
    groups: 10_000,
    members: 100,
    said_bytes: 1 << 20,
    partitions: 10_000,
    listed: 1_000,
};

struct Desk {
    control: Control,
    slot: u64,
    longest: Duration,
    /// Patterns that were matched elsewhere, so far.
    matched: usize,
    answers: HashMap<u64, Vec<u8>>,
    /// Why connections were closed; nobody looks at the answer then.
    refusals: Vec<String>,
}

/// One that was sent: its slot, API and version.
#[derive(Clone, Copy)]
struct Sent(u64, ResponseHead);

impl Desk {
    fn new(folder: &std::path::Path) -> Desk {
        let (journal, image) = FileJournal::open(Arc::new(StdFs), folder).unwrap();
        let mut config = crate::groups::GroupConfig { initial_rebalance_delay_ms: 0, ..Default::default() };
        config.said_bytes_max = 1 << 30;
        let options = ControlOptions {
            node_id: 1,
            cluster_id: "stalls".into(),
            host: "localhost".into(),
            port: 9092,
            cores: 1,
            num_partitions: 1,
            delete_topics: true,
            partitions_max: 1_000_000,
            data_dir: folder.to_path_buf(),
            defaults: BrokerDefaults::default(),
            groups: GroupSettings { config, ..GroupSettings::default() },
            settings: Vec::new(),
        };
        let mut control = Control::new(options, image, journal, Vec::new(), Loggers::fixed());
        // What it has to say to its one core is found here.
        control.backlog.push(VecDeque::new());
        control.groups_load();
        control.ensure_offsets_topic();
        Desk {
            control,
            slot: 0,
            longest: Duration::ZERO,
            matched: 0,
            answers: HashMap::new(),
            refusals: Vec::new(),
        }
    }

    /// Topics of so many partitions, with the longest names there are. Nobody is kept waiting for these.
    fn topics(&mut self, count: usize, partitions: i32) -> Vec<TopicId> {
        let first = self.control.image.topics().count() as u128;
        let mut made = Vec::new();
        for number in first..first + count as u128 {
            // In no order, as ids are.
            let id =
                TopicId((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes());
            let next = self.control.image.next_partition();
            let place =
                |at| PartitionRecord { id: PartitionId(next + at), core: CoreId(0), epoch: LeaderEpoch(0) };
            let partitions = (0..partitions as u64).map(place).collect();
            let name = long_name(number as usize);
            self.control.image.apply(&Record::TopicCreated {
                name,
                id,
                created_ms: 0,
                configs: Configs::default(),
                partitions,
            });
            made.push(id);
        }
        let known = made.iter().filter_map(|id| self.control.image.with_id(*id)).map(crate::groups::known);
        let known = known.collect();
        self.control.groups_topics_changed(known);
        made
    }

    fn timed(&mut self, what: impl FnOnce(&mut Control)) {
        let began = Instant::now();
        what(&mut self.control);
        self.longest = self.longest.max(began.elapsed());
    }

    fn send<R: KafkaRequest + KafkaEncode>(&mut self, version: i16, request: &R) -> Sent {
        self.slot += 1;
        let slot = self.slot;
        let mut frame = bytes::BytesMut::new();
        let limits = OutboundFrameLimits::new(128 << 20);
        encode_request(
            &mut frame,
            1,
            Some(StrBytes::from("stalls")),
            request,
            ApiVersion::new(version),
            limits,
        )
        .unwrap();
        let frame = Frame {
            conn: ConnKey { core: CoreId(0), slot: 1, serial: 1 },
            slot,
            peer: "127.0.0.1:1".parse().unwrap(),
            bytes: frame[4..].to_vec(),
        };
        let head = RequestHeader::parse(&frame.bytes).unwrap().response_head();
        self.timed(|control| control.message(ControlMessage::Frame(frame)));
        self.turn();
        Sent(slot, head)
    }

    /// What the loop does after messages, and what the core would, until nothing is left.
    fn turn(&mut self) {
        loop {
            self.timed(Control::groups_due);
            self.timed(Control::groups_flush);
            if let Some(event) = self.control.groups.matched_now() {
                self.matched += 1;
                self.timed(|control| control.groups_step(event));
            }
            let Some(message) = self.control.backlog.get_mut(0).and_then(VecDeque::pop_front) else { return };
            match message {
                CoreMessage::Answer(answer) => {
                    self.refusals.extend(answer.refusal);
                    self.answers.insert(answer.slot, answer.bytes);
                }
                CoreMessage::Query { id, query: CoreQuery::Append { .. } } => {
                    let reply = CoreReply::Append(Ok(Offset(0)));
                    let core = CoreId(0);
                    self.timed(|control| control.message(ControlMessage::Reply { core, id, reply }));
                }
                _ => {}
            }
        }
    }

    /// Until so many patterns have been matched elsewhere in all.
    fn matched(&mut self, count: usize) {
        while self.matched < count {
            let event = self.control.groups.matched_soon().expect("a thread that matches");
            self.matched += 1;
            self.timed(|control| control.groups_step(event));
            self.turn();
        }
    }

    fn answer<T: KafkaMessage + KafkaDecode>(&mut self, sent: Sent) -> Option<T> {
        assert_eq!(self.refusals, [""; 0]);
        let bytes = self.answers.remove(&sent.0)?;
        let mut head = Vec::new();
        let begins = sent.1.begin(&mut head);
        let mut limits = DecodeLimits::default();
        limits.max_array_elements = 1 << 24;
        let body = Bytes::copy_from_slice(&bytes[head.len() - begins - 4..]);
        let mut decoder = Decoder::new(body, limits).unwrap();
        Some(T::decode(&mut decoder, ApiVersion::new(sent.1.api_version)).unwrap())
    }

    /// A request that is answered at once.
    fn ask<R: KafkaRequest + KafkaEncode, T: KafkaMessage + KafkaDecode>(
        &mut self,
        version: i16,
        request: &R,
    ) -> T {
        let sent = self.send(version, request);
        self.answer(sent).expect("an answer")
    }
}

fn long_name(number: usize) -> String {
    format!("{number:0>249}")
}

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from(text.into())
}

macro_rules! of {
    ($type:ty { $($field:ident : $value:expr),* $(,)? }) => {{
        let mut it = <$type>::default();
        $(it.$field = $value;)*
        it
    }};
}

mod consumers;

fn join(group: &str, member: &str, said: &Bytes) -> JoinGroupRequest {
    let protocol =
        of!(join_group_request::JoinGroupRequestProtocol { name: text("range"), metadata: said.clone() });
    of!(JoinGroupRequest {
        group_id: text(group),
        member_id: text(member),
        session_timeout_ms: FOREVER,
        rebalance_timeout_ms: FOREVER,
        protocol_type: text("consumer"),
        protocols: vec![protocol],
    })
}

/// Members join until no more are taken, then all do again for one generation, which their leader gives as much as it has
/// said. How many they are.
fn rebalanced(desk: &mut Desk, size: Size) -> usize {
    let said = Bytes::from(vec![0; size.said_bytes]);
    let mut members: Vec<String> = Vec::new();
    let mut waiting = Vec::new();
    for _ in 0..size.members {
        let asked: JoinGroupResponse = desk.ask(9, &join("crowd", "", &said));
        let sent = desk.send(9, &join("crowd", &asked.member_id, &said));
        match desk.answer::<JoinGroupResponse>(sent) {
            Some(refused) if refused.error_code != 0 => continue,
            Some(_) => {}
            None => waiting.push(sent),
        }
        members.push(asked.member_id.to_string());
    }
    waiting.extend(members.iter().map(|member| desk.send(9, &join("crowd", member, &said))));
    let joined: Vec<JoinGroupResponse> = waiting
        .into_iter()
        .filter_map(|sent| desk.answer(sent))
        .filter(|j: &JoinGroupResponse| j.error_code == 0)
        .collect();
    let leader = joined.iter().rfind(|answer| answer.member_id == answer.leader).expect("a leader");
    assert_eq!(leader.members.len(), members.len());
    let given = size.said_bytes / 2 / members.len();
    let assignments = members.iter().map(|member| {
        of!(sync_group_request::SyncGroupRequestAssignment {
            member_id: text(member.as_str()),
            assignment: Bytes::from(vec![0; given]),
        })
    });
    let sync = of!(SyncGroupRequest {
        group_id: text("crowd"),
        generation_id: leader.generation_id,
        member_id: leader.member_id.clone(),
        protocol_type: Some(text("consumer")),
        protocol_name: Some(text("range")),
        assignments: assignments.collect(),
    });
    let answer: SyncGroupResponse = desk.ask(5, &sync);
    // What all of them say is more than a record holds: here it is taken, as the core says yes to everything.
    assert_eq!(answer.error_code, 0);
    members.len()
}

/// Many groups of one member that says and is given as much as a record holds. How many there are.
fn groups_that_say_much(desk: &mut Desk, size: Size) -> usize {
    let said = Bytes::from(vec![0; size.said_bytes / 2]);
    for number in 0..size.members {
        let group = format!("much-{number}");
        let asked: JoinGroupResponse = desk.ask(9, &join(&group, "", &said));
        let joined: JoinGroupResponse = desk.ask(9, &join(&group, &asked.member_id, &said));
        assert_eq!(joined.error_code, 0);
        let given = of!(sync_group_request::SyncGroupRequestAssignment {
            member_id: joined.member_id.clone(),
            assignment: said.slice(..said.len() / 2),
        });
        let sync = of!(SyncGroupRequest {
            group_id: text(group),
            generation_id: joined.generation_id,
            member_id: joined.member_id,
            protocol_type: Some(text("consumer")),
            protocol_name: Some(text("range")),
            assignments: vec![given],
        });
        let answer: SyncGroupResponse = desk.ask(5, &sync);
        assert_eq!(answer.error_code, 0);
    }
    size.members
}

/// Groups with an offset each, made by commits without members.
fn groups_with_offsets(desk: &mut Desk, size: Size) {
    let topic = desk.topics(1, 1)[0];
    for number in 0..size.groups {
        commit(desk, &format!("group-{number}"), topic, 1);
    }
}

fn commit(desk: &mut Desk, group: &str, topic: TopicId, partitions: i32) {
    let partitions = (0..partitions).map(|partition| {
        of!(OffsetCommitRequestPartition {
            partition_index: partition,
            committed_metadata: Some(text("said"))
        })
    });
    let topic = of!(OffsetCommitRequestTopic {
        topic_id: kafka_wire_core::Uuid::from_bytes(topic.0),
        partitions: partitions.collect(),
    });
    let request = of!(OffsetCommitRequest {
        group_id: text(group),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
    });
    let answer: OffsetCommitResponse = desk.ask(10, &request);
    assert!(answer.topics.iter().flat_map(|t| &t.partitions).all(|p| p.error_code == 0));
}

/// A member of the consumer protocol that wants what the pattern matches.
fn beat(group: &str, member: usize, pattern: &str) -> ConsumerGroupHeartbeatRequest {
    of!(ConsumerGroupHeartbeatRequest {
        group_id: text(group),
        member_id: text(format!("member-{member}")),
        rebalance_timeout_ms: FOREVER,
        subscribed_topic_regex: Some(text(pattern)),
        topic_partitions: Some(Vec::<TopicPartitions>::new()),
    })
}

/// The longest step of `act`, after what `prepare` made.
fn longest<P>(tries: usize, prepare: impl Fn(&mut Desk) -> P, act: impl Fn(&mut Desk, &P)) -> Duration {
    let tried = (0..tries).map(|_| {
        let folder = tempfile::tempdir().unwrap();
        let mut desk = Desk::new(folder.path());
        let prepared = prepare(&mut desk);
        desk.longest = Duration::ZERO;
        act(&mut desk, &prepared);
        desk.longest
    });
    tried.min().unwrap()
}

fn names(prefix: &str, count: usize) -> Vec<StrBytes> {
    (0..count).map(|number| text(format!("{prefix}-{number}"))).collect()
}

/// Every kind of request that can be long, with the longest step it took.
fn all(size: Size, tries: usize) -> Vec<(String, Duration)> {
    let nothing = |_: &mut Desk| {};
    let topics = |desk: &mut Desk| drop(desk.topics(size.topics, 1));
    let mut out = vec![(
        "a group whose members say what it holds, from joining to its assignment",
        longest(tries, nothing, |desk, ()| assert!(rebalanced(desk, size) > 0)),
    )];
    let smaller = Size { said_bytes: size.said_bytes / size.members, ..size };
    out.push((
        "the same with every member saying as much",
        longest(tries, nothing, |desk, ()| assert_eq!(rebalanced(desk, smaller), size.members)),
    ));
    out.push((
        "DescribeGroups of one such group, named again and again",
        longest(
            tries,
            |desk| rebalanced(desk, size),
            |desk, _| {
                let request = of!(DescribeGroupsRequest { groups: vec![text("crowd"); size.listed] });
                let answer: DescribeGroupsResponse = desk.ask(6, &request);
                assert_eq!(answer.groups.len(), 1);
            },
        ),
    ));
    out.extend(lists(size, tries));
    out.extend(offsets(size, tries));
    out.extend(patterns(size, tries));
    out.push((
        "DescribeTopicPartitions of all topics",
        longest(tries, topics, |desk, ()| {
            let request = of!(DescribeTopicPartitionsRequest { response_partition_limit: i32::MAX });
            let answer: DescribeTopicPartitionsResponse = desk.ask(0, &request);
            assert!(answer.topics.len() > size.topics.min(1_000));
        }),
    ));
    out.push((
        "DescribeTopicPartitions of one topic with many",
        longest(
            tries,
            |desk| desk.topics(1, size.partitions),
            |desk, _| {
                let request = of!(DescribeTopicPartitionsRequest { response_partition_limit: i32::MAX });
                let answer: DescribeTopicPartitionsResponse = desk.ask(0, &request);
                assert!(answer.topics[0].partitions.len() >= size.partitions.min(1_000) as usize);
            },
        ),
    ));
    let mut out: Vec<_> = out.into_iter().map(|(what, took)| (what.to_string(), took)).collect();
    out.extend(consumers::all(size, tries));
    out
}

/// Requests about many groups.
fn lists(size: Size, tries: usize) -> Vec<(&'static str, Duration)> {
    let groups = |desk: &mut Desk| groups_with_offsets(desk, size);
    vec![
        (
            "DescribeGroups of many",
            longest(tries, groups, |desk, ()| {
                let request = of!(DescribeGroupsRequest { groups: names("group", size.listed) });
                let answer: DescribeGroupsResponse = desk.ask(6, &request);
                assert!(answer.groups.iter().all(|g| g.error_code == 0 && g.group_state.as_str() == "Empty"));
            }),
        ),
        (
            "DescribeGroups of many that say much",
            longest(
                tries,
                |desk| groups_that_say_much(desk, size),
                |desk, count| {
                    // Whoever asks comes again for those that had no room, and has them all in the end.
                    let mut left = names("much", *count);
                    while !left.is_empty() {
                        let answer: DescribeGroupsResponse =
                            desk.ask(6, &of!(DescribeGroupsRequest { groups: left.clone() }));
                        let before = left.len();
                        left = answer
                            .groups
                            .iter()
                            .filter(|g| g.error_code == 14)
                            .map(|g| g.group_id.clone())
                            .collect();
                        assert!(left.len() < before);
                        let described = answer.groups.iter().filter(|g| g.error_code == 0);
                        assert!(described.clone().all(|g| g.members.len() == 1));
                        let bytes = |g: &DescribedGroup| -> usize {
                            g.members.iter().map(|m| m.member_metadata.len()).sum()
                        };
                        assert!(described.map(bytes).sum::<usize>() <= 5 << 20);
                    }
                },
            ),
        ),
        (
            "ListGroups",
            longest(tries, groups, |desk, ()| {
                let answer: ListGroupsResponse = desk.ask(5, &ListGroupsRequest::default());
                assert_eq!(answer.groups.len(), size.groups);
            }),
        ),
        (
            "ListGroups with as many states as a list may have",
            longest(tries, groups, |desk, ()| {
                let request = of!(ListGroupsRequest { states_filter: names("state", 2 * size.groups) });
                let answer: ListGroupsResponse = desk.ask(5, &request);
                assert_eq!(answer.groups.len(), 0);
            }),
        ),
        (
            "DeleteGroups of many",
            longest(tries, groups, |desk, ()| {
                let request = of!(DeleteGroupsRequest { groups_names: names("group", size.listed) });
                let answer: DeleteGroupsResponse = desk.ask(2, &request);
                assert!(answer.results.iter().all(|r| r.error_code == 0));
                assert_eq!(answer.results.len(), size.listed);
            }),
        ),
    ]
}

fn offsets(size: Size, tries: usize) -> Vec<(&'static str, Duration)> {
    let committed = |desk: &mut Desk| {
        let topic = desk.topics(1, size.partitions)[0];
        commit(desk, "group", topic, size.partitions);
        topic
    };
    let fetched = |desk: &mut Desk, topics: Option<Vec<OffsetFetchRequestTopics>>, times: usize| {
        let group =
            of!(OffsetFetchRequestGroup { group_id: text("group"), topics: topics, member_epoch: -1 });
        let answer: OffsetFetchResponse =
            desk.ask(10, &of!(OffsetFetchRequest { groups: vec![group; times] }));
        assert_eq!(answer.groups.len(), 1);
        assert_eq!(answer.groups[0].topics[0].partitions.len(), size.partitions as usize);
    };
    vec![
        (
            "OffsetCommit of many partitions",
            longest(
                tries,
                |desk| desk.topics(1, size.partitions)[0],
                |desk, topic| commit(desk, "group", *topic, size.partitions),
            ),
        ),
        (
            "OffsetFetch of many partitions",
            longest(tries, committed, |desk, topic| {
                let topic = of!(OffsetFetchRequestTopics {
                    topic_id: kafka_wire_core::Uuid::from_bytes(topic.0),
                    partition_indexes: (0..size.partitions).collect(),
                });
                fetched(desk, Some(vec![topic]), 1);
            }),
        ),
        ("OffsetFetch of all that a group has", longest(tries, committed, |desk, _| fetched(desk, None, 1))),
        (
            "OffsetFetch of all that a group has, named again and again",
            longest(tries, committed, |desk, _| fetched(desk, None, size.listed)),
        ),
    ]
}

/// Patterns made to be slow, over the longest names there are; whoever joins waits for none of them.
fn patterns(size: Size, tries: usize) -> Vec<(&'static str, Duration)> {
    let bombs = [
        "(0*)*(0+)+x".to_string(),
        format!(".*{}", "(0|1|2|3|4)?".repeat(300)),
        format!("{}x", "0?".repeat(249)),
        format!("(?:{})*", "(.*0.*1.*2.*3)?".repeat(40)),
        "\\pL*[\\pN]{1,40}.*".to_string(),
    ];
    let topics = |desk: &mut Desk| drop(desk.topics(size.topics, 1));
    vec![
        (
            "a pattern built to be slow",
            longest(tries, topics, |desk, ()| {
                for (number, bomb) in bombs.iter().enumerate() {
                    let group = format!("patterns-{number}");
                    let answer: ConsumerGroupHeartbeatResponse = desk.ask(1, &beat(&group, 0, bomb));
                    assert!([0, 128].contains(&answer.error_code), "{bomb}: {:?}", answer.error_message);
                }
            }),
        ),
        (
            "a member with a pattern joins many that have others",
            longest(tries, topics, |desk, ()| {
                for member in 0..size.members.min(20) {
                    let pattern = format!(".*0{}.*1", "0?".repeat(member));
                    let answer: ConsumerGroupHeartbeatResponse =
                        desk.ask(1, &beat("patterns", member, &pattern));
                    assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
                }
            }),
        ),
        (
            "many members whose pattern is not matched yet",
            longest(tries, topics, |desk, ()| {
                for member in 0..size.members {
                    let answer: ConsumerGroupHeartbeatResponse = desk.ask(1, &beat("all", member, "0.*"));
                    assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
                }
            }),
        ),
    ]
}

#[test]
fn the_worst_requests_are_answered() {
    assert!(all(SMALL, 1).iter().all(|(_, took)| *took > Duration::ZERO));
}

/// As many as a list may have in each of two lists are too many together.
#[test]
fn lists_in_a_list_are_counted_together() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::new(folder.path());
    let topics = |count: usize, partitions: i32| {
        let topic = |number| {
            of!(OffsetFetchRequestTopics {
                topic_id: kafka_wire_core::Uuid::from_bytes([number as u8; 16]),
                partition_indexes: (0..partitions).collect(),
            })
        };
        let group = of!(OffsetFetchRequestGroup {
            group_id: text("g"),
            topics: Some((0..count).map(topic).collect())
        });
        of!(OffsetFetchRequest { groups: vec![group] })
    };
    let answer: OffsetFetchResponse = desk.ask(10, &topics(2, 10_000));
    assert_eq!(answer.groups[0].topics.len(), 2);
    desk.send(10, &topics(2, 10_001));
    assert!(
        matches!(&desk.refusals[..], [why] if why.ends_with("with 20002 items; it may have 20000")),
        "{:?}",
        desk.refusals
    );
}

/// The answer is full with the group that comes to the limit; whoever asked comes again for those behind it.
#[test]
fn an_answer_full_of_offsets_has_no_more_groups() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::new(folder.path());
    let topic = desk.topics(1, 1)[0];
    commit(&mut desk, "behind", topic, 1);
    let answered = |desk: &mut Desk, partitions: i32| {
        let topic = of!(OffsetFetchRequestTopics {
            topic_id: kafka_wire_core::Uuid::from_bytes(topic.0),
            partition_indexes: (0..partitions).collect(),
        });
        let groups = ["large", "behind", "behind it"].map(|name| {
            let topics = (name == "large").then(|| vec![topic.clone()]);
            of!(OffsetFetchRequestGroup { group_id: text(name), topics: topics, member_epoch: -1 })
        });
        let answer: OffsetFetchResponse = desk.ask(10, &of!(OffsetFetchRequest { groups: groups.into() }));
        let rows = answer.groups.iter().map(|g| {
            (g.group_id.to_string(), g.error_code, g.topics.iter().map(|t| t.partitions.len()).sum::<usize>())
        });
        rows.collect::<Vec<_>>()
    };
    let row = |name: &str, error, offsets| (name.to_string(), error, offsets);
    let loading = 14;
    // A group counts for one itself.
    let (full, not_full) = (19_999, 19_998);
    assert_eq!(
        answered(&mut desk, full),
        [row("large", 0, full as usize), row("behind", loading, 0), row("behind it", loading, 0)]
    );
    assert_eq!(
        answered(&mut desk, not_full),
        [row("large", 0, not_full as usize), row("behind", 0, 1), row("behind it", loading, 0)]
    );
}

#[test]
#[ignore = "counts only in a release build on a quiet machine; the module says how to run it"]
fn no_request_keeps_control_for_long() {
    let all = all(LARGE, TRIES);
    for (what, took) in &all {
        println!("{:>9.3} ms  {what}", took.as_secs_f64() * 1e3);
    }
    let long: Vec<_> = all.iter().filter(|(_, took)| *took > STEP_MAX).map(|(what, _)| what).collect();
    assert!(long.is_empty(), "longer than {STEP_MAX:?}: {long:#?}");
}
