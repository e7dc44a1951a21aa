//! One broker core, its device and its clients, played through event by event.
//!
//! Two threads take turns as the real ones do: clients make what is due, put it into batches (sticky, with linger), send
//! what a window of requests allows and take answers; the core takes what has arrived, puts it into the open flush group
//! and lets it leave when no flush is under way. A turn costs what the calibration found for its turns, requests, batches,
//! records and bytes; a flush takes a draw from the measured distribution for its size. Group commit, batching and the
//! window make queues that no formula for independent arrivals describes, so they are played and not approximated.

use crate::calibration::Costs;
use crate::draw::Quantiles;
use hdrhistogram::Histogram;
use ringmill_types::{Random, limits};
use std::collections::VecDeque;

/// Queues of one simulation: producers times partitions.
const QUEUES_MAX: usize = 2_000_000;
/// As bench/load bounds its turns.
const RECORDS_PER_TURN: u32 = 1000;
const BYTES_PER_TURN: u64 = 256 << 10;
const HELD_BYTES_MAX: u64 = 1 << 30;
/// Header of a batch, what surrounds a record in it, and what a producer leaves free for that.
const BATCH_HEADER_BYTES: u64 = 61;
const RECORD_FRAME_BYTES: u64 = 10;
const ROOM_BYTES: u64 = 32;
/// As a core log has it: a group of this size is full, and so many are on their way, one of them with the flush.
const GROUP_BYTES: u64 = limits::GROUP_BYTES_DEFAULT as u64;
const PENDING_MAX: usize = 1 + limits::run_ahead_groups(limits::GROUP_BYTES_DEFAULT);
/// Bytes in a core log between two checkpoints: one begins when three eighths of it are used, and what memory holds back
/// from segments stays in it.
const CHECKPOINT_BYTES: u64 =
    limits::CORE_LOG_FILE_BYTES_DEFAULT * limits::CORE_LOG_FILES_DEFAULT as u64 * 3 / 8 - UNDESTAGED_BYTES;
const UNDESTAGED_BYTES: u64 = 64 << 20;
/// The first part of a simulation does not count.
const WARM_PART: f64 = 0.15;
const HIGHEST_NS: u64 = 3_600_000_000_000;
/// Clients that share the broker's machine sleep at least this long: shorter sleeps cost a whole CPU.
pub const NAP_US: u64 = 100;

/// What producers do to one core.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Records per second; `None`: as fast as it goes.
    pub rate: Option<f64>,
    /// Of a value.
    pub record_bytes: u32,
    pub partitions: u32,
    pub producers: u32,
    pub linger_us: f64,
    pub batch_bytes: u32,
    pub request_bytes: u32,
    /// Requests of one producer without an answer.
    pub in_flight: u32,
    pub buffer_bytes: u64,
}

impl Load {
    /// A load with the defaults of Kafka's producer.
    pub fn new(rate: Option<f64>, record_bytes: u32, partitions: u32, producers: u32) -> Load {
        Load {
            rate,
            record_bytes,
            partitions,
            producers,
            linger_us: 5000.0,
            batch_bytes: 16_384,
            request_bytes: 1 << 20,
            in_flight: 5,
            buffer_bytes: 32 << 20,
        }
    }
}

/// How long the device takes for a flush: a mean that grows with its bytes, and how single ones lie around it. What a
/// broker counts as a flush's time is longer, since its core has to come to it.
#[derive(Clone, Debug, PartialEq)]
pub struct FlushTime {
    pub base_us: f64,
    pub kib_us: f64,
    /// For the sync of one segment at a checkpoint, which flushes of the log take turns with.
    pub sync_us: f64,
    /// Relative to the mean.
    pub around: Quantiles,
}

impl FlushTime {
    pub fn mean_us(&self, bytes: f64) -> f64 {
        self.base_us + self.kib_us * bytes / 1024.0
    }
}

/// A thread that is kept from its CPU now and then, by the hypervisor or by others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stalls {
    pub per_second: f64,
    pub us: Quantiles,
}

