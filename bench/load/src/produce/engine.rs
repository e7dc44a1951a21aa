//! Producers with a connection each, driven by one ring.
//!
//! A turn: make the records that are due, send what may be sent, sleep until something completes or the next record is
//! due. When a record can not be held (a broker that does not answer), it is made later but keeps its intended time:
//! its wait counts. A turn costs what happens in it, not what connections and partitions there are.

use super::queue::Queue;
use super::{Outcome, Partitioner, Plan, Progress};
use crate::batch::{Batch, Press, Sealed};
use crate::connect::connect;
use crate::error::LoadError;
use crate::records::{Draft, Maker};
use crate::schedule::Times;
use crate::wire;
use ringmill_client::{ServerCode, murmur};
use ringmill_reactor::ring::{RingBackend, RingFeatures, RingOptions};
use ringmill_reactor::{Backend, Completion, Op, Payload, SocketId, Token};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

const POOL_BYTES: u64 = 256 << 20;
/// Largest answer that is believed.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// A turn makes no more than this before it looks at completions again.
const RECORDS_PER_TURN: u64 = 1000;
const BYTES_PER_TURN: usize = 256 << 10;
/// Held by all producers together.
const HELD_BYTES_MAX: usize = 1 << 30;
/// Batches whose memory is kept for the next ones, and how large each may be.
const SPARE_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 2 << 20;
const PROGRESS_NS: u64 = 100_000_000;
const RECEIVE: u64 = 0;
const SEND: u64 = 1;
/// Kafka's codes for batches of idempotent producers.
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;

/// A request on its way.
struct InFlight {
    correlation: i32,
    sent_ns: u64,
    /// By slot of the target.
    batches: Vec<(u32, Sealed)>,
}

struct Connection {
    socket: SocketId,
    producer: usize,
    /// Slots whose queue may have something to send.
    due: VecDeque<u32>,
    /// Stands in the list of connections to send from.
    listed: bool,
    /// A request is being handed to the kernel. Two at once would get into each other where its buffer is full.
    sending: bool,
    in_flight: VecDeque<InFlight>,
    received: Vec<u8>,
    next_correlation: i32,
}

struct Producer {
    /// By slot; most stay empty when there are many producers.
    queues: Vec<Option<Box<Queue>>>,
    /// The slot that records without a key go to, and bytes until the next one.
    slot: usize,
    slot_bytes: usize,
    held_bytes: usize,
}

struct Run<'p> {
    plan: &'p Plan,
    io: RingBackend,
    /// Of producer p to leader l: number p * leaders + l.
    connections: Vec<Connection>,
    leaders: usize,
    /// By slot: which leader.
    leader_of: Vec<usize>,
    producers: Vec<Producer>,
    buffer_bytes: usize,
    times: Times,
    next_due_ns: Option<u64>,
    maker: Maker,
    /// Batches in the order in which their linger ends: when, producer, slot.
    lingering: VecDeque<(u64, u32, u32)>,
    /// Batches that are sent again, and when.
    pausing: VecDeque<(u64, u32, u32)>,
    sendable: VecDeque<usize>,
    /// See [`Press`].
    spare: Vec<Vec<u8>>,
    /// Memory of drafts, likewise.
    drafts: Vec<Vec<Draft>>,
    start_ns: u64,
    made: u64,
    /// Records to make: the plan's, or what was made when its span ended.
    limit: u64,
    done: u64,
    batches: u64,
    last_answer_ns: u64,
    first_counted_ns: Option<u64>,
    out: Outcome,
}

