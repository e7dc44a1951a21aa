//! Drives the group coordinator: gives it time and events, makes its records durable in `__consumer_offsets`, and sends
//! its answers.
//!
//! Owned by control. Records of one partition are appended by its core one batch at a time, in the order the machine gave
//! them; what comes while one is under way goes together in the next. At start the topic is read back ([`loading`]), and
//! until that is done every request is told so. Never decides about a group.

mod batch;
mod loading;
mod matcher;
mod topic;

pub use ringmill_groups::{GroupConfig, Migration};
pub use topic::{OFFSETS_TOPIC, offsets_configs};

use crate::api::Reply;
use crate::configs::Resource;
use crate::control::Control;
use loading::Loading;
use matcher::Matcher;
use ringmill_core::{ConnKey, CoreQuery, CoreReply};
use ringmill_groups::{Answer, Event, Groups, Now, OwnConfig, Ticket, Write, WriteId};
use ringmill_metadata::Topic;
use ringmill_types::{ErrorCode, PartitionId, TopicId};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Record bytes in one append, unless a single write has more.
const BATCH_BYTES_MAX: usize = 512 << 10;

/// What the operator set.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    pub config: GroupConfig,
    /// `offsets.topic.num.partitions`
    pub partitions: i32,
    /// `offsets.topic.segment.bytes`
    pub segment_bytes: i64,
}

impl Default for GroupSettings {
    fn default() -> GroupSettings {
        GroupSettings { config: GroupConfig::default(), partitions: 50, segment_bytes: 100 << 20 }
    }
}

/// Makes the bytes of an answer; of the error alone when the coordinator was not asked or is gone.
pub(crate) type FinishGroup = Box<dyn FnOnce(Result<Answer, ErrorCode>) -> Reply + Send>;
/// Makes the event once the request has its number.
pub(crate) type AskGroup = Box<dyn FnOnce(Ticket) -> Event + Send>;

struct Parked {
    conn: ConnKey,
    slot: u64,
    finish: FinishGroup,
    /// An OffsetCommit: when it came.
    commit: Option<Instant>,
}

/// A partition of the topic, as far as there is work for it.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<Write>,
    under_way: Vec<WriteId>,
}

/// A query to a core.
enum Asked {
    Append(i32),
    Read(i32),
}

pub(crate) struct Coordinator {
    settings: GroupSettings,
    machine: Groups,
    loading: Option<Loading>,
    /// The broker stops: nothing new is decided.
    resigned: bool,
    began: Instant,
    parked: HashMap<Ticket, Parked>,
    tickets: u64,
    lanes: BTreeMap<i32, Lane>,
    asked: HashMap<u64, Asked>,
    matcher: Matcher,
}

impl Coordinator {
    pub fn new(settings: GroupSettings) -> Coordinator {
        let now = Now { mono_ms: 0, wall_ms: wall_ms() };
        let machine = Groups::new(settings.config.clone(), settings.partitions, now);
        Coordinator {
            settings,
            machine,
            loading: None,
            resigned: false,
            began: Instant::now(),
            parked: HashMap::new(),
            tickets: 0,
            lanes: BTreeMap::new(),
            asked: HashMap::new(),
            matcher: Matcher::default(),
        }
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.began.elapsed().as_millis() as u64, wall_ms: wall_ms() }
    }

    /// Groups as they are now.
    ///
    /// # Errors
    /// While they are not known, what the client is told.
    pub fn groups(&self) -> Result<&Groups, ErrorCode> {
        if self.resigned {
            Err(ErrorCode::NotCoordinator)
        } else if self.loading.is_some() {
            Err(ErrorCode::CoordinatorLoadInProgress)
        } else {
            Ok(&self.machine)
        }
    }

    /// When a pattern of a member has been matched elsewhere: tell the machine.
    pub async fn matched(&mut self) -> Option<Event> {
        self.matcher.next().await.map(Event::Matched)
    }

    #[cfg(test)]
    pub fn matched_now(&mut self) -> Option<Event> {
        self.matcher.next_now().map(Event::Matched)
    }

    /// The next result of what was handed out, however long that takes.
    #[cfg(test)]
    pub fn matched_soon(&mut self) -> Option<Event> {
        self.matcher.next_soon().map(Event::Matched)
    }

    /// When something is due although nobody asks.
    pub fn next_deadline(&self) -> Option<Instant> {
        let ready = self.groups().is_ok();
        let at_ms = self.machine.next_deadline_ms().filter(|_| ready)?;
        self.began.checked_add(Duration::from_millis(at_ms))
    }
}