/// Everything that a simulation is fed with.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub client: Costs,
    pub core: Costs,
    /// Of the core for those who read along, once a group is durable: a request each, its records and KiB.
    pub fetch: Costs,
    pub flush: FlushTime,
    pub stalls: Stalls,
    /// What keeps the core from its flushes besides: the file system's journal, a checkpoint's surprises.
    pub holds: Stalls,
    /// From a message to a sleeping thread that runs.
    pub wake_us: f64,
    /// How late a sleeping thread notices its time.
    pub timer_us: f64,
    /// Clients that wait for a time wait at least this long.
    pub nap_us: f64,
    /// Every CPU cost times this: more threads want to run than there are CPUs.
    pub slow: f64,
    /// Client threads; each has a CPU of its own.
    pub client_threads: f64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Simulated {
    /// Records per second that were answered.
    pub rate: f64,
    /// From the intended time, nanoseconds.
    pub latency: Histogram<u64>,
    pub seconds: f64,
    pub records: u64,
    pub requests: u64,
    pub batches: u64,
    pub groups: u64,
    pub group_bytes: u64,
    pub client_turns: u64,
    pub core_turns: u64,
    /// Turns that began with waking up.
    pub client_sleeps: u64,
    pub core_sleeps: u64,
    /// Part of the time that the threads were busy.
    pub client_busy: f64,
    pub core_busy: f64,
    /// Part of the time that a flush was under way.
    pub flush_busy: f64,
    /// From when a group was handed to the device to when the core knew that it was durable, the mean: what a broker's
    /// metrics call a flush.
    pub flush_mean_us: f64,
    pub checkpoints: u64,
}

impl Simulated {
    /// Milliseconds that this part does not exceed.
    pub fn ms(&self, part: f64) -> f64 {
        if self.latency.is_empty() { 0.0 } else { self.latency.value_at_quantile(part) as f64 / 1e6 }
    }

    /// Before the first record.
    fn nothing() -> Simulated {
        let latency =
            Histogram::new_with_bounds(1, HIGHEST_NS, 3).expect("constant bounds that are in order");
        Simulated {
            rate: 0.0,
            latency,
            seconds: 0.0,
            records: 0,
            requests: 0,
            batches: 0,
            groups: 0,
            group_bytes: 0,
            client_turns: 0,
            core_turns: 0,
            client_sleeps: 0,
            core_sleeps: 0,
            client_busy: 0.0,
            core_busy: 0.0,
            flush_busy: 0.0,
            flush_mean_us: 0.0,
            checkpoints: 0,
        }
    }
}

/// Records that were made one after the other, evenly apart.
#[derive(Clone, Copy)]
struct Stretch {
    first_due_ns: u64,
    count: u32,
}

#[derive(Default)]
struct Batch {
    since_ns: u64,
    bytes: u64,
    records: u32,
    stretches: Vec<Stretch>,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Batch>,
    listed: bool,
}

struct Producer {
    queues: Vec<Queue>,
    slot: usize,
    slot_bytes: u64,
    held_bytes: u64,
    due: VecDeque<usize>,
    listed: bool,
    in_flight: u32,
}

struct Request {
    producer: usize,
    batches: Vec<Batch>,
    /// Batches that are in a group.
    placed: usize,
    bytes: u64,
    records: u64,
}

/// A flush group: what it holds, and the requests whose last batch is in it.
#[derive(Default)]
struct Group {
    bytes: u64,
    batches: u64,
    records: u64,
    requests: Vec<Request>,
}

/// A group on its way to the disk.
struct Sealed {
    group: Group,
    sealed_ns: u64,
    written_ns: u64,
    /// The flush under way covers it.
    covered: bool,
}

/// Stalls of one thread, as time goes on.
struct Interruptions<'n> {
    stalls: &'n Stalls,
    start_ns: u64,
    span_ns: u64,
}

