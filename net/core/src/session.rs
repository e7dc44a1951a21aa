//! Fetch sessions (KIP-227): what a client last asked for, so that it need not say it again and is told only news.
//!
//! Owned by the core of the connection. A session that is not found makes the client begin anew, so losing one costs a
//! full fetch and nothing else.

use crate::topics::TopicName;
use ringmill_types::{CoreId, ErrorCode, LeaderEpoch, Offset};
use ringmill_wire::TopicRef;
use ringmill_wire::fetch::FetchRequest;
use std::collections::HashMap;

/// A session not used for this long may be pushed out by a new one.
const EVICT_AFTER_NS: u64 = 120_000_000_000;

/// A partition as the client names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PartKey {
    pub topic: TopicName,
    pub index: i32,
}

/// What is asked of a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    pub offset: Offset,
    pub max_bytes: i32,
    pub current_epoch: LeaderEpoch,
}

/// Partitions of one look at a session, in answer order.
pub(crate) type Parts = Vec<(PartKey, Want)>;

pub(crate) enum Opened {
    /// All partitions are answered; a session of this id was begun unless it is 0.
    Full {
        session_id: i32,
        parts: Parts,
    },
    /// Only news is answered.
    Incremental {
        session_id: i32,
        parts: Parts,
    },
    Refused(ErrorCode),
}

struct Entry {
    want: Want,
    high_watermark: Offset,
    log_start: Offset,
    failed: bool,
}

struct Session {
    epoch: i32,
    by_id: bool,
    order: Vec<PartKey>,
    entries: HashMap<PartKey, Entry>,
    used_ns: u64,
    /// Where the next answer begins, so that no partition starves under a byte limit.
    rotate: usize,
}

pub(crate) struct Sessions {
    sessions: HashMap<i32, Session>,
    next_id: i32,
    core: CoreId,
    max: usize,
}

impl Sessions {
    pub fn new(core: CoreId, max: usize) -> Sessions {
        Sessions { sessions: HashMap::new(), next_id: 0, core, max }
    }

    /// Applies the session part of a request.
    pub fn open(&mut self, request: &FetchRequest<'_>, now_ns: u64) -> Opened {
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch == -1 || epoch == 0 {
            if id != 0 {
                self.sessions.remove(&id);
            }
            let parts = parts_of(request);
            let session_id = if epoch == 0 { self.begin(&parts, now_ns) } else { 0 };
            return Opened::Full { session_id, parts };
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return Opened::Refused(ErrorCode::FetchSessionIdNotFound);
        };
        if session.epoch != epoch {
            return Opened::Refused(ErrorCode::InvalidFetchSessionEpoch);
        }
        session.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        session.used_ns = now_ns;
        let parts = parts_of(request);
        let by_id = parts.first().map_or(session.by_id, |(key, _)| matches!(key.topic, TopicName::Id(_)));
        if by_id != session.by_id {
            return Opened::Refused(ErrorCode::FetchSessionTopicIdError);
        }
        for topic in request.forgotten() {
            let name = owned(topic.topic);
            for index in topic.partitions() {
                let key = PartKey { topic: name.clone(), index };
                if session.entries.remove(&key).is_some() {
                    session.order.retain(|k| *k != key);
                }
            }
        }
        for (key, want) in parts {
            session.put(key, want);
        }
        Opened::Incremental { session_id: id, parts: session.list() }
    }

    fn begin(&mut self, parts: &Parts, now_ns: u64) -> i32 {
        if parts.is_empty() {
            return 0;
        }
        if self.sessions.len() >= self.max {
            let stale = self
                .sessions
                .iter()
                .filter(|(_, s)| now_ns.saturating_sub(s.used_ns) > EVICT_AFTER_NS)
                .map(|(id, _)| *id)
                .next();
            let Some(stale) = stale else { return 0 };
            self.sessions.remove(&stale);
        }
        self.next_id = (self.next_id + 1) & 0x3f_ffff;
        // The core's number keeps ids of different cores apart, so that a moved client is told, not mixed up.
        let id = i32::from(self.core.0 as i16 & 0xff) << 23 | self.next_id.max(1);
        let by_id = parts.first().is_some_and(|(key, _)| matches!(key.topic, TopicName::Id(_)));
        let mut session = Session {
            epoch: 1,
            by_id,
            order: Vec::new(),
            entries: HashMap::new(),
            used_ns: now_ns,
            rotate: 0,
        };
        for (key, want) in parts {
            session.put(key.clone(), *want);
        }
        self.sessions.insert(id, session);
        id
    }

    /// Remembers what the client is told of a partition; true when it is news.
    pub fn note(
        &mut self,
        session_id: i32,
        key: &PartKey,
        high_watermark: Offset,
        log_start: Offset,
        error: ErrorCode,
    ) -> bool {
        let Some(entry) = self.sessions.get_mut(&session_id).and_then(|s| s.entries.get_mut(key)) else {
            return false;
        };
        let failed = error != ErrorCode::None;
        let news =
            entry.high_watermark != high_watermark || entry.log_start != log_start || entry.failed && !failed;
        entry.high_watermark = high_watermark;
        entry.log_start = log_start;
        entry.failed = failed;
        news
    }

    /// The connection of a session closed: it may be evicted at once.
    pub fn note_gone(&mut self, session_id: u32) {
        if let Some(session) = self.sessions.get_mut(&(session_id as i32)) {
            session.used_ns = 0;
        }
    }
}

impl Session {
    fn put(&mut self, key: PartKey, want: Want) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.want = want;
            return;
        }
        self.order.push(key.clone());
        self.entries
            .insert(key, Entry { want, high_watermark: Offset(-1), log_start: Offset(-1), failed: false });
    }

    fn list(&mut self) -> Parts {
        let len = self.order.len();
        if len == 0 {
            return Vec::new();
        }
        self.rotate = (self.rotate + 1) % len;
        let keys = self.order.iter().skip(self.rotate).chain(self.order.iter().take(self.rotate));
        keys.filter_map(|key| self.entries.get(key).map(|e| (key.clone(), e.want))).collect()
    }
}

fn owned(topic: TopicRef<'_>) -> TopicName {
    match topic {
        TopicRef::Name(name) => TopicName::Name(name.into()),
        TopicRef::Id(id) => TopicName::Id(id),
    }
}

fn parts_of(request: &FetchRequest<'_>) -> Parts {
    let mut parts = Vec::with_capacity(request.partition_count);
    for topic in request.topics() {
        let name = owned(topic.topic);
        for partition in topic.partitions() {
            let want = Want {
                offset: partition.fetch_offset,
                max_bytes: partition.max_bytes,
                current_epoch: partition.current_leader_epoch,
            };
            parts.push((PartKey { topic: name.clone(), index: partition.index }, want));
        }
    }
    parts
}
