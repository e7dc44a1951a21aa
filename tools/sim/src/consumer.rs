//! A consumer of one partition: reads on, now and then from an older offset, now and then slowly.

use crate::frames::{Frames, fetch, read_fetched};
use crate::model::{Model, Violation};
use ringmill_reactor::sim::{ListenerId, SimConn, SimRng, SimWorld};

pub(crate) struct Consumer {
    partition: usize,
    rng: SimRng,
    conn: Option<SimConn>,
    frames: Frames,
    offset: i64,
    asked: bool,
    next_ns: u64,
    /// The last answer held nothing: everything up to this offset was read.
    pub caught_up: Option<i64>,
    whole: bool,
}

impl Consumer {
    pub fn new(partition: usize, rng: &mut SimRng) -> Consumer {
        Consumer {
            partition,
            rng: rng.fork(),
            conn: None,
            frames: Frames::default(),
            offset: 0,
            asked: false,
            next_ns: 0,
            caught_up: None,
            whole: false,
        }
    }

    /// One that reads everything from the start and goes nowhere else.
    pub fn whole(partition: usize, rng: &mut SimRng) -> Consumer {
        Consumer { whole: true, ..Consumer::new(partition, rng) }
    }

    pub fn lost(&mut self, now_ns: u64) {
        self.conn = None;
        self.frames = Frames::default();
        self.asked = false;
        self.next_ns = now_ns + self.rng.between(100_000, 5_000_000);
    }

    pub fn step(
        &mut self,
        world: &SimWorld,
        listener: ListenerId,
        model: &mut Model,
    ) -> Result<(), Violation> {
        let now_ns = world.now_ns();
        if now_ns < self.next_ns {
            return Ok(());
        }
        if let Some(conn) = &self.conn {
            self.frames.push(&conn.recv());
            let over = conn.is_over();
            if let Some(frame) = self.frames.next() {
                self.asked = false;
                self.answered(&frame, model)?;
                self.next_ns = now_ns + self.rng.below(3_000_000);
                return Ok(());
            }
            if over {
                self.lost(now_ns);
                return Ok(());
            }
        }
        if !self.asked {
            if !self.whole && self.rng.below(20) == 0 {
                self.offset = self.rng.below(self.offset as u64 + 1) as i64;
            }
            let wait = if self.whole { 0 } else { self.rng.below(100) as i32 };
            let max = self.rng.between(1, 200_000) as i32;
            let conn = self.conn.get_or_insert_with(|| world.connect(listener));
            conn.send(&fetch(7, wait, "t", self.partition as i32, self.offset, max));
            self.asked = true;
        }
        Ok(())
    }

    /// When it wants to act although nothing arrives: at `next_ns`, unless that is past.
    pub fn deadline_ns(&self, now_ns: u64) -> u64 {
        if self.next_ns > now_ns { self.next_ns } else { u64::MAX }
    }

    fn answered(&mut self, frame: &[u8], model: &mut Model) -> Result<(), Violation> {
        let Some(answer) = read_fetched(frame) else {
            return Err(Violation("an answer to Fetch cannot be read".to_string()));
        };
        match answer.error {
            0 => {
                let next =
                    model.fetched(self.partition, self.offset, answer.high_watermark, answer.records)?;
                let done = next >= answer.high_watermark;
                self.caught_up = done.then_some(answer.high_watermark);
                self.offset = next;
                Ok(())
            }
            // The partition is offline after a read error; Fetch 4 knows no KAFKA_STORAGE_ERROR and says 6 for it.
            56 | 6 => Ok(()),
            other => Err(Violation(format!(
                "partition {}: reading at {} was refused with error {other}",
                self.partition, self.offset
            ))),
        }
    }
}
