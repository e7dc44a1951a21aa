//! The control loop: messages of cores in, decisions, answers out.
//!
//! A request is answered at once, or when every core has applied what it changed, or when the cores it asked have
//! answered. Each of these waits is an entry in a table with a deadline; nothing is awaited per request.

use crate::admin::{AdminConnection, AdminConnections, AdminPartition, AdminRequest, AdminTopic};
use crate::api::{self, Outcome, Reply};
use crate::configs::{self, BrokerDefaults, DynamicValues, Resource};
use crate::groups::{Coordinator, GroupSettings};
use crate::limits::{LimitsGiven, Work};
use crate::loggers::Loggers;
use crate::mutations::Mutations;
use crate::watch::Counts;
use ringmill_core::Fatal;
use ringmill_core::{
    Answer, ControlMessage, CoreLink, CoreMessage, CoreQuery, CoreReply, Frame, Live, PartitionSize,
    TopicDelta,
};
use ringmill_metadata::records::Configs;
use ringmill_metadata::{FileJournal, Image, Journal, Record, Topic};
use ringmill_reactor::Doorbell;
use ringmill_types::{CoreId, Offset, PartitionId, PartitionSpec, TopicConfig, TopicSpec};
use ringmill_wire::{RequestHeader, ResponseHead};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

/// How long a request waits for cores before it is answered with an error.
const CORES_TIMEOUT: Duration = Duration::from_secs(10);
/// A request that kept control from all others for longer is logged; a sync of the journal alone takes milliseconds.
const SLOW_REQUEST: Duration = Duration::from_millis(100);
/// Messages handled before the runtime gets a turn.
const BATCH_MAX: usize = 256;

/// Who this broker is and how it decides.
pub struct ControlOptions {
    pub node_id: i32,
    pub cluster_id: String,
    pub host: String,
    pub port: u16,
    pub cores: u16,
    pub num_partitions: i32,
    pub delete_topics: bool,
    pub partitions_max: usize,
    pub data_dir: std::path::PathBuf,
    pub defaults: BrokerDefaults,
    pub groups: GroupSettings,
    /// All settings as they stand, for `/v1/config`.
    pub settings: Vec<(String, String)>,
}

/// From outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlEvent {
    /// The signal to stop.
    Stop,
    /// Upkeep found a sealed segment damaged: the core that owns the partition decides what follows.
    SegmentDamaged(SegmentDamage),
}

/// A segment that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentDamage {
    /// Name of the partition's folder, `TOPIC-N`.
    pub folder: String,
    /// First offset of the segment.
    pub base: Offset,
    /// Goes on after "a sealed segment of TOPIC-N".
    pub what: String,
}

/// How control ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Stopped,
    /// A core met what it must not survive.
    Core(CoreId, Fatal),
    /// The control runtime cannot be woken by cores.
    Deaf(String),
}

/// A request that waits for cores.
struct Waiting {
    conn: ringmill_core::ConnKey,
    slot: u64,
    head: ResponseHead,
    since: Instant,
    kind: WaitKind,
}

enum WaitKind {
    /// Bytes ready; cores that have not yet applied this version.
    Applied { version: u64, left: HashSet<CoreId>, reply: Reply },
    /// Replies of cores, by query id; `finish` makes the answer of them.
    Replies {
        left: usize,
        replies: HashMap<u64, CoreReply>,
        finish: Box<dyn FnOnce(HashMap<u64, CoreReply>) -> Reply + Send>,
    },
}

type AdminReplies = Vec<(CoreId, CoreReply)>;

/// An admin request that waits for the cores.
struct AdminWait {
    left: usize,
    since: Instant,
    replies: AdminReplies,
    done: Box<dyn FnOnce(AdminReplies) + Send>,
}

