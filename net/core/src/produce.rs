//! Produce: every partition's batch goes to its owner's log; the answer leaves when all are as safe as they asked for.
//!
//! A request that meets no room keeps its place and its bytes, and goes on when the log says so; its connection is not
//! read meanwhile, others are.

mod unpack;

use crate::closing::Closing;
use crate::conn::{AnswerState, FrameBytes};
use crate::core::Core;
use crate::messages::{ControlMessage, CoreReply};
use crate::metrics::ApiKind;
use crate::peer::{Asker, PeerMessage, Refused, RemoteAppend, RemoteDone};
use crate::served::Served;
use crate::slab::Key;
use crate::topics::TopicName;
use ringmill_log::examine;
use ringmill_log::{AckAt, AppendError, Appended, Slot};
use ringmill_reactor::{Backend, Buf};
use ringmill_record::{BadRecords, BatchHeader, Produced, validate_produced};
use ringmill_types::internal::is_internal;
use ringmill_types::{CoreId, ErrorCode, GroupSeq, PartitionId, TopicSpec};
use ringmill_wire::produce::{
    ProducePartition, ProducePartitionAnswer, ProduceRequest, ProduceResponse, RecordError,
};
use ringmill_wire::{ApiKey, RequestHeader, ResponseHead, TopicRef};
use std::ops::Range;
use std::sync::Arc;

/// Longest a produce waits for room, whatever the client's timeout.
const ROOM_WAIT_MS_MAX: u64 = 30_000;

/// Whoever calls itself that may write to internal topics, as in Kafka.
const ADMIN_CLIENT: &[u8] = b"__admin_client";

/// Who takes a batch.
#[derive(Clone, Copy, Debug)]
enum Owner {
    Local(Slot),
    Remote(CoreId, PartitionId),
    /// Refused before it reached a log.
    Nobody,
}

struct Part {
    topic: u32,
    index: i32,
    records: Range<usize>,
    owner: Owner,
    answer: ProducePartitionAnswer<'static>,
    /// Set: the batch is unpacked before it may be appended; the rules it is judged by.
    unpack: Option<Arc<TopicSpec>>,
    /// What the batch was found to be, where it was unpacked.
    produced: Option<Produced>,
    /// Its bytes in the topic's compression, where it came in another.
    packed: Option<Buf>,
    /// Records at fault, named in the answer.
    bad: Option<Box<BadRecords>>,
}

impl Part {
    /// Nobody's yet.
    fn of(topic: u32, partition: &ProducePartition<'_>) -> Part {
        let from = partition.records_at;
        Part {
            topic,
            index: partition.index,
            records: from..from + partition.records.map_or(0, <[u8]>::len),
            owner: Owner::Nobody,
            answer: ProducePartitionAnswer::error(partition.index, ErrorCode::None),
            unpack: None,
            produced: None,
            packed: None,
            bad: None,
        }
    }

    fn refuse(&mut self, refused: Refused) {
        match refused {
            Refused::With(code, text) => {
                self.answer.error = code;
                self.answer.error_message = (!text.is_empty()).then_some(text);
            }
            Refused::BadRecords(bad) => {
                self.answer.error = bad.code;
                self.bad = Some(bad);
            }
        }
    }
}

/// One produce request on its way.
pub(crate) struct ProducePending {
    conn: Key,
    slot: u64,
    head: ResponseHead,
    acks: i16,
    frame: FrameBytes,
    topics: Vec<TopicName>,
    parts: Vec<Part>,
    /// First part not yet handed to a log.
    next: usize,
    /// Conditions still open: groups of this core, answers of others.
    waits: u32,
    deadline_ns: u64,
    began_ns: u64,
    receive_us: u64,
}

impl ProducePending {
    /// Where its time went so far.
    fn served(&self, now_ns: u64) -> Served {
        let topic = self.topics.first().filter(|_| self.parts.len() == 1);
        Served {
            api: ApiKey::PRODUCE,
            receive_us: self.receive_us,
            wait_us: now_ns.saturating_sub(self.began_ns) / 1000,
            poll_us: 0,
            partitions: Some(self.parts.len() as u32),
            topic: topic.cloned(),
        }
    }
}

