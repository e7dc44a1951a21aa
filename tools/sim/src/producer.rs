//! A producer: keeps a few requests in flight, retries them when it is idempotent, forgets them when it is not.

use crate::catalog::{Catalog, Place};
use crate::frames::{Frames, Named, Naming, Produced, produce, read_produced};
use crate::model::{Mark, Model, Violation};
use crate::story::Settings;
use ringmill_client::batch::{BatchBuilder, Identity};
use ringmill_reactor::sim::{ListenerId, SimConn, SimRng, SimWorld};
use std::collections::VecDeque;
use std::sync::Arc;

/// One batch of a request.
struct Item {
    target: usize,
    /// As it was sent last; its marks name the life in which that was.
    bytes: Vec<u8>,
    life: u32,
    marks: Vec<Mark>,
    /// Length of each value.
    value_bytes: Vec<usize>,
    compacted: bool,
    identity: Option<Identity>,
    /// Of the last record; those before it are a millisecond apart.
    timestamp_ms: i64,
}

impl Item {
    fn encode(&mut self, life: u32) -> Option<()> {
        let mut builder = BatchBuilder::default();
        let before = self.timestamp_ms - self.marks.len() as i64;
        for ((mark, len), timestamp_ms) in self.marks.iter().zip(&self.value_bytes).zip(before + 1..) {
            builder.push(&mark.record(*len, life, timestamp_ms, self.compacted));
        }
        (self.bytes, self.life) = (builder.finish(self.identity).ok()?, life);
        Some(())
    }
}

struct Request {
    items: Vec<Item>,
    correlation: i32,
    sent: bool,
}

/// A partition that it writes to, and its sequence there.
struct Target {
    place: Place,
    producer_id: i64,
    sequence: i32,
    /// Records of it share keys.
    compacted: bool,
    /// Refused as a topic that the core had not heard of yet, before anything was acked.
    began_early: bool,
}

pub(crate) struct Producer {
    id: u32,
    topic: Arc<str>,
    naming: Naming,
    targets: Vec<Target>,
    idempotent: bool,
    depth: usize,
    bytes_max: u64,
    records_max: u64,
    gap_ns: u64,
    /// Chance in a million that it drops its connection at some step.
    reset_ppm: u32,
    rng: SimRng,
    conn: Option<SimConn>,
    frames: Frames,
    requests: VecDeque<Request>,
    number: u64,
    correlation: i32,
    /// How often it took new producer ids.
    identity: i64,
    next_ns: u64,
}

/// What became of a batch.
enum Fate {
    Done,
    /// The answer may be other in a while.
    Retry,
    /// Its topic is gone, or its place in the sequence.
    Dropped,
}

impl Producer {
    pub fn new(id: u32, topic: Arc<str>, short_lived: bool, rng: &mut SimRng) -> Producer {
        let mut rng = rng.fork();
        Producer {
            id,
            topic,
            naming: if short_lived || rng.coin() { Naming::Id } else { Naming::Name },
            targets: Vec::new(),
            idempotent: rng.coin(),
            depth: rng.between(1, 5) as usize,
            bytes_max: *[40, 400, 4_000, 30_000].get(rng.below(4) as usize).unwrap_or(&400),
            records_max: 4,
            gap_ns: if rng.coin() { 2_000_000 } else { 30_000_000 },
            reset_ppm: if rng.below(4) == 0 { 20_000 } else { 0 },
            rng,
            conn: None,
            frames: Frames::default(),
            requests: VecDeque::new(),
            number: 0,
            correlation: 0,
            identity: 0,
            next_ns: 0,
        }
    }

    pub fn suit(&mut self, settings: Settings) {
        if settings.one_page {
            self.make_small();
        }
        if settings.large {
            self.make_large();
        }
    }

    /// Small batches, close to each other: every flush group is one page then, and several are on their way.
    fn make_small(&mut self) {
        (self.bytes_max, self.records_max) = (40, 1);
        (self.depth, self.gap_ns) = (5, 500_000);
    }

    /// Batches of up to 800 KB, so close to each other that the disk is behind.
    fn make_large(&mut self) {
        (self.bytes_max, self.records_max) = (800_000, 4);
        (self.depth, self.gap_ns) = (5, 200_000);
        // A request takes a hundred steps to arrive: with the chance of a small one none ever would.
        self.reset_ppm /= 100;
    }