impl Control {
    /// A request for the machine. Its answer leaves now, or when what it promises holds.
    pub(crate) fn coordinate(&mut self, conn: ConnKey, slot: u64, ask: AskGroup, finish: FinishGroup) {
        if let Err(error) = self.groups.groups() {
            return self.answer(conn, slot, finish(Err(error)));
        }
        self.groups.tickets += 1;
        let ticket = Ticket(self.groups.tickets);
        let event = ask(ticket);
        let commit = matches!(event, Event::Commit(..)).then(Instant::now);
        self.groups.parked.insert(ticket, Parked { conn, slot, finish, commit });
        self.groups_step(event);
    }

    /// Lets time pass.
    pub(crate) fn groups_due(&mut self) {
        if self.groups.next_deadline().is_some_and(|at| at <= Instant::now()) {
            self.groups_step(Event::Tick);
        }
    }

    pub(crate) fn groups_step(&mut self, event: Event) {
        let now = self.groups.now();
        let effects = self.groups.machine.step(event, now);
        for (ticket, answer) in effects.answers {
            if let Some(Parked { conn, slot, finish, commit }) = self.groups.parked.remove(&ticket) {
                if let Some(came) = commit {
                    self.counts.commit(came.elapsed());
                }
                self.answer(conn, slot, finish(Ok(answer)));
            }
        }
        for write in effects.writes {
            self.groups.lanes.entry(write.partition).or_default().waiting.push_back(write);
        }
        for matching in effects.matchings {
            self.groups.matcher.hand_out(matching);
        }
    }

    /// Hands waiting records to the cores. Called once per turn, so that what came together goes together.
    pub(crate) fn groups_flush(&mut self) {
        let idle = |lane: &Lane| lane.under_way.is_empty() && !lane.waiting.is_empty();
        let ready: Vec<i32> = self.groups.lanes.iter().filter(|(_, l)| idle(l)).map(|(p, _)| *p).collect();
        for partition in ready {
            let Some(place) = self.offsets_partition(partition) else {
                // It could not be made, or is gone.
                self.fail_lane(partition);
                continue;
            };
            let Some(lane) = self.groups.lanes.get_mut(&partition) else { continue };
            let mut batch = batch::Builder::new(wall_ms());
            while let Some(write) = lane.waiting.front()
                && (batch.is_empty() || batch.bytes() + batch::bytes_of(write) <= BATCH_BYTES_MAX)
                && let Some(write) = lane.waiting.pop_front()
            {
                lane.under_way.push(write.id);
                batch.push(&write.records);
            }
            let id = self.id();
            self.groups.asked.insert(id, Asked::Append(partition));
            let query = CoreQuery::Append { partition: place.id, batch: batch.finish() };
            self.send_query(place.core, id, query);
        }
    }

    fn fail_lane(&mut self, partition: i32) {
        let Some(lane) = self.groups.lanes.get_mut(&partition) else { return };
        for write in std::mem::take(&mut lane.waiting) {
            self.groups_step(Event::Failed(write.id, ErrorCode::CoordinatorNotAvailable));
        }
    }