/// An append that another core asked for and that waits here: for room, or for its group.
pub(crate) struct RemoteWork {
    append: RemoteAppend,
    done: Option<Appended>,
}

impl<B: Backend> Core<B> {
    pub(crate) fn handle_produce(&mut self, key: Key, frame: FrameBytes) -> bool {
        let now_ns = self.now_ns;
        let plan = match self.plan_produce(&frame) {
            Ok(plan) => plan,
            Err(reason) => return self.refuse(key, ApiKind::Produce, reason),
        };
        let Some(conn) = self.conns.get_mut(key) else { return false };
        let (slot, receive_us) = (conn.reserve(), conn.received_us);
        let wait_ms = u64::from(plan.timeout_ms.max(0) as u32).min(ROOM_WAIT_MS_MAX);
        let pending = self.produces.insert(|_| ProducePending {
            conn: key,
            slot,
            head: plan.head,
            acks: plan.acks,
            frame,
            topics: plan.topics,
            parts: plan.parts,
            next: 0,
            waits: 0,
            deadline_ns: now_ns + wait_ms * 1_000_000,
            began_ns: now_ns,
            receive_us,
        });
        self.count_produce(key, pending);
        if self.unpack(pending) {
            return true;
        }
        if !self.stalled.is_empty() {
            self.stall(pending);
            return true;
        }
        self.run_produce(pending);
        self.conns.get(key).is_some()
    }

    /// Parses the whole request before anything happens, and finds every partition's owner.
    fn plan_produce(&self, frame: &[u8]) -> Result<Plan, Closing> {
        let header = RequestHeader::parse(frame).map_err(Closing::Header)?;
        let request = ProduceRequest::parse(&header, frame).map_err(|error| Closing::Request {
            api: header.api_key,
            version: header.api_version,
            error,
        })?;
        let mut plan = Plan {
            head: header.response_head(),
            acks: request.acks,
            timeout_ms: request.timeout_ms,
            topics: Vec::new(),
            parts: Vec::new(),
        };
        let refusal = refused_as_a_whole(&request);
        for topic in request.topics() {
            let (name, known) = match topic.topic {
                TopicRef::Name(name) => {
                    let known = self.topics.named(name).ok_or(ErrorCode::UnknownTopicOrPartition);
                    (TopicName::Name(name.into()), known)
                }
                TopicRef::Id(id) => {
                    (TopicName::Id(id), self.topics.with_id(id).ok_or(ErrorCode::UnknownTopicId))
                }
            };
            let known = refusal.map_or(known, Err);
            let at = plan.topics.len() as u32;
            plan.topics.push(name);
            for partition in topic.partitions() {
                let mut part = Part::of(at, &partition);
                let owner = known.map_err(|code| Refused::With(code, ""));
                match owner.and_then(|spec| Ok((spec, self.owner_of(spec, &partition, header.client_id)?))) {
                    Ok((spec, owner)) => {
                        part.owner = owner;
                        let records = partition.records.unwrap_or_default();
                        part.unpack = examine::needs_unpacking(&spec.config, records).then(|| spec.clone());
                    }
                    Err(refused) => part.refuse(refused),
                }
                plan.parts.push(part);
            }
        }
        Ok(plan)
    }

    /// Whose log takes what is produced to this partition.
    fn owner_of(
        &self,
        topic: &TopicSpec,
        partition: &ProducePartition<'_>,
        client_id: Option<&[u8]>,
    ) -> Result<Owner, Refused> {
        const UNKNOWN: Refused = Refused::With(ErrorCode::UnknownTopicOrPartition, "");
        let index = usize::try_from(partition.index).ok();
        let found = index.and_then(|index| topic.partitions.get(index)).ok_or(UNKNOWN)?;
        if is_internal(&topic.name) && client_id != Some(ADMIN_CLIENT) {
            return Err(Refused::With(ErrorCode::InvalidTopicException, ""));
        }
        if is_transactional(partition.records) {
            // There are no transactions yet, so no transactional id has a producer.
            const WHY: &str = "this broker has no transactions yet";
            return Err(Refused::With(ErrorCode::InvalidProducerIdMapping, WHY));
        }
        if found.owner == self.settings.id {
            self.log.slot_of(found.id).map(Owner::Local).ok_or(UNKNOWN)
        } else {
            Ok(Owner::Remote(found.owner, found.id))
        }
    }