pub struct Control {
    pub(crate) options: ControlOptions,
    pub(crate) image: Image,
    journal: FileJournal,
    pub(crate) links: Vec<CoreLink>,
    pub(crate) backlog: Vec<VecDeque<CoreMessage>>,
    version: u64,
    /// What each core said last to have of it; they begin with what version 0 has.
    applied: HashMap<CoreId, u64>,
    next_id: u64,
    waits: BTreeMap<u64, Waiting>,
    /// Query id to wait.
    asked: HashMap<u64, u64>,
    admin_waits: BTreeMap<u64, AdminWait>,
    admin_asked: HashMap<u64, u64>,
    stopping: bool,
    drained: HashSet<CoreId>,
    stopped: HashSet<CoreId>,
    fatal: Option<Ended>,
    /// Producer ids given out of the journaled block.
    pub(crate) producer_next: i64,
    pub(crate) groups: Coordinator,
    pub(crate) loggers: Loggers,
    pub(crate) limits: LimitsGiven,
    pub(crate) mutations: Mutations,
    pub(crate) counts: Counts,
}

/// The image as cores know it; `defaults` as they were at the start.
pub fn specs_of(image: &Image, defaults: &BrokerDefaults) -> Vec<TopicSpec> {
    let defaults = BrokerDefaults { dynamic: dynamic_of(image), ..defaults.clone() };
    image.topics().map(|topic| spec_of(topic, &defaults)).collect()
}

/// What was decided of broker configs. There is one broker: whatever has a name is it.
fn dynamic_of(image: &Image) -> DynamicValues {
    let kind = Resource::Broker as i8;
    let node = image.resources(kind).find(|name| !name.is_empty());
    let of = |name: &str| image.resource(kind, name).cloned().unwrap_or_default();
    DynamicValues { node: node.map(of).unwrap_or_default(), cluster: of("") }
}

/// What else cores go by, of an image; `cores` share what is counted for all together.
pub fn live_of(image: &Image, cores: u16) -> Arc<Live> {
    let defaults = BrokerDefaults { dynamic: dynamic_of(image), ..BrokerDefaults::default() };
    let number = |name: &str| defaults.dynamic_number(name);
    let connections = number("max.connections").and_then(|most| usize::try_from(most).ok());
    Arc::new(Live {
        features: ringmill_wire::features::shown(|name| image.feature(name), image.features_epoch()),
        connections_max: connections.map(|most| most.div_ceil(usize::from(cores.max(1)))),
        producer_expiration_ms: number("producer.id.expiration.ms"),
        slow_request_ms: number("slow.request.ms").and_then(|ms| u64::try_from(ms).ok()),
        quotas: crate::limits::any(image.quotas()),
        address_quotas: crate::limits::any_of_addresses(image.quotas()),
    })
}

fn spec_of(topic: &Topic, defaults: &BrokerDefaults) -> TopicSpec {
    TopicSpec { config: Arc::new(configs::effective(&topic.configs, defaults)), ..bare_spec(topic) }
}

/// With Kafka's defaults for a config.
fn bare_spec(topic: &Topic) -> TopicSpec {
    let partitions = topic.partitions.iter().zip(0..);
    TopicSpec {
        name: topic.name.clone(),
        id: topic.id,
        config: Arc::default(),
        partitions: partitions
            .map(|(p, index)| PartitionSpec { index, id: p.id, owner: p.core, leader_epoch: p.epoch })
            .collect(),
    }
}

/// Long.MAX in copied configs makes a topic relaxed that nobody meant to be, where the broker allows it.
fn say_if_relaxed(spec: &TopicSpec) {
    if !spec.config.is_durable() {
        tracing::warn!(
            topic = &*spec.name,
            "topic {} is relaxed (flush.messages={}): its acks precede the flush",
            spec.name,
            spec.config.flush_messages
        );
    }
}

/// Never, when there is nothing to wait for.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Which versions there are, for whoever reads the log because a client does not connect.
fn not_served(header: &RequestHeader<'_>) -> String {
    let (api, version) = (header.api_key, header.api_version);
    match ringmill_wire::supported::find(api) {
        Some(row) => format!(
            "a request {api} of version {version}; this broker serves {} to {}",
            row.served_min, row.max
        ),
        None => format!("a request {api} of version {version}; this broker does not have that API yet"),
    }
}