    /// True when the reply was to a query of the coordinator.
    pub(crate) fn groups_reply(&mut self, id: u64, reply: CoreReply) -> Option<CoreReply> {
        match (self.groups.asked.remove(&id), reply) {
            (None, reply) => Some(reply),
            (Some(Asked::Append(partition)), CoreReply::Append(result)) => {
                let lane = self.groups.lanes.get_mut(&partition);
                let mut writes = Vec::new();
                if let Some(lane) = lane {
                    writes = std::mem::take(&mut lane.under_way);
                    if result.is_err() {
                        // What waits was decided on top of what is not stored now: it goes with it.
                        writes.extend(lane.waiting.drain(..).map(|write| write.id));
                    }
                }
                if let Err(error) = result {
                    tracing::warn!(%partition, ?error, "records of groups were not taken");
                }
                for write in writes {
                    self.groups_step(match result {
                        Ok(_) => Event::Durable(write),
                        Err(error) => Event::Failed(write, told(error)),
                    });
                }
                None
            }
            (Some(Asked::Read(partition)), CoreReply::Read(result)) => {
                self.offsets_read(partition, result);
                None
            }
            (Some(Asked::Append(_) | Asked::Read(_)), _) => None,
        }
    }

    /// Tells the machine of every topic, and of every group that has configs.
    fn groups_know_topics(&mut self) {
        let topics = self.image.topics().map(known).collect();
        self.groups_step(Event::Topics(topics));
        let groups: Vec<String> = self.image.resources(Resource::Group as i8).map(str::to_string).collect();
        groups.iter().for_each(|group| self.groups_configured(group));
    }

    /// A group has other configs from now on.
    pub(crate) fn groups_configured(&mut self, group: &str) {
        let configs = self.image.resource(Resource::Group as i8, group);
        let number = |name: &str| configs?.get(name)?.trim().parse().ok();
        let own = OwnConfig {
            consumer_session_timeout_ms: number("consumer.session.timeout.ms"),
            consumer_heartbeat_interval_ms: number("consumer.heartbeat.interval.ms"),
        };
        self.groups_step(Event::Configured(group.into(), own));
    }

    /// A topic was made, or has more partitions.
    pub(crate) fn groups_topics_changed(&mut self, topics: Vec<(std::sync::Arc<str>, TopicId, i32)>) {
        self.groups_step(Event::TopicsChanged(topics));
    }

    /// The broker stops: who waits for a group is sent elsewhere, which ends its wait.
    pub(crate) fn groups_resign(&mut self) {
        self.groups_step(Event::Resign);
        self.groups.resigned = true;
        if self.groups.loading.take().is_some() {
            tracing::info!("stopping before all groups were read");
        }
    }

    /// Topics are gone. Without its own topic the coordinator begins anew.
    pub(crate) fn groups_topics_deleted(&mut self, topics: Vec<std::sync::Arc<str>>) {
        if topics.iter().any(|t| **t == *OFFSETS_TOPIC) {
            tracing::warn!("{OFFSETS_TOPIC} was deleted: all groups and offsets are forgotten");
            let old = std::mem::replace(&mut self.groups, Coordinator::new(self.options.groups.clone()));
            for (_, Parked { conn, slot, finish, .. }) in old.parked {
                self.answer(conn, slot, finish(Err(ErrorCode::NotCoordinator)));
            }
            // Numbers are not used again: late replies belong to nobody.
            self.groups.tickets = old.tickets;
            self.groups_know_topics();
        } else if self.groups.groups().is_ok() {
            self.groups_step(Event::TopicsDeleted(topics));
        }
    }

    fn partition_ids(&self) -> Vec<(PartitionId, ringmill_types::CoreId)> {
        let topic = self.image.named(OFFSETS_TOPIC);
        topic.map(|t| t.partitions.iter().map(|p| (p.id, p.core)).collect()).unwrap_or_default()
    }
}

/// A topic as the coordinator has to know it.
pub(crate) fn known(topic: &Topic) -> (std::sync::Arc<str>, TopicId, i32) {
    (topic.name.clone(), topic.id, topic.partitions.len() as i32)
}

/// What a member is told when its records were refused, as Kafka's coordinator translates it.
fn told(error: ErrorCode) -> ErrorCode {
    if matches!(error, ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge | ErrorCode::InvalidRecord)
    {
        ErrorCode::UnknownServerError
    } else if matches!(error, ErrorCode::KafkaStorageError | ErrorCode::NotLeaderOrFollower) {
        ErrorCode::NotCoordinator
    } else {
        ErrorCode::CoordinatorNotAvailable
    }
}

fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