    fn count_produce(&mut self, conn: Key, pending: Key) {
        let Some(request) = self.produces.get(pending) else { return };
        let (mut own, mut foreign, mut owner) = (0, 0, None);
        for part in &request.parts {
            match part.owner {
                Owner::Local(_) => own += part.records.len() as u64,
                Owner::Remote(core, _) => {
                    foreign += part.records.len() as u64;
                    owner = Some(core);
                }
                Owner::Nobody => {}
            }
        }
        self.count_bytes(conn, own, foreign, owner);
    }

    /// Hands parts to their logs until all are, or one meets no room.
    fn run_produce(&mut self, key: Key) {
        let (id, wall_ms) = (self.settings.id, self.io.wall_ms());
        let (mut durable, mut sealed) = (None, None);
        loop {
            let Some(pending) = self.produces.get_mut(key) else { return };
            let (version, deadline_ns, at) = (pending.head.api_version, pending.deadline_ns, pending.next);
            let Some(part) = pending.parts.get_mut(at) else { break };
            match part.owner {
                Owner::Nobody => {}
                Owner::Remote(core, partition) => {
                    let range = part.records.clone();
                    let records = match part.packed.take() {
                        Some(packed) => packed,
                        None => pending.frame.share().slice(range.start, range.end),
                    };
                    let produced = part.produced;
                    pending.waits += 1;
                    self.tell_peer(
                        core,
                        PeerMessage::Append(RemoteAppend {
                            asker: Asker::Core { from: id, key, part: at as u32 },
                            partition,
                            records,
                            produced,
                            deadline_ns,
                        }),
                    );
                }
                Owner::Local(slot) => {
                    let records: &[u8] = match &part.packed {
                        Some(packed) => packed,
                        None => pending.frame.get(part.records.clone()).unwrap_or_default(),
                    };
                    let batch = (records, part.produced);
                    match append_one(&mut self.log, &mut self.io, slot, batch, version, wall_ms) {
                        Ok((appended, count)) => {
                            self.metrics.records_in += count;
                            self.metrics.batches_in += 1;
                            part.packed = None;
                            part.answer.take(&appended);
                            match appended.ack {
                                AckAt::Now => {}
                                AckAt::Durable(group) => durable = durable.max(Some(group)),
                                AckAt::Sealed(group) => sealed = sealed.max(Some(group)),
                            }
                        }
                        Err(AppendError::Refused(code, text)) => part.refuse(Refused::With(code, text)),
                        Err(AppendError::BadRecords(bad)) => part.refuse(Refused::BadRecords(bad)),
                        Err(AppendError::Busy) => {
                            self.wait_for_groups(key, durable, sealed);
                            self.stall(key);
                            return;
                        }
                    }
                }
            }
            if let Some(pending) = self.produces.get_mut(key) {
                pending.next += 1;
            }
        }
        // Every log has its copy now, other cores hold their own references: the received bytes need not wait for the disk.
        if let Some(pending) = self.produces.get_mut(key) {
            pending.frame = FrameBytes::Small(Vec::new());
        }
        self.wait_for_groups(key, durable, sealed);
        self.finish_if_done(key);
    }

    fn wait_for_groups(&mut self, key: Key, durable: Option<GroupSeq>, sealed: Option<GroupSeq>) {
        let Some(pending) = self.produces.get_mut(key) else { return };
        if let Some(group) = durable {
            pending.waits += 1;
            insert_in_order(&mut self.durable_queue, group, key);
        }
        if let Some(group) = sealed {
            pending.waits += 1;
            insert_in_order(&mut self.sealed_queue, group, key);
        }
    }

