//! A producer: keeps a few batches in flight, retries them when it is idempotent, forgets them when it is not.

use crate::frames::{Frames, produce, read_produced};
use crate::model::{Mark, Model, Violation};
use ringmill_client::batch::{BatchBuilder, Identity, Record};
use ringmill_reactor::sim::{ListenerId, SimConn, SimRng, SimWorld};
use std::collections::VecDeque;

struct Batch {
    bytes: Vec<u8>,
    marks: Vec<Mark>,
    correlation: i32,
    sent: bool,
}

pub(crate) struct Producer {
    id: u32,
    partition: usize,
    idempotent: bool,
    depth: usize,
    bytes_max: u64,
    gap_ns: u64,
    rng: SimRng,
    conn: Option<SimConn>,
    frames: Frames,
    batches: VecDeque<Batch>,
    number: u64,
    sequence: i32,
    correlation: i32,
    next_ns: u64,
}

impl Producer {
    pub fn new(id: u32, partitions: u64, rng: &mut SimRng) -> Producer {
        let mut rng = rng.fork();
        Producer {
            id,
            partition: rng.below(partitions) as usize,
            idempotent: rng.coin(),
            depth: rng.between(1, 5) as usize,
            bytes_max: *[40, 400, 4_000, 30_000].get(rng.below(4) as usize).unwrap_or(&400),
            gap_ns: if rng.coin() { 2_000_000 } else { 30_000_000 },
            rng,
            conn: None,
            frames: Frames::default(),
            batches: VecDeque::new(),
            number: 0,
            sequence: 0,
            correlation: 0,
            next_ns: 0,
        }
    }

    /// Nothing is waiting for an answer.
    pub fn is_idle(&self) -> bool {
        self.batches.is_empty()
    }

    pub fn lost(&mut self, now_ns: u64) {
        self.conn = None;
        self.frames = Frames::default();
        self.next_ns = now_ns + self.rng.between(100_000, 5_000_000);
        if self.idempotent {
            for batch in &mut self.batches {
                batch.sent = false;
            }
        } else {
            self.batches.clear();
        }
    }

    fn make(&mut self) -> Option<()> {
        let count = self.rng.between(1, 4);
        let mut builder = BatchBuilder::default();
        let mut marks = Vec::new();
        for _ in 0..count {
            let mark = Mark { producer: self.id, number: self.number, idempotent: self.idempotent };
            self.number += 1;
            let len = self.rng.below(self.bytes_max / count) as usize;
            builder.push(&Record {
                key: Some(mark.key()),
                value: Some(mark.value(len)),
                headers: Vec::new(),
                timestamp_ms: 1_600_000_000_000 + self.number as i64,
            });
            marks.push(mark);
        }
        let identity = self.idempotent.then_some(Identity {
            producer_id: 1_000 + i64::from(self.id),
            epoch: 0,
            base_sequence: self.sequence,
        });
        self.sequence += marks.len() as i32;
        self.correlation += 1;
        let bytes = builder.finish(identity).ok()?;
        self.batches.push_back(Batch { bytes, marks, correlation: self.correlation, sent: false });
        Some(())
    }

    /// Takes answers, sends what may be sent. Counts down `ops` for each new batch.
    pub fn step(
        &mut self,
        world: &SimWorld,
        listener: ListenerId,
        model: &mut Model,
        ops: &mut u64,
    ) -> Result<(), Violation> {
        let now_ns = world.now_ns();
        if let Some(conn) = &self.conn {
            let bytes = conn.recv();
            let over = conn.is_over();
            self.frames.push(&bytes);
            while let Some(frame) = self.frames.next() {
                if !self.answered(&frame, model)? {
                    self.lost(now_ns);
                    return Ok(());
                }
            }
            if over {
                self.lost(now_ns);
            }
        }
        if now_ns < self.next_ns {
            return Ok(());
        }
        if self.conn.is_none() {
            if *ops == 0 && self.batches.is_empty() {
                return Ok(());
            }
            self.conn = Some(world.connect(listener));
        }
        if self.batches.len() < self.depth && *ops > 0 && self.make().is_some() {
            *ops -= 1;
            self.next_ns = now_ns + self.rng.below(self.gap_ns);
        }
        if let Some(conn) = &self.conn {
            for batch in self.batches.iter_mut().filter(|b| !b.sent) {
                batch.sent = true;
                let acks = if batch.correlation % 3 == 0 { 1 } else { -1 };
                conn.send(&produce(batch.correlation, acks, "t", self.partition as i32, &batch.bytes));
            }
        }
        Ok(())
    }

    pub fn deadline_ns(&self, ops: u64) -> u64 {
        let wants = self.batches.len() < self.depth && ops > 0 || self.batches.iter().any(|b| !b.sent);
        if wants { self.next_ns } else { u64::MAX }
    }

    /// False: start over on a new connection.
    fn answered(&mut self, frame: &[u8], model: &mut Model) -> Result<bool, Violation> {
        let Some(answer) = read_produced(frame) else {
            return Err(Violation("an answer to Produce cannot be read".to_string()));
        };
        let Some(batch) = self.batches.front().filter(|b| b.correlation == answer.correlation) else {
            return Err(Violation(format!("an answer out of order: {}", answer.correlation)));
        };
        match answer.error {
            0 => {
                model.acked(self.partition, answer.base_offset, &batch.marks)?;
                self.batches.pop_front();
                Ok(true)
            }
            // Out of disk, out of time: again later.
            56 | 7 | 6 | 19 => Ok(false),
            45 if self.idempotent => Err(Violation(format!(
                "producer {}: the batch after its last acked one is refused as out of order",
                self.id
            ))),
            other => Err(Violation(format!("producer {}: refused with error {other}", self.id))),
        }
    }
}