    /// Nothing is waiting for an answer.
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    pub fn lost(&mut self, now_ns: u64) {
        self.conn = None;
        self.frames = Frames::default();
        self.next_ns = now_ns + self.rng.between(100_000, 5_000_000);
        if self.idempotent {
            for request in &mut self.requests {
                request.sent = false;
            }
        } else {
            self.requests.clear();
        }
    }

    /// Finds the topic of its name as it is now; all before is forgotten.
    fn find(&mut self, catalog: &Catalog) {
        self.requests.clear();
        self.identity += 1;
        let (id, identity) = (i64::from(self.id), self.identity);
        let compacted = catalog.named(&self.topic).is_some_and(|topic| topic.config.compacted);
        let target = |(at, place): (usize, Place)| Target {
            compacted,
            producer_id: 1_000 + id + identity * 1_000_000 + at as i64 * 1_000,
            place,
            sequence: 0,
            began_early: false,
        };
        self.targets = catalog.places(&self.topic).into_iter().enumerate().map(target).collect();
    }

    fn make(&mut self, life: u32) -> Option<()> {
        let first = self.rng.below(self.targets.len() as u64) as usize;
        let count = if self.rng.below(4) == 0 { 2.min(self.targets.len()) } else { 1 };
        let mut items = Vec::new();
        for at in 0..count {
            items.push(self.batch((first + at) % self.targets.len(), life)?);
        }
        self.correlation += 1;
        self.requests.push_back(Request { items, correlation: self.correlation, sent: false });
        Some(())
    }

