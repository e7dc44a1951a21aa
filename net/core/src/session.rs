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

/// Partitions that all sessions of a core remember, together: some 150 bytes each. A client for which there is no room
/// is served without a session.
const PARTS_MAX: usize = 500_000;

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
    /// Partitions of all sessions, at most `parts_max`.
    parts: usize,
    parts_max: usize,
}

impl Sessions {
    pub fn new(core: CoreId, max: usize) -> Sessions {
        Sessions { sessions: HashMap::new(), next_id: 0, core, max, parts: 0, parts_max: PARTS_MAX }
    }

    /// Applies the session part of a request.
    pub fn open(&mut self, request: &FetchRequest<'_>, now_ns: u64) -> Opened {
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch == -1 || epoch == 0 {
            if id != 0 {
                self.remove(id);
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
        let before = session.entries.len();
        for topic in request.forgotten() {
            let name = owned(topic.topic);
            for index in topic.partitions() {
                session.entries.remove(&PartKey { topic: name.clone(), index });
            }
        }
        if session.entries.len() < before {
            // Once for all of them: a search for each would keep the core for seconds.
            let entries = &session.entries;
            session.order.retain(|key| entries.contains_key(key));
        }
        for (key, want) in parts {
            session.put(key, want);
        }
        let (now, listed) = (session.entries.len(), session.list());
        self.parts = self.parts - before + now;
        if self.parts > self.parts_max {
            // It begins anew, with what room there is then.
            self.remove(id);
            return Opened::Refused(ErrorCode::FetchSessionIdNotFound);
        }
        Opened::Incremental { session_id: id, parts: listed }
    }

    fn remove(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.parts -= session.entries.len();
        }
    }

    fn begin(&mut self, parts: &Parts, now_ns: u64) -> i32 {
        if parts.is_empty() {
            return 0;
        }
        while self.sessions.len() >= self.max || self.parts + parts.len() > self.parts_max {
            let stale = self
                .sessions
                .iter()
                .filter(|(_, s)| now_ns.saturating_sub(s.used_ns) > EVICT_AFTER_NS)
                .map(|(id, _)| *id)
                .next();
            let Some(stale) = stale else { return 0 };
            self.remove(stale);
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
        self.parts += session.entries.len();
        if let Some(old) = self.sessions.insert(id, session) {
            self.parts -= old.entries.len();
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use ringmill_wire::RequestHeader;

    /// Fetch 7 of partitions of the topic `t`, forgetting others.
    fn open(sessions: &mut Sessions, (id, epoch): (i32, i32), parts: &[i32], forgotten: &[i32]) -> Opened {
        let mut frame = Vec::new();
        frame.extend(1i16.to_be_bytes());
        frame.extend(7i16.to_be_bytes());
        frame.extend(1i32.to_be_bytes());
        frame.extend((-1i16).to_be_bytes());
        for field in [-1, 0, 0, 1000] {
            frame.extend(i32::to_be_bytes(field));
        }
        frame.push(0);
        frame.extend(id.to_be_bytes());
        frame.extend(epoch.to_be_bytes());
        for (list, rest) in [(parts, 20), (forgotten, 0)] {
            frame.extend(1i32.to_be_bytes());
            frame.extend([0, 1, b't']);
            frame.extend((list.len() as i32).to_be_bytes());
            for index in list {
                frame.extend(index.to_be_bytes());
                frame.extend(vec![0; rest]);
            }
        }
        let header = RequestHeader::parse(&frame).expect("a whole header");
        sessions.open(&FetchRequest::parse(&header, &frame).expect("a whole request"), 0)
    }

    fn indexes(opened: Opened) -> (i32, Vec<i32>) {
        match opened {
            Opened::Full { session_id, parts } | Opened::Incremental { session_id, parts } => {
                let mut indexes: Vec<i32> = parts.into_iter().map(|(key, _)| key.index).collect();
                indexes.sort_unstable();
                (session_id, indexes)
            }
            Opened::Refused(code) => panic!("refused with {code:?}"),
        }
    }

    #[test]
    fn forgotten_partitions_are_not_listed_again_and_give_back_their_room() {
        let mut sessions = Sessions::new(CoreId(0), 10);
        let (id, _) = indexes(open(&mut sessions, (0, 0), &[0, 1, 2, 3, 3], &[]));
        assert_eq!(sessions.parts, 4);
        let (_, left) = indexes(open(&mut sessions, (id, 1), &[2, 5], &[0, 2, 3, 77]));
        assert_eq!(left, [1, 2, 5]);
        assert_eq!(sessions.parts, 3);
        open(&mut sessions, (id, -1), &[0], &[]);
        assert_eq!(sessions.parts, 0);
    }

    #[test]
    fn partitions_of_all_sessions_have_a_limit() {
        let mut sessions = Sessions::new(CoreId(0), 10);
        sessions.parts_max = 5;
        let (first, _) = indexes(open(&mut sessions, (0, 0), &[0, 1, 2], &[]));
        // Without room a fetch is served all the same.
        assert_eq!(indexes(open(&mut sessions, (0, 0), &[0, 1, 2], &[])), (0, vec![0, 1, 2]));
        assert_ne!(indexes(open(&mut sessions, (0, 0), &[0, 1], &[])).0, 0);
        assert!(matches!(
            open(&mut sessions, (first, 1), &[3], &[]),
            Opened::Refused(ErrorCode::FetchSessionIdNotFound)
        ));
        assert_eq!(sessions.parts, 2);
        assert_eq!(sessions.sessions.len(), 1);
    }
}