    fn stall(&mut self, key: Key) {
        let Some(pending) = self.produces.get(key) else { return };
        if let Some(conn) = self.conns.get_mut(pending.conn)
            && !conn.stalled
        {
            conn.stalled = true;
            self.metrics.muted_connections += 1;
        }
        self.stalled.push_back(key);
    }

    /// The log has room: stalled requests go on, oldest first.
    pub(crate) fn room(&mut self) {
        // A connection that goes on may stall another of its requests behind these: the log says "room" once, so those
        // are tried too.
        while let Some(key) = self.stalled.pop_front() {
            let Some(pending) = self.produces.get(key) else { continue };
            let conn_key = pending.conn;
            self.run_produce(key);
            if self.stalled.back() == Some(&key) {
                // Still no room: it keeps its place at the head.
                self.stalled.rotate_right(1);
                return;
            }
            self.unstall(conn_key);
        }
        while let Some(work) = self.remote_work.pop_front() {
            if let Some(work) = self.try_remote(work) {
                self.remote_work.push_front(work);
                return;
            }
        }
    }

    fn unstall(&mut self, key: Key) {
        if let Some(conn) = self.conns.get_mut(key)
            && conn.stalled
        {
            conn.stalled = false;
            self.metrics.muted_connections -= 1;
            self.advance_input(key);
        }
    }

    /// Requests that waited too long for room are answered retriably.
    pub(crate) fn expire_stalled(&mut self) {
        let now_ns = self.now_ns;
        let late: Vec<Key> = self
            .stalled
            .iter()
            .copied()
            .filter(|k| self.produces.get(*k).is_none_or(|p| now_ns >= p.deadline_ns))
            .collect();
        if late.is_empty() {
            return;
        }
        self.stalled.retain(|k| !late.contains(k));
        for key in late {
            let Some(pending) = self.produces.get_mut(key) else { continue };
            let conn = pending.conn;
            for part in pending.parts.iter_mut().skip(pending.next) {
                part.answer.error = ErrorCode::RequestTimedOut;
                part.answer.error_message = Some("the broker had no room for the batch in time");
            }
            pending.next = pending.parts.len();
            self.finish_if_done(key);
            self.unstall(conn);
        }
    }

    pub(crate) fn groups_durable(&mut self, upto: GroupSeq) {
        while self.durable_queue.front().is_some_and(|(group, _)| *group <= upto) {
            let Some((_, key)) = self.durable_queue.pop_front() else { break };
            self.condition_met(key);
        }
        while self.remote_durable.front().is_some_and(|(group, _)| *group <= upto) {
            let Some((_, work)) = self.remote_durable.pop_front() else { break };
            self.answer_remote(work);
        }
    }

    pub(crate) fn groups_sealed(&mut self, upto: GroupSeq) {
        while self.sealed_queue.front().is_some_and(|(group, _)| *group <= upto) {
            let Some((_, key)) = self.sealed_queue.pop_front() else { break };
            self.condition_met(key);
        }
        while self.remote_sealed.front().is_some_and(|(group, _)| *group <= upto) {
            let Some((_, work)) = self.remote_sealed.pop_front() else { break };
            self.answer_remote(work);
        }
    }

    fn condition_met(&mut self, key: Key) {
        if let Some(pending) = self.produces.get_mut(key) {
            assert!(pending.waits > 0, "a condition is met once");
            pending.waits -= 1;
            self.finish_if_done(key);
        }
    }

