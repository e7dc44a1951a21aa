//! A consumer of one or more partitions of a topic: reads on, now and then from an older offset, now and then slowly;
//! by name, by id, or in a fetch session.

use crate::catalog::{Catalog, Place};
use crate::frames::{Ask, Fetched, Frames, Named, Naming, fetch_by_id, fetch_by_name, read_fetched};
use crate::model::{Model, Read, Violation};
use crate::node::Node;
use ringmill_reactor::sim::{SimConn, SimRng, SimWorld};
use std::sync::Arc;

/// Where it stands in one partition.
struct Follow {
    place: Place,
    offset: i64,
    /// In a session: the broker does not know of this offset yet.
    news: bool,
    /// The last answer held nothing: everything up to this offset was read.
    caught_up: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    ByName,
    ById,
    Session,
}

pub(crate) struct Consumer {
    topic: Arc<str>,
    kind: Kind,
    /// Of the topic's partitions, those from this one on.
    first: usize,
    count: usize,
    follows: Vec<Follow>,
    session: (i32, i32),
    rng: SimRng,
    conn: Option<SimConn>,
    frames: Frames,
    asked: bool,
    next_ns: u64,
    /// Longest pause before it takes what arrived.
    pause_ns: u64,
    whole: bool,
}

impl Consumer {
    pub fn new(topic: Arc<str>, short_lived: bool, rng: &mut SimRng) -> Consumer {
        let mut rng = rng.fork();
        let kind = match rng.below(if short_lived { 2 } else { 3 }) {
            0 => Kind::ById,
            1 => Kind::Session,
            _ => Kind::ByName,
        };
        Consumer {
            topic,
            kind,
            first: rng.below(4) as usize,
            count: if kind == Kind::ByName { 1 } else { rng.between(1, 3) as usize },
            follows: Vec::new(),
            session: (0, if kind == Kind::Session { 0 } else { -1 }),
            conn: None,
            frames: Frames::default(),
            asked: false,
            next_ns: 0,
            pause_ns: if rng.below(4) == 0 { 150_000_000 } else { 3_000_000 },
            whole: false,
            rng,
        }
    }

    /// One that reads a partition from the start and goes nowhere else.
    pub fn whole(topic: Arc<str>, partition: usize, rng: &mut SimRng) -> Consumer {
        let mut consumer = Consumer::new(topic, false, rng);
        consumer.kind = Kind::ById;
        consumer.session = (0, -1);
        (consumer.first, consumer.count, consumer.whole) = (partition, 1, true);
        consumer.pause_ns = 3_000_000;
        consumer
    }

    /// Up to where all of it was read.
    pub fn caught_up(&self) -> Option<i64> {
        self.follows.first().and_then(|f| f.caught_up)
    }

    pub fn lost(&mut self, now_ns: u64) {
        self.conn = None;
        self.frames = Frames::default();
        self.asked = false;
        self.begin_session();
        self.next_ns = now_ns + self.rng.between(100_000, 5_000_000);
    }

    fn begin_session(&mut self) {
        if self.kind == Kind::Session {
            self.session = (self.session.0, 0);
            self.follows.iter_mut().for_each(|f| f.news = true);
        }
    }

    fn find(&mut self, catalog: &Catalog) {
        let places = catalog.places(&self.topic);
        let len = places.len();
        let follow = |place| Follow { place, offset: 0, news: true, caught_up: None };
        let chosen = places.into_iter().cycle().skip(self.first);
        self.follows = chosen.take(self.count.min(len)).map(follow).collect();
        self.begin_session();
    }

