//! A group of the consumer protocol with many members that read thousands of topics: every change of its members, of what
//! they want or of the topics is a new epoch with a new target.

use super::*;
use kafka_wire::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};

const GROUP: &str = "readers";
/// More than are matched here and now.
const TOPICS_MIN: usize = 100;
/// Of the longest names, as many as a member's record holds.
const LISTED_MAX: usize = 3_700;

/// What the members of a group want.
#[derive(Clone, Copy)]
enum Wish {
    /// What one pattern matches.
    All,
    /// Every other member what another pattern matches: half of the topics.
    Halves,
    /// Topics by name, all of them the same.
    Listed,
}

impl Wish {
    fn patterns(self) -> usize {
        match self {
            Wish::All => 1,
            Wish::Halves => 2,
            Wish::Listed => 0,
        }
    }

    fn joins(self, member: usize, topics: usize) -> ConsumerGroupHeartbeatRequest {
        match self {
            Wish::Halves if !member.is_multiple_of(2) => beat(GROUP, member, ".*[02468]"),
            Wish::All | Wish::Halves => beat(GROUP, member, "0.*"),
            Wish::Listed => {
                let names = (1..=topics.min(LISTED_MAX)).map(|number| text(long_name(number)));
                let mut request = beat(GROUP, member, "");
                request.subscribed_topic_names = Some(names.collect());
                request
            }
        }
    }
}

/// A member as it sees itself.
struct Reader {
    member: usize,
    epoch: i32,
    owned: Vec<TopicPartitions>,
}

impl Reader {
    /// Whether it was told anything new.
    fn says(&mut self, desk: &mut Desk, request: &ConsumerGroupHeartbeatRequest) -> bool {
        let answer: ConsumerGroupHeartbeatResponse = desk.ask(1, request);
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
        let is_news = answer.member_epoch != self.epoch || answer.assignment.is_some();
        self.epoch = answer.member_epoch;
        if let Some(assignment) = answer.assignment {
            let topics = assignment
                .topic_partitions
                .into_iter()
                .map(|t| of!(TopicPartitions { topic_id: t.topic_id, partitions: t.partitions }));
            self.owned = topics.collect();
        }
        is_news
    }

    fn beats(&mut self, desk: &mut Desk) -> bool {
        let request = of!(ConsumerGroupHeartbeatRequest {
            group_id: text(GROUP),
            member_id: text(format!("member-{}", self.member)),
            member_epoch: self.epoch,
            rebalance_timeout_ms: -1,
            topic_partitions: Some(self.owned.clone()),
        });
        self.says(desk, &request)
    }

    fn leaves(self, desk: &mut Desk) {
        let request = of!(ConsumerGroupHeartbeatRequest {
            group_id: text(GROUP),
            member_id: text(format!("member-{}", self.member)),
            member_epoch: -1,
        });
        let answer: ConsumerGroupHeartbeatResponse = desk.ask(1, &request);
        assert_eq!(answer.error_code, 0);
    }
}

struct Story {
    desk: Desk,
    wish: Wish,
    topics: usize,
    readers: Vec<Reader>,
    steps: Vec<(&'static str, Duration)>,
}

impl Story {
    fn step(&mut self, what: &'static str, act: impl FnOnce(&mut Story)) {
        self.desk.longest = Duration::ZERO;
        act(self);
        self.steps.push((what, self.desk.longest));
    }

    fn join(&mut self) {
        let member = self.readers.len();
        let mut reader = Reader { member, epoch: 0, owned: Vec::new() };
        let request = self.wish.joins(member, self.topics);
        reader.says(&mut self.desk, &request);
        self.readers.push(reader);
    }

    /// Heartbeats of all until nobody is told anything new.
    fn rest(&mut self) {
        for _ in 0..20 {
            let news = self.readers.iter_mut().filter_map(|r| r.beats(&mut self.desk).then_some(())).count();
            if news == 0 {
                return;
            }
        }
        panic!("no rest");
    }

    fn held(&self) -> usize {
        self.readers.iter().flat_map(|r| &r.owned).map(|t| t.partitions.len()).sum()
    }
}

/// A group's life, with the longest step of each part of it.
fn story(wish: Wish, size: Size) -> Vec<(&'static str, Duration)> {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::new(folder.path());
    let topics = size.topics.max(TOPICS_MIN);
    desk.topics(topics, 1);
    let mut story = Story { desk, wish, topics, readers: Vec::new(), steps: Vec::new() };
    story.step("its first member joins and is given everything", |story| {
        story.join();
        story.desk.matched(wish.patterns().min(1));
        story.rest();
    });
    story.step("the second joins, and the first gives up a part", |story| {
        story.join();
        story.desk.matched(wish.patterns());
        story.rest();
    });
    story.step("the others join one after the other", |story| {
        while story.readers.len() < size.members {
            story.join();
        }
    });
    let held = topics.min(if wish.patterns() == 0 { LISTED_MAX } else { usize::MAX });
    story.step("heartbeats tell all of them their parts", Story::rest);
    assert_eq!(story.held(), held);
    // Of members that say a mebibyte of names each it is all of those: as many megabytes as members.
    if wish.patterns() > 0 {
        story.step("ConsumerGroupDescribe of it", |story| {
            let request = of!(ConsumerGroupDescribeRequest { group_ids: vec![text(GROUP)] });
            let answer: ConsumerGroupDescribeResponse = story.desk.ask(1, &request);
            assert_eq!(answer.groups[0].members.len(), size.members);
            assert_eq!(answer.groups[0].group_state.as_str(), "Stable");
        });
    }
    story.step("a topic is added", |story| {
        story.desk.topics(1, 1);
        story.readers[0].beats(&mut story.desk);
        story.desk.matched(2 * wish.patterns());
        story.rest();
    });
    assert_eq!(story.held(), held + wish.patterns().min(1));
    story.step("a topic has more partitions", |story| {
        let name = long_name(2);
        let id = story.desk.control.image.named(&name).expect("a topic").id;
        story.desk.timed(|control| control.groups_topics_changed(vec![(name.as_str().into(), id, 2)]));
        story.readers[0].beats(&mut story.desk);
        story.desk.matched(3 * wish.patterns());
        story.rest();
    });
    assert_eq!(story.held(), held + wish.patterns().min(1) + 1);
    story.step("a member leaves", |story| {
        story.readers.pop().expect("a member").leaves(&mut story.desk);
        story.rest();
    });
    assert_eq!(story.held(), held + wish.patterns().min(1) + 1);
    story.steps
}

pub(super) fn all(size: Size, tries: usize) -> Vec<(String, Duration)> {
    let wishes =
        [("one pattern", Wish::All), ("two patterns", Wish::Halves), ("one list of topics", Wish::Listed)];
    let mut out = Vec::new();
    for (whose, wish) in wishes {
        let tried: Vec<_> = (0..tries).map(|_| story(wish, size)).collect();
        for place in 0..tried[0].len() {
            let best = tried.iter().map(|steps| steps[place].1).min().unwrap();
            out.push((format!("a consumer group with {whose}: {}", tried[0][place].0), best));
        }
    }
    out
}