impl Control {
    pub fn new(
        mut options: ControlOptions,
        image: Image,
        journal: FileJournal,
        links: Vec<CoreLink>,
        loggers: Loggers,
    ) -> Control {
        options.defaults.dynamic = dynamic_of(&image);
        let backlog = links.iter().map(|_| VecDeque::new()).collect();
        let producer_next = image.next_producer();
        let groups = Coordinator::new(options.groups.clone());
        Control {
            options,
            image,
            journal,
            links,
            backlog,
            version: 0,
            applied: HashMap::new(),
            next_id: 1,
            waits: BTreeMap::new(),
            asked: HashMap::new(),
            admin_waits: BTreeMap::new(),
            admin_asked: HashMap::new(),
            stopping: false,
            drained: HashSet::new(),
            stopped: HashSet::new(),
            fatal: None,
            producer_next,
            groups,
            loggers,
            limits: LimitsGiven::default(),
            mutations: Mutations::default(),
            counts: Counts::default(),
        }
    }

    /// Runs until all cores have stopped or one must not go on.
    pub async fn run(
        mut self,
        bell: Doorbell,
        mut events: mpsc::Receiver<ControlEvent>,
        mut admin: mpsc::Receiver<AdminRequest>,
    ) -> Ended {
        // `new` is deprecated for types whose descriptor may close while it is watched; a doorbell owns its own until the
        // last clone is gone, and this clone lives as long as the watch. The replacement would be unsafe code here.
        #[expect(deprecated, reason = "the doorbell keeps its descriptor open")]
        let watched = match AsyncFd::new(bell.clone()) {
            Ok(watched) => watched,
            Err(error) => {
                return Ended::Deaf(error.to_string());
            }
        };
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        self.groups_load();
        loop {
            let busy = self.drain();
            self.groups_due();
            self.groups_flush();
            self.flush();
            if let Some(reason) = self.fatal.take() {
                return reason;
            }
            if self.stopping && self.stopped.len() == self.links.len() {
                return Ended::Stopped;
            }
            if busy || !bell.arm() {
                tokio::task::yield_now().await;
                continue;
            }
            let due = self.groups.next_deadline();
            tokio::select! {
                ready = watched.readable() => {
                    if let Ok(mut guard) = ready {
                        bell.clear();
                        guard.clear_ready();
                    }
                }
                Some(event) = events.recv() => self.event(event),
                Some(request) = admin.recv() => self.admin(request),
                _ = tick.tick() => self.expire(),
                Some(event) = self.groups.matched() => self.groups_step(event),
                () = sleep_until(due) => {}
            }
            bell.disarm();
        }
    }

    /// Handles what cores sent; true when there may be more.
    fn drain(&mut self) -> bool {
        let mut handled = 0;
        for at in 0..self.links.len() {
            while handled < BATCH_MAX
                && let Some(message) = self.links.get_mut(at).and_then(|l| l.from_core.pop().ok())
            {
                handled += 1;
                let began = Instant::now();
                self.message(message);
                self.counts.step(began.elapsed());
            }
        }
        handled >= BATCH_MAX
    }

    fn flush(&mut self) {
        for (link, backlog) in self.links.iter_mut().zip(&mut self.backlog) {
            let mut sent = false;
            while let Some(message) = backlog.pop_front() {
                if let Err(rtrb::PushError::Full(message)) = link.to_core.push(message) {
                    backlog.push_front(message);
                    break;
                }
                sent = true;
            }
            if sent {
                link.waker.wake();
            }
        }
    }

    pub(crate) fn send(&mut self, core: CoreId, message: CoreMessage) {
        if let Some(backlog) = self.backlog.get_mut(usize::from(core.0)) {
            backlog.push_back(message);
        }
    }

    pub(crate) fn send_query(&mut self, core: CoreId, id: u64, query: CoreQuery) {
        self.send(core, CoreMessage::Query { id, query });
    }