pub fn run(
    plan: &Plan,
    watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> (Outcome, Result<(), LoadError>) {
    let cpu = ringmill_reactor::thread::thread_cpu_ns();
    let mut run = match Run::open(plan) {
        Ok(run) => run,
        Err(error) => return (Outcome::default(), Err(error)),
    };
    let result = run.drive(watch);
    let first = run.first_counted_ns.unwrap_or(run.last_answer_ns);
    run.out.elapsed = Duration::from_nanos(run.last_answer_ns.saturating_sub(first));
    run.out.warmup.elapsed = Duration::from_nanos(first.saturating_sub(run.start_ns));
    run.out.cpu = Duration::from_nanos(ringmill_reactor::thread::thread_cpu_ns() - cpu);
    run.out.start_ns = run.start_ns;
    (run.out, result)
}

impl<'p> Run<'p> {
    fn open(plan: &'p Plan) -> Result<Run<'p>, LoadError> {
        let options = RingOptions { pool_limit_bytes: POOL_BYTES, features: RingFeatures::ALL };
        let mut io = RingBackend::new(options).map_err(LoadError::Ring)?;
        let mut leaders: Vec<SocketAddr> = plan.targets.iter().map(|t| t.leader).collect();
        leaders.sort_unstable();
        leaders.dedup();
        let place = |target: &super::Target| leaders.binary_search(&target.leader).unwrap_or(0);
        let leader_of = plan.targets.iter().map(place).collect();
        let mut connections = Vec::new();
        let mut producers = Vec::new();
        for producer in 0..plan.producers {
            for leader in &leaders {
                let socket = io.add_connection(connect(*leader, plan.socket_buffer)?);
                io.push(Op::Recv { socket }, token(RECEIVE, connections.len()));
                connections.push(Connection {
                    socket,
                    producer,
                    due: VecDeque::new(),
                    listed: false,
                    sending: false,
                    in_flight: VecDeque::new(),
                    received: Vec::new(),
                    next_correlation: 0,
                });
            }
            let queues = std::iter::repeat_with(|| None).take(plan.targets.len()).collect();
            let slot = producer % plan.targets.len();
            producers.push(Producer { queues, slot, slot_bytes: 0, held_bytes: 0 });
        }
        let mut times = plan.schedule.times(plan.seed);
        let start_ns = io.now_ns();
        Ok(Run {
            plan,
            io,
            connections,
            leaders: leaders.len(),
            leader_of,
            producers,
            buffer_bytes: plan.buffer_bytes.min(HELD_BYTES_MAX / plan.producers),
            next_due_ns: times.next().map(|t| start_ns + t),
            times,
            maker: Maker::new(plan.keys.clone(), plan.payload.clone(), plan.stamp, plan.seed),
            lingering: VecDeque::new(),
            pausing: VecDeque::new(),
            sendable: VecDeque::new(),
            spare: Vec::new(),
            drafts: Vec::new(),
            start_ns,
            made: 0,
            limit: plan.records,
            done: 0,
            batches: 0,
            last_answer_ns: start_ns,
            first_counted_ns: None,
            out: Outcome::default(),
        })
    }

    fn drive(&mut self, watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>) -> Result<(), LoadError> {
        let mut next_watch_ns = self.start_ns + PROGRESS_NS;
        while self.done < self.limit {
            self.out.turns += 1;
            let now_ns = self.io.now_ns();
            if self.plan.span.is_some_and(|span| now_ns - self.start_ns >= span.as_nanos() as u64) {
                self.limit = self.limit.min(self.made);
            }
            let full = self.make(now_ns);
            self.expire(now_ns);
            while let Some(at) = self.sendable.pop_front() {
                self.send(at, now_ns)?;
            }
            if now_ns >= next_watch_ns {
                next_watch_ns = now_ns + PROGRESS_NS;
                self.check_silence(now_ns)?;
                if self.tell(now_ns, watch).is_break() {
                    return Ok(());
                }
            }
            let mut until_ns = self.wake_ns(next_watch_ns, full);
            if until_ns > now_ns {
                until_ns = until_ns.max(self.io.now_ns() + self.plan.nap_min.as_nanos() as u64);
            }
            self.io.enter(Some(until_ns));
            while let Some(completion) = self.io.pop() {
                self.take(completion)?;
            }
        }
        let _ = self.tell(self.io.now_ns(), watch);
        Ok(())
    }

    fn tell(&self, now_ns: u64, watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        watch(Progress {
            done: self.done,
            records: self.plan.records,
            elapsed: Duration::from_nanos(now_ns.saturating_sub(self.start_ns)),
            outcome: &self.out,
        })
    }

    fn check_silence(&self, now_ns: u64) -> Result<(), LoadError> {
        let waits = self.connections.iter().filter_map(|c| c.in_flight.front()).map(|r| r.sent_ns).min();
        let Some(since_ns) = waits else { return Ok(()) };
        let silent_ns = now_ns.saturating_sub(since_ns.max(self.last_answer_ns));
        if silent_ns > self.plan.timeout.as_nanos() as u64 {
            return Err(LoadError::Silent(self.plan.timeout));
        }
        Ok(())
    }

    /// Makes what is due. True when nothing can be taken before an answer came.
    fn make(&mut self, now_ns: u64) -> bool {
        let wall_ms = self.io.wall_ms();
        let mut bytes = 0;
        for _ in 0..RECORDS_PER_TURN {
            if self.made >= self.limit {
                return true;
            }
            let due_ns = self.next_due_ns.unwrap_or(now_ns);
            if due_ns > now_ns || bytes > BYTES_PER_TURN {
                return false;
            }
            let Some(producer) = self.place() else { return true };
            bytes += self.make_one(producer, due_ns, now_ns, wall_ms);
            self.made += 1;
            self.next_due_ns = self.times.next().map(|t| self.start_ns + t);
        }
        false
    }

    /// The producer that takes the next record: the one whose turn it is, or else the first that has room.
    fn place(&self) -> Option<usize> {
        let count = self.producers.len();
        let first = (self.made % count as u64) as usize;
        (first..count).chain(0..first).find(|at| {
            self.producers.get(*at).is_some_and(|p| p.held_bytes == 0 || p.held_bytes < self.buffer_bytes)
        })
    }

    fn make_one(&mut self, at: usize, due_ns: u64, now_ns: u64, wall_ms: i64) -> usize {
        let plan = self.plan;
        let counts = self.made >= plan.warmup;
        let draft = self.maker.draft();
        let Some(producer) = self.producers.get_mut(at) else { return 0 };
        let count = plan.targets.len();
        let key = if plan.ignore_keys { None } else { self.maker.key(draft) };
        let slot = match key {
            Some(key) => murmur::partition(key, count as u32) as usize,
            None => producer.next_slot(plan, draft.key_bytes().unwrap_or(0) + draft.value_bytes()),
        };
        let Some(queue) = producer.queues.get_mut(slot) else { return 0 };
        let queue = queue.get_or_insert_default();
        let mut full = false;
        let before;
        let batch = match queue.open(draft, plan.batch_bytes) {
            Some(batch) => {
                before = batch.bytes();
                batch
            }
            None => {
                // What cannot be appended to is full.
                full = true;
                self.batches += 1;
                let linger_ns = plan.linger.as_nanos() as u64;
                self.lingering.push_back((now_ns + linger_ns, at as u32, slot as u32));
                before = 0;
                queue.add(Batch::new(self.drafts.pop().unwrap_or_default(), now_ns, self.batches))
            }
        };
        batch.push(draft, due_ns, counts, wall_ms);
        let bytes = batch.bytes() - before;
        full |= batch.bytes() >= plan.batch_bytes;
        producer.held_bytes += bytes;
        if full {
            self.list(at, slot, now_ns);
        }
        bytes
    }

    /// Notes that a queue may have something to send, if it has.
    fn list(&mut self, producer: usize, slot: usize, now_ns: u64) {
        let since_ns = self.due_since_ns(now_ns);
        let leader = self.leader_of.get(slot).copied().unwrap_or(0);
        let at = producer * self.leaders + leader;
        let queue = self.producers.get_mut(producer).and_then(|p| p.queues.get_mut(slot)?.as_mut());
        let (Some(queue), Some(connection)) = (queue, self.connections.get_mut(at)) else { return };
        if queue.listed || !queue.is_due(since_ns, self.plan.batch_bytes) {
            return;
        }
        queue.listed = true;
        connection.due.push_back(slot as u32);
        if !connection.listed && !connection.sending && connection.in_flight.len() < self.plan.in_flight_max {
            connection.listed = true;
            self.sendable.push_back(at);
        }
    }

    /// A batch that began then or before has lingered enough.
    fn due_since_ns(&self, now_ns: u64) -> u64 {
        if self.made >= self.limit {
            return u64::MAX;
        }
        now_ns.saturating_sub(self.plan.linger.as_nanos() as u64)
    }

    fn expire(&mut self, now_ns: u64) {
        let all = self.made >= self.limit;
        while let Some((until_ns, producer, slot)) = self.lingering.front().copied()
            && (all || until_ns <= now_ns)
        {
            self.lingering.pop_front();
            self.list(producer as usize, slot as usize, now_ns);
        }
        while let Some((until_ns, producer, slot)) = self.pausing.front().copied()
            && until_ns <= now_ns
        {
            self.pausing.pop_front();
            self.list(producer as usize, slot as usize, now_ns);
        }
    }

    /// Sends a request, if a connection has something to send and may.
    fn send(&mut self, at: usize, now_ns: u64) -> Result<(), LoadError> {
        let since_ns = self.due_since_ns(now_ns);
        let plan = self.plan;
        let Some(connection) = self.connections.get_mut(at) else { return Ok(()) };
        connection.listed = false;
        if connection.sending || connection.in_flight.len() >= plan.in_flight_max || connection.due.is_empty()
        {
            return Ok(());
        }
        let Some(producer) = self.producers.get_mut(connection.producer) else { return Ok(()) };
        let identity = plan.identities.get(connection.producer).copied();
        let compress = plan.compress;
        let mut press = Press { compress, maker: &mut self.maker, spare: &mut self.spare };
        let mut batches = Vec::new();
        let mut wire = Vec::new();
        let mut bytes = 0;
        // Each queue gives one batch to a request; one that has more stands behind the others afterwards.
        for _ in 0..connection.due.len() {
            if bytes >= plan.request_bytes {
                break;
            }
            let Some(slot) = connection.due.pop_front() else { break };
            let queue = producer.queues.get_mut(slot as usize).and_then(Option::as_mut);
            let Some(queue) = queue else { continue };
            queue.listed = false;
            if !queue.is_due(since_ns, plan.batch_bytes) {
                continue;
            }
            let Some(mut batch) = queue.take(compress, identity) else { continue };
            let made = batch.bytes(&mut press);
            let made = made.map_err(|e| LoadError::Plan(format!("a batch cannot be compressed: {e}")))?;
            batch.attempts += 1;
            queue.in_flight += 1;
            bytes += made.len();
            let partition = plan.targets.get(slot as usize).map_or(0, |t| t.partition);
            wire.push((partition, made));
            batches.push((slot, batch));
            if queue.is_due(since_ns, plan.batch_bytes) {
                queue.listed = true;
                connection.due.push_back(slot);
            }
        }
        if batches.is_empty() {
            return Ok(());
        }
        let correlation = connection.next_correlation;
        connection.next_correlation = correlation.wrapping_add(1);
        let terms = wire::Terms { topic: &plan.topic, client_id: &plan.client_id, acks: plan.acks };
        let parts = wire::request(correlation, &terms, &wire);
        connection.in_flight.push_back(InFlight { correlation, sent_ns: now_ns, batches });
        self.out.requests += 1;
        self.out.batches += wire.len() as u64;
        self.out.wire_bytes += bytes as u64;
        connection.sending = true;
        self.io.push(Op::Send { socket: connection.socket, parts, zero_copy: false }, token(SEND, at));
        Ok(())
    }

    /// Until when there is nothing to do but wait.
    fn wake_ns(&self, next_watch_ns: u64, full: bool) -> u64 {
        let first =
            |queue: &VecDeque<(u64, u32, u32)>| queue.front().map_or(u64::MAX, |(until, _, _)| *until);
        // Without a schedule the next record is due now.
        let due_ns = if full { u64::MAX } else { self.next_due_ns.unwrap_or(0) };
        due_ns.min(next_watch_ns).min(first(&self.lingering)).min(first(&self.pausing))
    }

    fn take(&mut self, completion: Completion) -> Result<(), LoadError> {
        let (kind, at) = (completion.token.0 >> 32, (completion.token.0 & 0xffff_ffff) as usize);
        let count = completion.result.map_err(|errno| LoadError::Lost(Some(errno.to_string())))?;
        if kind == SEND {
            let Some(connection) = self.connections.get_mut(at) else { return Ok(()) };
            connection.sending = false;
            // The kernel has all of it, so the next request is made in the same memory: six of a MiB would not stay in
            // the CPU's caches, and each byte would come and go over the memory bus.
            for (_, batch) in connection.in_flight.back_mut().into_iter().flat_map(|r| &mut r.batches) {
                keep(&mut self.spare, batch.release());
            }
            if self.plan.acks == 0
                && let Some(request) = connection.in_flight.pop_front()
            {
                let now_ns = self.io.now_ns();
                for (slot, batch) in request.batches {
                    self.answered(at, slot, batch, 0, request.sent_ns, now_ns);
                }
            }
            self.may_send(at);
            return Ok(());
        }
        if count == 0 {
            return Err(LoadError::Lost(None));
        }
        let Some(connection) = self.connections.get_mut(at) else { return Ok(()) };
        if let Payload::Received(bytes) = &completion.payload {
            connection.received.extend_from_slice(bytes);
        }
        let socket = connection.socket;
        self.io.push(Op::Recv { socket }, token(RECEIVE, at));
        self.read_answers(at)
    }

    fn read_answers(&mut self, at: usize) -> Result<(), LoadError> {
        let now_ns = self.io.now_ns();
        let Some(connection) = self.connections.get_mut(at) else { return Ok(()) };
        let mut received = std::mem::take(&mut connection.received);
        let mut used = 0;
        let mut codes = Vec::new();
        while let Some((prefix, rest)) = received.get(used..).and_then(<[u8]>::split_first_chunk::<4>) {
            let length = u32::from_be_bytes(*prefix) as usize;
            if length > ANSWER_BYTES_MAX {
                return Err(LoadError::Garbled(format!("a length of {length} bytes")));
            }
            let Some(frame) = rest.get(..length) else { break };
            codes.clear();
            let correlation = wire::answer(frame, &mut |partition, code| codes.push((partition, code)))
                .map_err(|error| LoadError::Garbled(error.to_string()))?;
            used += 4 + length;
            let Some(connection) = self.connections.get_mut(at) else { return Ok(()) };
            let request = match connection.in_flight.pop_front() {
                Some(request) if request.correlation == correlation => request,
                _ => return Err(LoadError::Garbled(format!("nobody asked for answer {correlation}"))),
            };
            self.last_answer_ns = now_ns;
            for (place, (slot, batch)) in request.batches.into_iter().enumerate() {
                let partition = self.plan.targets.get(slot as usize).map_or(-1, |t| t.partition);
                // In the order of the request, from every broker that was seen.
                let same = codes.get(place).filter(|(p, _)| *p == partition);
                let found = same.or_else(|| codes.iter().find(|(p, _)| *p == partition));
                let Some((_, code)) = found else {
                    return Err(LoadError::Garbled(format!("partition {partition} has no answer")));
                };
                self.answered(at, slot, batch, *code, request.sent_ns, now_ns);
            }
            self.may_send(at);
        }
        received.drain(..used);
        if let Some(connection) = self.connections.get_mut(at) {
            connection.received = received;
        }
        Ok(())
    }

    fn may_send(&mut self, at: usize) {
        let Some(connection) = self.connections.get_mut(at) else { return };
        if !connection.listed && !connection.sending && !connection.due.is_empty() {
            connection.listed = true;
            self.sendable.push_back(at);
        }
    }

    /// A batch came back, with this error code.
    fn answered(&mut self, at: usize, slot: u32, mut batch: Sealed, code: i16, sent_ns: u64, now_ns: u64) {
        let Some(connection) = self.connections.get(at) else { return };
        let (number, plan) = (connection.producer, self.plan);
        let Some(producer) = self.producers.get_mut(number) else { return };
        let Some(Some(queue)) = producer.queues.get_mut(slot as usize) else { return };
        queue.in_flight -= 1;
        let idempotent = !plan.identities.is_empty();
        let follows =
            idempotent && code == OUT_OF_ORDER_SEQUENCE_NUMBER && queue.repeats_before(batch.serial);
        let stored = code == 0 || (idempotent && code == DUPLICATE_SEQUENCE_NUMBER);
        let age_ns = now_ns.saturating_sub(batch.since_ns);
        let again = follows || ServerCode(code).is_retriable();
        if !stored && again && batch.attempts <= plan.retries && age_ns < plan.delivery.as_nanos() as u64 {
            self.out.retries += 1;
            queue.put_back(batch);
            let until_ns = now_ns + plan.retry_backoff.as_nanos() as u64;
            self.pausing.push_back((until_ns, number as u32, slot));
            return;
        }
        producer.held_bytes = producer.held_bytes.saturating_sub(batch.held_bytes);
        self.done += batch.count();
        if stored {
            self.count(&batch, sent_ns, now_ns);
        } else {
            self.out.errors += batch.count();
            self.out.first_error = self.out.first_error.or(Some(code));
        }
        keep(&mut self.spare, batch.release());
        if self.drafts.len() < SPARE_MAX {
            self.drafts.push(batch.into_drafts());
        }
        // One that is sent again may have waited for this.
        self.list(number, slot as usize, now_ns);
    }

    /// Takes a batch that was stored into the account.
    fn count(&mut self, batch: &Sealed, sent_ns: u64, now_ns: u64) {
        self.last_answer_ns = now_ns;
        let mut counted = (0, 0);
        for meant in &batch.meant {
            let (records, late_ns) = (u64::from(meant.records), now_ns.saturating_sub(meant.intended_ns));
            if !meant.counts {
                self.out.warmup.records += records;
                self.out.warmup.bytes += meant.bytes;
                self.out.warmup.intended.record_many(late_ns, records);
                continue;
            }
            counted = (counted.0 + records, counted.1 + meant.bytes);
            let first = self.first_counted_ns.get_or_insert(meant.intended_ns);
            *first = meant.intended_ns.min(*first);
            self.out.intended.record_many(late_ns, records);
            let at_ns = meant.intended_ns.saturating_sub(self.start_ns);
            self.out.timeline.latency(at_ns, late_ns, records);
        }
        if counted.0 > 0 {
            self.out.records += counted.0;
            self.out.bytes += counted.1;
            self.out.actual.record_many(now_ns.saturating_sub(sent_ns), counted.0);
            self.out.timeline.count(now_ns.saturating_sub(self.start_ns), counted.0, counted.1);
        }
    }
}

impl Producer {
    /// Where a record goes that has no say in it.
    fn next_slot(&mut self, plan: &Plan, bytes: usize) -> usize {
        let slot = self.slot;
        self.slot_bytes += bytes;
        let next = plan.partitioner == Partitioner::RoundRobin || self.slot_bytes >= plan.batch_bytes;
        if next {
            self.slot = (slot + 1) % plan.targets.len();
            self.slot_bytes = 0;
        }
        slot
    }
}

/// Keeps memory for the next batches, unless there is enough, or it is large.
fn keep(spare: &mut Vec<Vec<u8>>, memory: Option<Vec<u8>>) {
    if spare.len() < SPARE_MAX
        && let Some(memory) = memory.filter(|memory| memory.capacity() <= SPARE_BYTES_MAX)
    {
        spare.push(memory);
    }
}

fn token(kind: u64, connection: usize) -> Token {
    Token(kind << 32 | connection as u64)
}