    pub fn step(
        &mut self,
        world: &SimWorld,
        node: &Node,
        catalog: &Catalog,
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
                self.answered(&frame, node, catalog, model)?;
                self.next_ns = now_ns + self.rng.below(self.pause_ns);
                return Ok(());
            }
            if over || !self.whole && self.rng.chance_ppm(5_000) {
                self.lost(now_ns);
                return Ok(());
            }
        }
        if self.asked {
            return Ok(());
        }
        if self.follows.is_empty() {
            self.find(catalog);
            if self.follows.is_empty() {
                self.next_ns = now_ns + self.rng.between(1_000_000, 30_000_000);
                return Ok(());
            }
        }
        if self.conn.is_none() {
            let Some(listener) = node.listener(&mut self.rng) else { return Ok(()) };
            self.conn = Some(world.connect(listener));
        }
        let request = self.request();
        if let Some(conn) = &self.conn {
            conn.send(&request);
            self.asked = true;
        }
        Ok(())
    }

    fn request(&mut self) -> Vec<u8> {
        if !self.whole && self.rng.below(20) == 0 {
            let which = self.rng.below(self.follows.len() as u64) as usize;
            if let Some(follow) = self.follows.get_mut(which) {
                follow.offset = self.rng.below(follow.offset as u64 + 1) as i64;
                follow.news = true;
            }
        }
        let wait = if self.whole { 0 } else { self.rng.below(100) as i32 };
        let mut asks = Vec::new();
        for follow in &mut self.follows {
            // In a session only what changed is said again.
            let said = self.kind == Kind::Session && self.session.1 > 0 && !follow.news;
            if !said {
                follow.news = false;
                let place = &follow.place;
                let named = Named { name: &place.name, id: place.topic.0, index: place.index };
                let max_bytes = self.rng.between(1, 200_000) as i32;
                asks.push(Ask { place: named, offset: follow.offset, max_bytes });
            }
        }
        match (self.kind, asks.first()) {
            (Kind::ByName, Some(ask)) => fetch_by_name(wait, ask),
            _ => fetch_by_id(wait, self.rng.between(1, 1 << 20) as i32, self.session, &asks),
        }
    }

    /// When it wants to act although nothing arrives: at `next_ns`, unless that is past.
    pub fn deadline_ns(&self, now_ns: u64) -> u64 {
        if self.next_ns > now_ns { self.next_ns } else { u64::MAX }
    }

    fn answered(
        &mut self,
        frame: &[u8],
        node: &Node,
        catalog: &Catalog,
        model: &mut Model,
    ) -> Result<(), Violation> {
        let naming = if self.kind == Kind::ByName { Naming::Name } else { Naming::Id };
        let Some(answer) = read_fetched(naming, frame) else {
            return Err(Violation("an answer to Fetch cannot be read".to_string()));
        };
        match answer.error {
            0 => {}
            // Sessions belong to a core; another one, or the same in another life, does not know them.
            70 | 71 if self.kind == Kind::Session => {
                self.session = (0, 0);
                self.begin_session();
                return Ok(());
            }
            other => return Err(Violation(format!("a fetch was refused with error {other}"))),
        }
        if self.kind == Kind::Session {
            let next = if answer.session_id == 0 { 0 } else { self.session.1 + 1 };
            if self.session.1 > 0 && answer.session_id != self.session.0 {
                return Err(Violation("an answer of another fetch session".to_string()));
            }
            self.session = (answer.session_id, next);
        }
        let mut gone = false;
        for part in &answer.parts {
            let found = self.follows.iter_mut().find(|f| {
                f.place.index == part.index && part.topic.is_none_or(|topic| topic == f.place.topic.0)
            });
            let Some(follow) = found else {
                return Err(Violation(format!("a fetch gave partition {}, which was not asked", part.index)));
            };
            gone |= !follow.take(part, node, catalog, model)?;
        }
        if gone {
            self.follows.clear();
        }
        Ok(())
    }
}

impl Follow {
    /// False when the topic is gone.
    fn take(
        &mut self,
        part: &Fetched<'_>,
        node: &Node,
        catalog: &Catalog,
        model: &mut Model,
    ) -> Result<bool, Violation> {
        let id = self.place.id;
        match part.error {
            0 => {
                let (from, high_watermark) = (self.offset, part.high_watermark);
                let read = Read { from, high_watermark, log_start: part.log_start, records: part.records };
                let next = model.fetched(&self.place, &read)?;
                self.caught_up = (next >= high_watermark).then_some(high_watermark);
                self.news |= next != self.offset;
                self.offset = next;
                Ok(true)
            }
            // The partition is offline after a read error; Fetch 4 knows no KAFKA_STORAGE_ERROR and says 6 for it.
            56 | 6 => Ok(true),
            3 | 100 => Ok(catalog.exists(self.place.topic)),
            1 => {
                let Some(view) = node.view(id) else { return Ok(true) };
                if self.offset >= view.log_start.0 && !view.relaxed {
                    return Err(Violation(format!(
                        "partition {}: reading at {} is out of range, and the log is {}..{}",
                        id.0, self.offset, view.log_start.0, view.high_watermark.0
                    )));
                }
                self.offset = view.log_start.0;
                self.news = true;
                Ok(true)
            }
            other => Err(Violation(format!(
                "partition {}: reading at {} was refused with error {other}",
                id.0, self.offset
            ))),
        }
    }
}