    fn finish_if_done(&mut self, key: Key) {
        let done = self.produces.get(key).is_some_and(|p| p.waits == 0 && p.next == p.parts.len());
        if !done {
            return;
        }
        let Some(pending) = self.produces.remove(key) else { return };
        let served = pending.served(self.now_ns);
        let failed = pending.parts.iter().map(|p| &p.answer).find(|a| a.error != ErrorCode::None);
        self.metrics.produce.answered(served.wait_us, failed.is_some());
        if pending.acks == 0 || self.conns.get(pending.conn).is_none() {
            self.look_if_slow(pending.conn, &served);
        }
        if pending.acks == 0 {
            if let Some(answer) = failed {
                // The client asked for no answer; closing is the only way to tell it.
                let (error, why) = (answer.error, answer.error_message.unwrap_or_default());
                self.answer_nothing(pending.conn, pending.slot, Closing::Unacked { error, why });
            } else {
                self.answer(pending.conn, pending.slot, AnswerState::Nothing);
            }
            return;
        }
        let throttle_ms = self.conns.get(pending.conn).map_or(0, |conn| conn.throttle_ms(self.now_ns));
        let bytes = encode(&pending, throttle_ms);
        self.answer(pending.conn, pending.slot, AnswerState::Ready(vec![Buf::from_vec(bytes)], served));
    }

    /// Another core's client produced to a partition of ours.
    pub(crate) fn remote_append(&mut self, append: RemoteAppend) {
        let work = RemoteWork { append, done: None };
        if !self.remote_work.is_empty() {
            self.remote_work.push_back(work);
            return;
        }
        if let Some(work) = self.try_remote(work) {
            self.remote_work.push_back(work);
        }
    }

    /// Gives the work back when there is no room.
    fn try_remote(&mut self, mut work: RemoteWork) -> Option<RemoteWork> {
        let wall_ms = self.io.wall_ms();
        let Some(slot) = self.log.slot_of(work.append.partition) else {
            self.refuse_remote(work, Refused::With(ErrorCode::UnknownTopicOrPartition, ""));
            return None;
        };
        let batch = (&*work.append.records, work.append.produced);
        match append_one(&mut self.log, &mut self.io, slot, batch, i16::MAX, wall_ms) {
            Ok((appended, count)) => {
                self.metrics.records_in += count;
                self.metrics.batches_in += 1;
                work.done = Some(appended);
                match appended.ack {
                    AckAt::Now => self.answer_remote(work),
                    AckAt::Durable(group) => self.remote_durable.push_back((group, work)),
                    AckAt::Sealed(group) => self.remote_sealed.push_back((group, work)),
                }
                None
            }
            Err(AppendError::Refused(code, text)) => {
                self.refuse_remote(work, Refused::With(code, text));
                None
            }
            Err(AppendError::BadRecords(bad)) => {
                self.refuse_remote(work, Refused::BadRecords(bad));
                None
            }
            Err(AppendError::Busy) if self.now_ns >= work.append.deadline_ns => {
                const WHY: &str = "the broker had no room for the batch in time";
                self.refuse_remote(work, Refused::With(ErrorCode::RequestTimedOut, WHY));
                None
            }
            Err(AppendError::Busy) => Some(work),
        }
    }

    fn answer_remote(&mut self, work: RemoteWork) {
        let Some(appended) = work.done else { return };
        self.tell_asker(work.append, Ok(RemoteDone { appended }));
    }

    fn refuse_remote(&mut self, work: RemoteWork, refused: Refused) {
        self.tell_asker(work.append, Err(refused));
    }

    fn tell_asker(&mut self, append: RemoteAppend, result: Result<RemoteDone, Refused>) {
        match append.asker {
            Asker::Core { from, key, part } => {
                let give_back = append.records;
                self.tell_peer(from, PeerMessage::Appended { key, part, result, give_back });
            }
            Asker::Control { id } => {
                let core = self.settings.id;
                let result = result.map(|done| done.appended.base_offset).map_err(|refused| match refused {
                    Refused::With(code, _) => code,
                    Refused::BadRecords(bad) => bad.code,
                });
                let reply = CoreReply::Append(result);
                self.tell_control(ControlMessage::Reply { core, id, reply });
            }
        }
    }

    /// Control's own records take the way of another core's.
    pub(crate) fn append_for_control(&mut self, id: u64, partition: PartitionId, batch: Vec<u8>) {
        self.remote_append(RemoteAppend {
            asker: Asker::Control { id },
            partition,
            records: Buf::from_vec(batch),
            produced: None,
            deadline_ns: self.now_ns + ROOM_WAIT_MS_MAX * 1_000_000,
        });
    }