    fn message(&mut self, message: ControlMessage) {
        match message {
            ControlMessage::Frame(frame) => self.frame(frame),
            ControlMessage::Reply { core, id, reply } => self.reply(core, id, reply),
            ControlMessage::Applied { core, version } => self.applied(core, version),
            ControlMessage::Fatal { core, reason } => self.fatal = Some(Ended::Core(core, reason)),
            ControlMessage::Limits { core, client, now_ns } => self.tell_limits(core, client, now_ns),
            ControlMessage::Address { core, address, now_ns } => self.tell_rate(core, address, now_ns),
            ControlMessage::Drained { core } => self.drained(core),
            ControlMessage::Stopped { core, .. } => {
                self.stopped.insert(core);
            }
        }
    }

    fn frame(&mut self, frame: Frame) {
        let header = match RequestHeader::parse(&frame.bytes) {
            Ok(header) => header,
            Err(error) => {
                return self.refuse(&frame, format!("a request header that cannot be read: {error}"));
            }
        };
        if !ringmill_wire::supported::is_served(header.api_key, header.api_version) {
            return self.refuse(&frame, not_served(&header));
        }
        let head = header.response_head();
        let began = Instant::now();
        let outcome = api::handle(self, &header, &frame);
        let pause_ms = self.mutations.take_pause_ms();
        self.limits.worked(frame.conn, frame.slot, &self.image, (began, pause_ms));
        match outcome {
            Ok(Outcome::Now(reply)) => self.answer(frame.conn, frame.slot, reply),
            Ok(Outcome::Applied(reply)) => {
                let version = self.version;
                let lags = |core: &CoreId| self.applied.get(core).copied().unwrap_or(0) < version;
                let left: HashSet<CoreId> = self.links.iter().map(|l| l.core).filter(lags).collect();
                if left.is_empty() {
                    self.answer(frame.conn, frame.slot, reply);
                } else {
                    self.wait(frame.conn, frame.slot, head, WaitKind::Applied { version, left, reply });
                }
            }
            Ok(Outcome::Ask(queries, finish)) => self.ask(frame.conn, frame.slot, head, queries, finish),
            Ok(Outcome::Coordinate(ask, finish)) => self.coordinate(frame.conn, frame.slot, ask, finish),
            Err(error) => self.refuse(&frame, error),
        }
        let took = began.elapsed();
        if took > SLOW_REQUEST {
            tracing::warn!(
                api = header.api_key.name().unwrap_or("?"),
                ms = took.as_millis() as u64,
                "one request kept control busy for long"
            );
        }
    }

    /// The connection's core closes it, and logs why, as often as it logs such things.
    fn refuse(&mut self, frame: &Frame, reason: String) {
        let Work { busy_ns, pause_ms } = self.limits.work_of(frame.conn, frame.slot);
        self.send(
            frame.conn.core,
            CoreMessage::Answer(Answer {
                conn: frame.conn,
                slot: frame.slot,
                bytes: Vec::new(),
                refusal: Some(reason),
                failed: true,
                busy_ns,
                pause_ms,
            }),
        );
    }

    pub(crate) fn answer(&mut self, conn: ringmill_core::ConnKey, slot: u64, reply: Reply) {
        let Work { busy_ns, pause_ms } = self.limits.work_of(conn, slot);
        let Reply { bytes, failed } = reply;
        let answer = Answer { conn, slot, bytes, refusal: None, failed, busy_ns, pause_ms };
        self.send(conn.core, CoreMessage::Answer(answer));
    }

    pub(crate) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn wait(&mut self, conn: ringmill_core::ConnKey, slot: u64, head: ResponseHead, kind: WaitKind) -> u64 {
        let id = self.id();
        self.waits.insert(id, Waiting { conn, slot, head, since: Instant::now(), kind });
        id
    }