impl<'n> Interruptions<'n> {
    fn new(stalls: &'n Stalls, random: &mut Random) -> Interruptions<'n> {
        let mut all = Interruptions { stalls, start_ns: 0, span_ns: 0 };
        all.next(random);
        all
    }

    fn next(&mut self, random: &mut Random) {
        if self.stalls.per_second <= 0.0 {
            self.start_ns = u64::MAX;
            return;
        }
        let gap_ns = random.exponential(1e9 / self.stalls.per_second) as u64;
        self.start_ns = self.start_ns.saturating_add(self.span_ns).saturating_add(gap_ns);
        self.span_ns = (self.stalls.us.draw(random) * 1e3) as u64;
    }

    /// When work that would begin then begins.
    fn begin(&mut self, at_ns: u64, random: &mut Random) -> u64 {
        while self.start_ns < at_ns && self.start_ns + self.span_ns < at_ns {
            self.next(random);
        }
        if self.start_ns < at_ns {
            let end_ns = self.start_ns + self.span_ns;
            self.next(random);
            return end_ns;
        }
        at_ns
    }

    /// When work ends that would end then.
    fn end(&mut self, mut at_ns: u64, random: &mut Random) -> u64 {
        while self.start_ns < at_ns {
            at_ns = at_ns.saturating_add(self.span_ns);
            self.next(random);
        }
        at_ns
    }
}

struct Run<'n> {
    load: &'n Load,
    node: &'n Node,
    random: Random,
    producers: Vec<Producer>,
    partitions: usize,
    gap_ns: f64,
    made: u64,
    lingering: VecDeque<(u64, usize, usize)>,
    sendable: VecDeque<usize>,
    /// Producers that have more to send once their request of this turn is in the socket.
    again: Vec<usize>,
    /// When each request is at the core, and each answer at its client.
    requests: VecDeque<(u64, Request)>,
    answers: VecDeque<(u64, Vec<Request>)>,
    open: Group,
    /// In their order; one flush at a time covers those that were written before it left.
    pending: VecDeque<Sealed>,
    flush_end_ns: Option<u64>,
    /// When the device has moved all bytes that it was given.
    device_free_ns: u64,
    /// Since the last checkpoint began: bytes, and batches.
    logged: (u64, u64),
    /// Segments that the checkpoint under way has yet to sync, and until when it is known to have come.
    syncs_left: u64,
    synced_ns: u64,
    /// The open group is full and may not leave.
    blocked: bool,
    client_free_ns: u64,
    core_free_ns: u64,
    client_stalls: Interruptions<'n>,
    core_stalls: Interruptions<'n>,
    core_holds: Interruptions<'n>,
    full: bool,
    done: u64,
    warm_records: u64,
    counted_from_ns: Option<u64>,
    counted: u64,
    last_answer_ns: u64,
    client_busy_ns: u64,
    core_busy_ns: u64,
    flush_busy_ns: u64,
    flushed_ns: u64,
    flushed: u64,
    out: Simulated,
}

/// Plays `records` records through; the same for the same seed.
pub fn simulate(load: &Load, node: &Node, records: u64, seed: u64) -> Simulated {
    let mut run = Run::new(load, node, records, seed);
    while run.done < records {
        let (client, core) = (run.client_wake(), run.core_wake());
        if client == u64::MAX && core == u64::MAX {
            break;
        }
        if client <= core { run.client_turn(client) } else { run.core_turn(core) }
    }
    run.finish()
}