    pub(crate) fn remote_appended(&mut self, key: Key, part: u32, result: Result<RemoteDone, Refused>) {
        let Some(pending) = self.produces.get_mut(key) else { return };
        if let Some(part) = pending.parts.get_mut(part as usize) {
            match result {
                Ok(done) => part.answer.take(&done.appended),
                Err(refused) => part.refuse(refused),
            }
        }
        self.condition_met(key);
    }
}

/// What Kafka refuses for all partitions at once, before it looks at anything else.
fn refused_as_a_whole(request: &ProduceRequest<'_>) -> Option<ErrorCode> {
    let mut parts = request.topics().flat_map(|topic| topic.partitions());
    if request.transactional_id.is_none() && parts.any(|p| is_transactional(p.records)) {
        Some(ErrorCode::TransactionalIdAuthorizationFailed)
    } else if !(-1..=1).contains(&request.acks) {
        Some(ErrorCode::InvalidRequiredAcks)
    } else {
        None
    }
}

/// What lies first in `records` is part of a transaction. Never true of a batch that could be stored otherwise: what
/// is no batch is refused by its validation.
fn is_transactional(records: Option<&[u8]>) -> bool {
    records.and_then(BatchHeader::parse).is_some_and(|header| header.magic == 2 && header.is_transactional())
}

struct Plan {
    head: ResponseHead,
    acks: i16,
    timeout_ms: i32,
    topics: Vec<TopicName>,
    parts: Vec<Part>,
}

trait TakeAppended {
    fn take(&mut self, appended: &Appended);
}

impl TakeAppended for ProducePartitionAnswer<'_> {
    fn take(&mut self, appended: &Appended) {
        self.base_offset = appended.base_offset;
        self.log_append_time_ms = appended.log_append_ms.unwrap_or(-1);
        self.log_start_offset = appended.log_start;
    }
}

/// Groups are given out in order, but a stalled request may register late: keep the queue sorted from the back.
fn insert_in_order(queue: &mut std::collections::VecDeque<(GroupSeq, Key)>, group: GroupSeq, key: Key) {
    let at = queue.iter().rposition(|(g, _)| *g <= group).map_or(0, |at| at + 1);
    queue.insert(at, (group, key));
}

/// Validates one partition's records and appends them.
fn append_one<B: Backend>(
    log: &mut ringmill_log::Log,
    io: &mut B,
    slot: Slot,
    (records, produced): (&[u8], Option<Produced>),
    version: i16,
    wall_ms: i64,
) -> Result<(Appended, u64), AppendError> {
    let produced = match produced {
        Some(produced) => produced,
        None => validate_produced(Some(records), version)
            .map_err(|refusal| AppendError::Refused(refusal.code(), refusal.text()))?,
    };
    log.append_produced(io, slot, &produced, records, wall_ms)
        .map(|appended| (appended, produced.header.record_count as u64))
}

fn encode(pending: &ProducePending, throttle_ms: i32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut response = ProduceResponse::begin(&mut out, pending.head, pending.topics.len());
    let mut at = 0;
    for (topic, name) in pending.topics.iter().enumerate() {
        let end = at + pending.parts.iter().skip(at).take_while(|p| p.topic as usize == topic).count();
        let parts = pending.parts.get(at..end).unwrap_or_default();
        response.topic(name.as_ref(), parts.len());
        for part in parts {
            assert_eq!(part.index, part.answer.index, "answers stay with their partitions");
            let Some(bad) = &part.bad else {
                response.partition(&part.answer);
                continue;
            };
            let record_errors: Vec<_> = bad
                .records
                .iter()
                .map(|(index, why)| RecordError { batch_index: *index, message: Some(why) })
                .collect();
            let answer = ProducePartitionAnswer {
                record_errors: &record_errors,
                error_message: Some(&bad.message),
                ..part.answer
            };
            response.partition(&answer);
        }
        at = end;
    }
    response.finish(throttle_ms, &[]);
    out
}