    fn ask(
        &mut self,
        conn: ringmill_core::ConnKey,
        slot: u64,
        head: ResponseHead,
        queries: Vec<(CoreId, CoreQuery)>,
        finish: api::Finish,
    ) {
        if queries.is_empty() {
            let reply = finish(HashMap::new());
            return self.answer(conn, slot, reply);
        }
        let left = queries.len();
        let wait = self.wait(conn, slot, head, WaitKind::Replies { left, replies: HashMap::new(), finish });
        for (ordinal, (core, query)) in queries.into_iter().enumerate() {
            let id = self.id();
            // The finisher knows its queries by their place in the list.
            self.asked.insert(id, wait << 16 | ordinal as u64 & 0xffff);
            self.send(core, CoreMessage::Query { id, query });
        }
    }

    fn reply(&mut self, core: CoreId, id: u64, reply: CoreReply) {
        let Some(reply) = self.groups_reply(id, reply) else { return };
        if let Some(wait) = self.admin_asked.remove(&id) {
            return self.admin_reply(core, wait, reply);
        }
        let Some(place) = self.asked.remove(&id) else { return };
        let (wait, ordinal) = (place >> 16, place & 0xffff);
        let Some(Waiting { kind: WaitKind::Replies { left, replies, .. }, .. }) = self.waits.get_mut(&wait)
        else {
            return;
        };
        replies.insert(ordinal, reply);
        *left -= 1;
        if *left == 0 {
            self.finish_wait(wait);
        }
    }

    fn finish_wait(&mut self, wait: u64) {
        let Some(waiting) = self.waits.remove(&wait) else { return };
        let reply = match waiting.kind {
            WaitKind::Applied { reply, .. } => reply,
            WaitKind::Replies { replies, finish, .. } => finish(replies),
        };
        self.answer(waiting.conn, waiting.slot, reply);
    }

    fn applied(&mut self, core: CoreId, version: u64) {
        self.applied.insert(core, version);
        let mut done = Vec::new();
        for (id, waiting) in &mut self.waits {
            if let WaitKind::Applied { version: wanted, left, .. } = &mut waiting.kind
                && *wanted <= version
            {
                left.remove(&core);
                if left.is_empty() {
                    done.push(*id);
                }
            }
        }
        for id in done {
            self.finish_wait(id);
        }
    }