    fn batch(&mut self, target: usize, life: u32) -> Option<Item> {
        let place = self.targets.get_mut(target)?;
        let count = self.rng.between(1, self.records_max);
        let (mut marks, mut value_bytes) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (number, partition) = (self.number, place.place.id.0);
            marks.push(Mark { producer: self.id, number, partition, idempotent: self.idempotent });
            self.number += 1;
            value_bytes.push(self.rng.below(self.bytes_max / count) as usize);
        }
        let timestamp_ms = 1_700_000_000_000 + self.number as i64;
        let identity = self.idempotent.then_some(Identity {
            producer_id: place.producer_id,
            epoch: 0,
            base_sequence: place.sequence,
        });
        place.sequence += marks.len() as i32;
        let compacted = place.compacted;
        let bytes = Vec::new();
        let mut item = Item { target, bytes, life, marks, value_bytes, compacted, identity, timestamp_ms };
        item.encode(life)?;
        Some(item)
    }

    /// Takes answers, sends what may be sent. Counts down `ops` for each new batch.
    pub fn step(
        &mut self,
        world: &SimWorld,
        listener: ListenerId,
        catalog: &Catalog,
        model: &mut Model,
        ops: &mut u64,
    ) -> Result<(), Violation> {
        let now_ns = world.now_ns();
        if let Some(conn) = &self.conn {
            let bytes = conn.recv();
            let over = conn.is_over();
            self.frames.push(&bytes);
            while let Some(frame) = self.frames.next() {
                if !self.answered(&frame, catalog, model)? {
                    self.lost(now_ns);
                    return Ok(());
                }
            }
            if over || self.rng.chance_ppm(self.reset_ppm) {
                self.lost(now_ns);
            }
        }
        if now_ns < self.next_ns {
            return Ok(());
        }
        if self.targets.is_empty() {
            self.find(catalog);
            if self.targets.is_empty() {
                // Its topic is deleted at present. It wants nothing, so that the story can end.
                *ops = ops.saturating_sub(1);
                self.next_ns = now_ns + self.rng.between(1_000_000, 30_000_000);
                return Ok(());
            }
        }
        if self.conn.is_none() {
            if *ops == 0 && self.requests.is_empty() {
                return Ok(());
            }
            self.conn = Some(world.connect(listener));
        }
        if self.requests.len() < self.depth && *ops > 0 && self.make(model.life).is_some() {
            *ops -= 1;
            self.next_ns = now_ns + self.rng.below(self.gap_ns);
        }
        self.send(model);
        Ok(())
    }

    fn send(&mut self, model: &mut Model) {
        let Some(conn) = &self.conn else { return };
        for request in self.requests.iter_mut().filter(|r| !r.sent) {
            request.sent = true;
            let acks = if request.correlation % 3 == 0 { 1 } else { -1 };
            let mut items = Vec::new();
            for item in &mut request.items {
                let Some(Target { place, .. }) = self.targets.get(item.target) else { continue };
                if item.life != model.life {
                    item.encode(model.life).expect("a batch that could be made once");
                }
                model.sent(place.id, item.bytes.len(), &item.marks);
                let named = Named { name: &place.name, id: place.topic.0, index: place.index };
                items.push((named, item.bytes.as_slice()));
            }
            conn.send(&produce(self.naming, request.correlation, acks, &items));
        }
    }

    pub fn deadline_ns(&self, ops: u64) -> u64 {
        let wants = self.requests.len() < self.depth && ops > 0 || self.requests.iter().any(|r| !r.sent);
        if wants { self.next_ns } else { u64::MAX }
    }

    /// False: start over on a new connection.
    fn answered(&mut self, frame: &[u8], catalog: &Catalog, model: &mut Model) -> Result<bool, Violation> {
        let Some((correlation, parts)) = read_produced(self.naming, frame) else {
            return Err(Violation("an answer to Produce cannot be read".to_string()));
        };
        let waiting: Vec<i32> = self.requests.iter().map(|r| r.correlation).collect();
        let Some(mut request) = self.requests.pop_front().filter(|r| r.correlation == correlation) else {
            return Err(Violation(format!(
                "producer {}: an answer to request {correlation}, while it waits for {waiting:?}",
                self.id
            )));
        };
        let mut again = Vec::new();
        let mut dropped = false;
        for item in request.items.drain(..) {
            let Some(target) = self.targets.get(item.target) else { continue };
            let Some(part) = parts.iter().find(|p| p.index == target.place.index) else {
                return Err(Violation(format!("an answer without partition {}", target.place.index)));
            };
            let is_unknown = matches!(part.error, 3 | 100);
            match self.judge(&item, target, *part, catalog, model)? {
                Fate::Done => {}
                Fate::Retry => {
                    let is_first = item.identity.is_some_and(|identity| identity.base_sequence == 0);
                    if let Some(target) = self.targets.get_mut(item.target) {
                        target.began_early |= is_unknown && is_first;
                    }
                    again.push(item);
                }
                Fate::Dropped => dropped = true,
            }
        }
        if dropped {
            self.targets.clear();
            self.requests.clear();
            return Ok(false);
        }
        if again.is_empty() {
            return Ok(true);
        }
        request.items = again;
        self.requests.push_front(request);
        Ok(false)
    }

    fn judge(
        &self,
        item: &Item,
        target: &Target,
        part: Produced,
        catalog: &Catalog,
        model: &mut Model,
    ) -> Result<Fate, Violation> {
        let place = &target.place;
        let relaxed = catalog.named(&place.name).is_some_and(|t| !t.config.is_durable());
        match part.error {
            0 => {
                let about = (item.timestamp_ms, part.log_append_ms, item.bytes.len());
                model.acked(place, part.base_offset, &item.marks, about)?;
                Ok(Fate::Done)
            }
            // Out of disk, out of time: again later.
            56 | 7 | 6 | 19 => Ok(Fate::Retry),
            3 | 100 if !catalog.exists(place.topic) => Ok(Fate::Dropped),
            // The core of this connection has not heard of the topic yet.
            3 | 100 => Ok(Fate::Retry),
            // A relaxed topic lost what it had acked: a producer begins anew, as Kafka's do with a new epoch.
            45 if self.idempotent && relaxed => Ok(Fate::Dropped),
            // What was in flight behind its first batch met the topic, and a partition takes any sequence of a producer that it
            // does not know, as Kafka's do. Such a producer begins anew too.
            45 if target.began_early && item.identity.is_some_and(|i| i.base_sequence == 0) => {
                Ok(Fate::Dropped)
            }
            45 if self.idempotent => Err(Violation(format!(
                "producer {}: the batch after its last acked one is refused as out of order in partition {}",
                self.id, place.id.0
            ))),
            other => Err(Violation(format!(
                "producer {}: partition {} refused its batch with error {other}",
                self.id, place.id.0
            ))),
        }
    }
}