impl<'n> Run<'n> {
    fn new(load: &'n Load, node: &'n Node, records: u64, seed: u64) -> Run<'n> {
        let mut random = Random::new(seed);
        let count = (load.producers.max(1) as usize).min(QUEUES_MAX);
        let partitions = (load.partitions.max(1) as usize).min(QUEUES_MAX / count).max(1);
        let producers = (0..count)
            .map(|at| Producer {
                queues: std::iter::repeat_with(Queue::default).take(partitions).collect(),
                slot: at % partitions,
                slot_bytes: 0,
                held_bytes: 0,
                due: VecDeque::new(),
                listed: false,
                in_flight: 0,
            })
            .collect();
        Run {
            load,
            node,
            producers,
            partitions,
            gap_ns: load.rate.map_or(0.0, |rate| 1e9 / rate.max(1e-3)),
            made: 0,
            lingering: VecDeque::new(),
            sendable: VecDeque::new(),
            again: Vec::new(),
            requests: VecDeque::new(),
            answers: VecDeque::new(),
            open: Group::default(),
            pending: VecDeque::new(),
            flush_end_ns: None,
            device_free_ns: 0,
            logged: (0, 0),
            syncs_left: 0,
            synced_ns: 0,
            blocked: false,
            client_free_ns: 0,
            core_free_ns: 0,
            client_stalls: Interruptions::new(&node.stalls, &mut random),
            core_stalls: Interruptions::new(&node.stalls, &mut random),
            core_holds: Interruptions::new(&node.holds, &mut random),
            full: false,
            done: 0,
            warm_records: (records as f64 * WARM_PART) as u64,
            counted_from_ns: None,
            counted: 0,
            last_answer_ns: 0,
            client_busy_ns: 0,
            core_busy_ns: 0,
            flush_busy_ns: 0,
            flushed_ns: 0,
            flushed: 0,
            random,
            out: Simulated::nothing(),
        }
    }

    fn finish(mut self) -> Simulated {
        // What ran on behind the last answer counts in full.
        let flushed_ns = self.flush_end_ns.unwrap_or(0);
        let ends = [self.client_free_ns, self.core_free_ns, flushed_ns, 1];
        let span_ns = ends.into_iter().fold(self.last_answer_ns, u64::max) as f64;
        let counted_ns = self.last_answer_ns.saturating_sub(self.counted_from_ns.unwrap_or(0)).max(1);
        self.out.rate = self.counted as f64 * 1e9 / counted_ns as f64;
        self.out.seconds = span_ns / 1e9;
        self.out.records = self.done;
        self.out.client_busy = self.client_busy_ns as f64 / span_ns;
        self.out.core_busy = self.core_busy_ns as f64 / span_ns;
        self.out.flush_busy = self.flush_busy_ns as f64 / span_ns;
        self.out.flush_mean_us = self.flushed_ns as f64 / 1e3 / self.flushed.max(1) as f64;
        self.out
    }

    fn due_ns(&self) -> Option<u64> {
        self.load.rate.map(|_| (self.made as f64 * self.gap_ns) as u64)
    }

    /// When the client's next turn begins: what wakes it, and not before its last one ended.
    fn client_wake(&self) -> u64 {
        let rested_ns = self.client_free_ns.saturating_add((self.node.nap_us * 1e3) as u64);
        let timer = |at: u64| at.max(rested_ns).saturating_add((self.node.timer_us * 1e3) as u64);
        let sleeps_past =
            |at: u64, late: u64| if at <= self.client_free_ns { self.client_free_ns } else { late };
        let mut first = u64::MAX;
        if !self.full {
            let due = self.due_ns().unwrap_or(0);
            first = first.min(sleeps_past(due, timer(due)));
        }
        if let Some((until, ..)) = self.lingering.front() {
            first = first.min(sleeps_past(*until, timer(*until)));
        }
        if !self.sendable.is_empty() {
            first = first.min(self.client_free_ns);
        }
        if let Some((at, _)) = self.answers.front() {
            first = first.min(sleeps_past(*at, at.saturating_add((self.node.wake_us * 1e3) as u64)));
        }
        first
    }

    fn core_wake(&self) -> u64 {
        let mut first = u64::MAX;
        if !self.blocked
            && let Some((at, _)) = self.requests.front()
        {
            let late = at.saturating_add((self.node.wake_us * 1e3) as u64);
            first = if *at <= self.core_free_ns { self.core_free_ns } else { late };
        }
        // The wake after a flush is part of what was measured as its time.
        let done_ns = self.flush_end_ns.or_else(|| {
            // Nothing covers these yet: a flush leaves for them as soon as they are written.
            self.pending.iter().map(|sealed| sealed.written_ns).min()
        });
        done_ns.map_or(first, |done_ns| first.min(done_ns.max(self.core_free_ns)))
    }

    fn client_turn(&mut self, at_ns: u64) {
        let now_ns = self.client_stalls.begin(at_ns, &mut self.random);
        let cost = self.node.client;
        let slept = now_ns > self.client_free_ns;
        let woke_us = if slept { cost.sleep_us } else { 0.0 };
        let mut us = cost.turn_us + self.take_answers(now_ns, woke_us) + self.make(now_ns);
        while let Some((until, producer, slot)) = self.lingering.front().copied()
            && until <= now_ns
        {
            self.lingering.pop_front();
            self.list(producer, slot, now_ns);
        }
        let mut leaving = Vec::new();
        while let Some(at) = self.sendable.pop_front() {
            us += self.send(at, now_ns, &mut leaving);
        }
        self.sendable.extend(self.again.drain(..));
        let busy_ns = (us * self.node.slow * 1e3 / self.node.client_threads.max(1.0)) as u64;
        let end_ns = self.client_stalls.end(now_ns + busy_ns, &mut self.random);
        self.client_busy_ns += busy_ns;
        self.client_free_ns = end_ns;
        self.requests.extend(leaving.into_iter().map(|request| (end_ns, request)));
        self.out.client_turns += 1;
        self.out.client_sleeps += u64::from(slept);
    }

    /// Half of what a request costs its client comes with its answer. What was spent in this turn is given and counts.
    fn take_answers(&mut self, now_ns: u64, mut us: f64) -> f64 {
        let cost = self.node.client;
        while self.answers.front().is_some_and(|(at, _)| *at <= now_ns) {
            let Some((_, answered)) = self.answers.pop_front() else { break };
            for request in answered {
                us += (cost.request_us + cost.batch_us * request.batches.len() as f64) / 2.0;
                let seen_ns = now_ns + (us * self.node.slow * 1e3) as u64;
                self.count(&request, seen_ns);
                let Some(producer) = self.producers.get_mut(request.producer) else { continue };
                producer.in_flight -= 1;
                producer.held_bytes = producer.held_bytes.saturating_sub(request.bytes);
                if !producer.listed && !producer.due.is_empty() {
                    producer.listed = true;
                    self.sendable.push_back(request.producer);
                }
            }
        }
        us
    }

    fn count(&mut self, request: &Request, now_ns: u64) {
        self.last_answer_ns = self.last_answer_ns.max(now_ns);
        self.done += request.records;
        if self.done <= self.warm_records {
            return;
        }
        if self.counted_from_ns.is_none() {
            self.counted_from_ns = Some(now_ns);
            return;
        }
        self.counted += request.records;
        if self.load.rate.is_none() {
            return;
        }
        let step_ns = self.gap_ns * self.producers.len() as f64;
        for batch in &request.batches {
            for stretch in &batch.stretches {
                for place in 0..stretch.count {
                    let due_ns = stretch.first_due_ns + (f64::from(place) * step_ns) as u64;
                    self.out.latency.saturating_record(now_ns.saturating_sub(due_ns).max(1));
                }
            }
        }
    }

    fn make(&mut self, now_ns: u64) -> f64 {
        let (mut count, mut bytes) = (0u32, 0u64);
        let size = u64::from(self.load.record_bytes);
        self.full = false;
        while count < RECORDS_PER_TURN {
            let due_ns = self.due_ns().unwrap_or(now_ns);
            if due_ns > now_ns || bytes > BYTES_PER_TURN {
                break;
            }
            let Some(at) = self.place() else {
                self.full = true;
                break;
            };
            self.make_one(at, size, due_ns, now_ns);
            self.made += 1;
            count += 1;
            bytes += size;
        }
        let cost = self.node.client;
        cost.record_us * f64::from(count) + cost.kib_us * bytes as f64 / 1024.0
    }

    fn place(&self) -> Option<usize> {
        let count = self.producers.len();
        let limit = self.load.buffer_bytes.min(HELD_BYTES_MAX / count as u64);
        let first = (self.made % count as u64) as usize;
        (first..count)
            .chain(0..first)
            .find(|at| self.producers.get(*at).is_some_and(|p| p.held_bytes == 0 || p.held_bytes < limit))
    }

    fn make_one(&mut self, at: usize, size: u64, due_ns: u64, now_ns: u64) {
        let batch_bytes = u64::from(self.load.batch_bytes);
        let linger_ns = (self.load.linger_us * 1e3) as u64;
        let partitions = self.partitions;
        let Some(producer) = self.producers.get_mut(at) else { return };
        let slot = producer.slot;
        producer.slot_bytes += size;
        if producer.slot_bytes >= batch_bytes {
            producer.slot = (slot + 1) % partitions;
            producer.slot_bytes = 0;
        }
        let Some(queue) = producer.queues.get_mut(slot) else { return };
        let has_room = queue.batches.back().is_some_and(|b| b.bytes + size + ROOM_BYTES <= batch_bytes);
        let mut full = !has_room;
        if !has_room {
            queue.batches.push_back(Batch {
                since_ns: now_ns,
                bytes: BATCH_HEADER_BYTES,
                ..Batch::default()
            });
            self.lingering.push_back((now_ns + linger_ns, at, slot));
            producer.held_bytes += BATCH_HEADER_BYTES;
        }
        if let Some(batch) = queue.batches.back_mut() {
            batch.bytes += size + RECORD_FRAME_BYTES;
            batch.records += 1;
            match batch.stretches.last_mut() {
                Some(last)
                    if has_room
                        && self.load.rate.is_some()
                        && follows(*last, due_ns, self.gap_ns * self.load.producers.max(1) as f64) =>
                {
                    last.count += 1
                }
                Some(_) | None => batch.stretches.push(Stretch { first_due_ns: due_ns, count: 1 }),
            }
            full |= batch.bytes >= batch_bytes;
        }
        producer.held_bytes += size + RECORD_FRAME_BYTES;
        if full {
            self.list(at, slot, now_ns);
        }
    }

    fn is_due(&self, queue: &Queue, now_ns: u64) -> bool {
        let since_ns = now_ns.saturating_sub((self.load.linger_us * 1e3) as u64);
        let batch_bytes = u64::from(self.load.batch_bytes);
        queue.batches.len() > 1
            || queue.batches.front().is_some_and(|b| b.since_ns <= since_ns || b.bytes >= batch_bytes)
    }

    fn list(&mut self, at: usize, slot: usize, now_ns: u64) {
        let Some(queue) = self.producers.get(at).and_then(|p| p.queues.get(slot)) else { return };
        if queue.listed || !self.is_due(queue, now_ns) {
            return;
        }
        let in_flight_max = self.load.in_flight;
        let Some(producer) = self.producers.get_mut(at) else { return };
        if let Some(queue) = producer.queues.get_mut(slot) {
            queue.listed = true;
        }
        producer.due.push_back(slot);
        if !producer.listed && producer.in_flight < in_flight_max {
            producer.listed = true;
            self.sendable.push_back(at);
        }
    }

    /// Sends one request of what a producer has and may, the next in the next turn; what that costs.
    fn send(&mut self, at: usize, now_ns: u64, leaving: &mut Vec<Request>) -> f64 {
        let cost = self.node.client;
        let Some(producer) = self.producers.get_mut(at) else { return 0.0 };
        producer.listed = false;
        if producer.in_flight >= self.load.in_flight {
            return 0.0;
        }
        let mut request = Request { producer: at, batches: Vec::new(), placed: 0, bytes: 0, records: 0 };
        for _ in 0..producer.due.len() {
            if request.bytes >= u64::from(self.load.request_bytes) {
                break;
            }
            let Some(slot) = self.producers.get_mut(at).and_then(|p| p.due.pop_front()) else { break };
            self.take_batch(at, slot, now_ns, &mut request);
        }
        if request.batches.is_empty() {
            return 0.0;
        }
        if let Some(producer) = self.producers.get_mut(at) {
            producer.in_flight += 1;
            if !producer.due.is_empty() && producer.in_flight < self.load.in_flight {
                producer.listed = true;
                self.again.push(at);
            }
        }
        self.out.requests += 1;
        self.out.batches += request.batches.len() as u64;
        let us = (cost.request_us + cost.batch_us * request.batches.len() as f64) / 2.0;
        leaving.push(request);
        us
    }

    fn take_batch(&mut self, at: usize, slot: usize, now_ns: u64, request: &mut Request) {
        let due = |run: &Run<'_>| {
            let queue = run.producers.get(at).and_then(|p| p.queues.get(slot));
            queue.is_some_and(|queue| run.is_due(queue, now_ns))
        };
        let was_due = due(self);
        let Some(queue) = self.producers.get_mut(at).and_then(|p| p.queues.get_mut(slot)) else { return };
        queue.listed = false;
        if !was_due {
            return;
        }
        if let Some(batch) = queue.batches.pop_front() {
            request.bytes += batch.bytes;
            request.records += u64::from(batch.records);
            request.batches.push(batch);
        }
        if due(self)
            && let Some(producer) = self.producers.get_mut(at)
        {
            producer.due.push_back(slot);
            if let Some(queue) = producer.queues.get_mut(slot) {
                queue.listed = true;
            }
        }
    }

    fn core_turn(&mut self, at_ns: u64) {
        let now_ns = self.core_stalls.begin(at_ns, &mut self.random);
        let now_ns = self.core_holds.begin(now_ns, &mut self.random);
        let cost = self.node.core;
        let slept = now_ns > self.core_free_ns;
        let mut us = cost.turn_us + if slept { cost.sleep_us } else { 0.0 };
        let (answered, fetched_us) = self.take_durable(now_ns);
        // Half of what a request costs the core comes with its answer.
        us += answered.len() as f64 * cost.request_us / 2.0 + fetched_us;
        // Groups leave at the end of a turn: what a full one has no room for waits for the next turn.
        while self.open.bytes < GROUP_BYTES && self.requests.front().is_some_and(|(at, _)| *at <= now_ns) {
            us += self.place_front();
        }
        let full = self.open.bytes >= GROUP_BYTES && self.pending.len() < PENDING_MAX;
        let may_flush = self.flush_end_ns.is_none() && self.open.bytes > 0;
        let leaving = (full || may_flush).then(|| std::mem::take(&mut self.open));
        us += if leaving.is_some() { cost.group_us } else { 0.0 };
        let busy_ns = (us * self.node.slow * 1e3) as u64;
        let end_ns = self.core_stalls.end(now_ns + busy_ns, &mut self.random);
        let end_ns = self.core_holds.end(end_ns, &mut self.random);
        self.core_busy_ns += busy_ns;
        self.core_free_ns = end_ns;
        if !answered.is_empty() {
            self.answers.push_back((end_ns, answered));
        }
        self.write(leaving, end_ns);
        self.blocked = self.open.bytes >= GROUP_BYTES;
        self.out.core_turns += 1;
        self.out.core_sleeps += u64::from(slept);
    }

    /// Requests whose groups are durable by now, in order, and what those cost who read along.
    fn take_durable(&mut self, now_ns: u64) -> (Vec<Request>, f64) {
        let (mut answered, mut us) = (Vec::new(), 0.0);
        let fetch = self.node.fetch;
        if self.flush_end_ns.is_none_or(|done| done > now_ns) {
            return (answered, us);
        }
        self.flush_end_ns = None;
        while self.pending.front().is_some_and(|sealed| sealed.covered) {
            let Some(sealed) = self.pending.pop_front() else { break };
            self.flushed_ns += now_ns.saturating_sub(sealed.sealed_ns);
            self.flushed += 1;
            us += fetch.request_us
                + fetch.record_us * sealed.group.records as f64
                + fetch.kib_us * sealed.group.bytes as f64 / 1024.0;
            answered.extend(sealed.group.requests);
        }
        (answered, us)
    }

    /// Puts batches of the first request into the open group until that is full; what it costs.
    fn place_front(&mut self) -> f64 {
        let cost = self.node.core;
        let Some((_, request)) = self.requests.front_mut() else { return 0.0 };
        let mut us = if request.placed == 0 { cost.request_us / 2.0 } else { 0.0 };
        while self.open.bytes < GROUP_BYTES
            && let Some(batch) = request.batches.get(request.placed)
        {
            us += cost.batch_us
                + cost.record_us * f64::from(batch.records)
                + cost.kib_us * batch.bytes as f64 / 1024.0;
            self.open.bytes += batch.bytes;
            self.open.batches += 1;
            self.open.records += u64::from(batch.records);
            request.placed += 1;
        }
        if request.placed == request.batches.len()
            && let Some((_, whole)) = self.requests.pop_front()
        {
            self.open.requests.push(whole);
        }
        us
    }

    /// Hands a group to the device: with a flush where none is under way, which covers what was written before.
    fn write(&mut self, leaving: Option<Group>, now_ns: u64) {
        let alone = leaving.is_none();
        if let Some(group) = leaving {
            self.sync_segments(now_ns);
            let flush = &self.node.flush;
            let around = flush.around.draw(&mut self.random);
            let moving_ns = (flush.kib_us * group.bytes as f64 / 1024.0 * around * 1e3) as u64;
            let written_ns = self.device_free_ns.max(now_ns) + moving_ns;
            self.device_free_ns = written_ns;
            self.out.groups += 1;
            self.out.group_bytes += group.bytes;
            self.count_for_checkpoint(&group, written_ns);
            let with_flush = self.flush_end_ns.is_none();
            self.pending.push_back(Sealed { group, sealed_ns: now_ns, written_ns, covered: with_flush });
            if with_flush {
                self.cover(now_ns);
                self.begin_flush(now_ns, written_ns, around);
            }
        }
        // Nothing is left to carry a flush: it goes alone.
        if alone && self.flush_end_ns.is_none() && self.cover(now_ns) {
            let around = self.node.flush.around.draw(&mut self.random);
            self.begin_flush(now_ns, now_ns, around);
        }
    }

    /// A checkpoint syncs segments one after the other. While the device has nothing else to do it goes on with that; a
    /// group that comes meanwhile waits for one of them.
    fn sync_segments(&mut self, now_ns: u64) {
        let sync_ns = (self.node.flush.sync_us * 1e3) as u64;
        if self.syncs_left == 0 || sync_ns == 0 {
            return;
        }
        let idle_from_ns = self.device_free_ns.max(self.synced_ns);
        let done = (now_ns.saturating_sub(idle_from_ns) / sync_ns).min(self.syncs_left);
        self.syncs_left -= done;
        self.synced_ns = idle_from_ns + done * sync_ns;
        if self.syncs_left > 0 {
            self.syncs_left -= 1;
            self.device_free_ns = self.device_free_ns.max(now_ns) + sync_ns;
        }
    }

    fn count_for_checkpoint(&mut self, group: &Group, now_ns: u64) {
        self.logged = (self.logged.0 + group.bytes, self.logged.1 + group.batches);
        if self.syncs_left == 0 && self.logged.0 >= CHECKPOINT_BYTES {
            self.syncs_left = self.logged.1.min(self.partitions as u64);
            self.logged = (0, 0);
            self.synced_ns = now_ns;
            self.out.checkpoints += 1;
        }
    }

    /// Marks what is written as covered by a flush that leaves now; whether there was anything.
    fn cover(&mut self, now_ns: u64) -> bool {
        let mut any = false;
        for sealed in self.pending.iter_mut().filter(|sealed| sealed.written_ns <= now_ns) {
            sealed.covered = true;
            any = true;
        }
        any
    }

    fn begin_flush(&mut self, now_ns: u64, written_ns: u64, around: f64) {
        let end_ns = written_ns + (self.node.flush.base_us * around * 1e3) as u64;
        self.flush_busy_ns += end_ns - now_ns;
        self.flush_end_ns = Some(end_ns);
    }
}

/// Whether a record continues a stretch of evenly spaced ones.
fn follows(last: Stretch, due_ns: u64, step_ns: f64) -> bool {
    let next_ns = last.first_due_ns as f64 + f64::from(last.count) * step_ns;
    (due_ns as f64 - next_ns).abs() < step_ns.max(2.0) / 2.0
}

#[cfg(test)]
mod tests;