    /// Answers what waited too long with what there is: finishers answer for cores that did not.
    fn expire(&mut self) {
        self.groups_retry_load();
        let late: Vec<u64> =
            self.waits.iter().filter(|(_, w)| w.since.elapsed() > CORES_TIMEOUT).map(|(id, _)| *id).collect();
        for id in late {
            if let Some(waiting) = self.waits.get(&id) {
                tracing::warn!(
                    api = waiting.head.api_key.name().unwrap_or("?"),
                    "a core did not answer control in time; see /v1/cores"
                );
            }
            self.finish_wait(id);
        }
        let late: Vec<u64> = self
            .admin_waits
            .iter()
            .filter(|(_, w)| w.since.elapsed() > Duration::from_secs(1))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            if let Some(wait) = self.admin_waits.remove(&id) {
                (wait.done)(wait.replies);
            }
        }
    }

    /// Makes records durable, applies them, and publishes what changed for cores.
    pub(crate) fn decide(&mut self, records: &[Record]) -> Result<(), ringmill_metadata::JournalError> {
        self.journal.append(records)?;
        let mut delta = TopicDelta::default();
        let mut gone = Vec::new();
        let mut live = false;
        let mut known = Vec::new();
        let mut groups = Vec::new();
        for record in records {
            if let Record::TopicDeleted { id } = record {
                gone.extend(self.image.with_id(*id).map(|t| t.name.clone()));
            }
            self.image.apply(record);
            let changed = match record {
                Record::TopicCreated { id, .. }
                | Record::PartitionsAdded { id, .. }
                | Record::TopicConfigs { id, .. } => Some(*id),
                Record::TopicDeleted { id } => {
                    delta.deletes.push(*id);
                    None
                }
                Record::ResourceConfigs { kind, name, .. } => {
                    live = true;
                    groups.extend((*kind == Resource::Group as i8).then_some(name.as_str()));
                    None
                }
                Record::ClientQuotas { .. } | Record::Feature { .. } => {
                    live = true;
                    None
                }
                Record::ProducerIds { .. } | Record::PartitionIds { .. } | Record::Placed { .. } => None,
            };
            if let Some(topic) = changed.and_then(|id| self.image.with_id(id)) {
                let spec = spec_of(topic, &self.options.defaults);
                say_if_relaxed(&spec);
                delta.upserts.push(spec);
                known.push(crate::groups::known(topic));
            }
        }
        if let Err(error) = self.journal.compact_if_large(&self.image) {
            tracing::warn!(%error, "the metadata journal could not be rewritten; it goes on growing");
        }
        if live {
            delta.live = Some(live_of(&self.image, self.options.cores));
            self.take_up_defaults(&mut delta);
        }
        if delta.upserts.is_empty() && delta.deletes.is_empty() && delta.live.is_none() {
            return Ok(());
        }
        self.version += 1;
        delta.version = self.version;
        let delta = Arc::new(delta);
        for core in 0..self.links.len() as u16 {
            self.send(CoreId(core), CoreMessage::Topics(delta.clone()));
        }
        if !gone.is_empty() {
            self.groups_topics_deleted(gone);
        }
        if !known.is_empty() {
            self.groups_topics_changed(known);
        }
        groups.into_iter().for_each(|group| self.groups_configured(group));
        Ok(())
    }

    /// Broker configs changed: topics that say nothing themselves may have others from now on.
    fn take_up_defaults(&mut self, delta: &mut TopicDelta) {
        let dynamic = dynamic_of(&self.image);
        if self.options.defaults.dynamic == dynamic {
            return;
        }
        let before = self.options.defaults.clone();
        self.options.defaults.dynamic = dynamic;
        // Most topics have the same overrides, none; each set is worked out once.
        let mut known: HashMap<&Configs, Option<Arc<TopicConfig>>> = HashMap::new();
        for topic in self.image.topics() {
            let changed = known.entry(&topic.configs).or_insert_with(|| {
                let now = configs::effective(&topic.configs, &self.options.defaults);
                (now != configs::effective(&topic.configs, &before)).then(|| Arc::new(now))
            });
            if let Some(config) = changed {
                delta.upserts.retain(|spec| spec.id != topic.id);
                delta.upserts.push(TopicSpec { config: config.clone(), ..bare_spec(topic) });
            }
        }
    }

    fn event(&mut self, event: ControlEvent) {
        match event {
            ControlEvent::Stop => self.stop(),
            ControlEvent::SegmentDamaged(damage) => self.segment_damaged(damage),
        }
    }

    /// Tells the owner of the partition; a topic deleted meanwhile has none.
    fn segment_damaged(&mut self, damage: SegmentDamage) {
        let Some((topic, index)) = damage.folder.rsplit_once('-') else { return };
        let place = index.parse::<usize>().ok().and_then(|at| self.image.named(topic)?.partitions.get(at));
        let Some((core, partition)) = place.map(|p| (p.core, p.id)) else { return };
        let SegmentDamage { base, what, .. } = damage;
        self.send(core, CoreMessage::SegmentDamaged { partition, base, what });
    }

    fn stop(&mut self) {
        if !self.stopping {
            self.stopping = true;
            self.groups_resign();
            for core in 0..self.links.len() as u16 {
                self.send(CoreId(core), CoreMessage::Stop);
            }
        }
    }

    /// A core may still append to another's log for its clients: logs end only when no core has such work.
    fn drained(&mut self, core: CoreId) {
        self.drained.insert(core);
        if self.drained.len() == self.links.len() {
            for core in 0..self.links.len() as u16 {
                self.send(CoreId(core), CoreMessage::Finish);
            }
        }
    }

    fn admin(&mut self, request: AdminRequest) {
        match request {
            AdminRequest::Ready(reply) => {
                // Nobody waits for an answer that arrives late, here and below.
                let _ = reply.send(!self.stopping);
            }
            AdminRequest::Control(reply) => {
                let _ = reply.send(Box::new(self.numbers()));
            }
            AdminRequest::Config(reply) => {
                let _ = reply.send(self.options.settings.clone());
            }
            AdminRequest::Metrics(reply) => self.ask_all(
                || CoreQuery::Metrics,
                move |replies| {
                    let metrics = replies.into_iter().filter_map(|(core, r)| {
                        if let CoreReply::Metrics(m) = r { Some((core, m)) } else { None }
                    });
                    let _ = reply.send(metrics.collect());
                },
            ),
            AdminRequest::Dump(reply) => {
                let cores: Vec<CoreId> = self.links.iter().map(|l| l.core).collect();
                self.ask_all(
                    || CoreQuery::Dump,
                    move |replies| {
                        let mut texts: HashMap<CoreId, String> = replies
                            .into_iter()
                            .filter_map(
                                |(core, r)| if let CoreReply::Dump(t) = r { Some((core, t)) } else { None },
                            )
                            .collect();
                        let _ =
                            reply.send(cores.into_iter().map(|core| (core, texts.remove(&core))).collect());
                    },
                );
            }
            AdminRequest::Topics(reply) => self.admin_topics(reply),
            AdminRequest::Connections(reply) => self.ask_all(
                || CoreQuery::Connections,
                move |replies| {
                    let mut all = AdminConnections::default();
                    for (_, of_core) in replies {
                        if let CoreReply::Connections { count, shown } = of_core {
                            all.connections += count;
                            all.shown.extend(shown.into_iter().map(AdminConnection::from));
                        }
                    }
                    let _ = reply.send(all);
                },
            ),
        }
    }

    fn admin_topics(&mut self, reply: oneshot::Sender<Vec<AdminTopic>>) {
        let topics: Vec<Topic> = self.image.topics().cloned().collect();
        let defaults = self.options.defaults.clone();
        self.ask_all(
            || CoreQuery::Sizes,
            move |replies| {
                let mut sizes: HashMap<PartitionId, PartitionSize> = HashMap::new();
                for (_, reply) in replies {
                    if let CoreReply::Sizes(list) = reply {
                        sizes.extend(list.into_iter().map(|s| (s.partition, s)));
                    }
                }
                let topics = topics.into_iter().map(|topic| {
                    let relaxed = !configs::effective(&topic.configs, &defaults).is_durable();
                    let partitions = topic.partitions.iter().zip(0..);
                    let partitions = partitions
                        .map(|(p, index)| AdminPartition::new(index, p.id, p.core, relaxed, sizes.get(&p.id)))
                        .collect();
                    AdminTopic {
                        name: topic.name.to_string(),
                        id: topic.id.to_base64(),
                        partitions,
                        config: topic.configs,
                    }
                });
                let _ = reply.send(topics.collect());
            },
        );
    }

    fn ask_all(&mut self, query: impl Fn() -> CoreQuery, done: impl FnOnce(AdminReplies) + Send + 'static) {
        let wait = self.id();
        self.admin_waits.insert(
            wait,
            AdminWait {
                left: self.links.len(),
                since: Instant::now(),
                replies: Vec::new(),
                done: Box::new(done),
            },
        );
        for core in 0..self.links.len() as u16 {
            let id = self.id();
            self.admin_asked.insert(id, wait);
            self.send(CoreId(core), CoreMessage::Query { id, query: query() });
        }
    }

    fn admin_reply(&mut self, core: CoreId, wait: u64, reply: CoreReply) {
        let Some(entry) = self.admin_waits.get_mut(&wait) else { return };
        entry.replies.push((core, reply));
        entry.left -= 1;
        if entry.left == 0
            && let Some(wait) = self.admin_waits.remove(&wait)
        {
            (wait.done)(wait.replies);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod stalls;
