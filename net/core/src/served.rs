//! Where the time of a request went, kept until its answer has left: for the send histogram, and for the line in the log that a
//! slow one gets.
//!
//! Slow is what took longer than `slow.request.ms` from a request's last byte to the last byte of its answer, without its long
//! poll. How long it was on its way to the broker is told and does not count: Kafka's request log begins there too.

use crate::conn::Conn;
use crate::core::Core;
use crate::metrics::ApiKind;
use crate::slab::Key;
use crate::topics::{TopicName, Topics};
use crate::warn::{self, About};
use ringmill_reactor::Backend;
use ringmill_types::CoreId;
use ringmill_wire::ApiKey;

/// A request whose answer is ready, or that will have none.
pub(crate) struct Served {
    pub api: ApiKey,
    pub receive_us: u64,
    pub wait_us: u64,
    /// Of the wait, what the request asked for itself: a Fetch for records to come, JoinGroup and SyncGroup for other members.
    pub poll_us: u64,
    /// Of Produce and Fetch.
    pub partitions: Option<u32>,
    /// Where it has one partition.
    pub topic: Option<TopicName>,
}

impl Served {
    /// What was answered at once.
    pub fn at_once(api: ApiKey, receive_us: u64) -> Served {
        Served { api, receive_us, wait_us: 0, poll_us: 0, partitions: None, topic: None }
    }

    pub fn kind(&self) -> ApiKind {
        ApiKind::of(self.api)
    }

    /// What counts, sending aside.
    pub fn busy_us(&self) -> u64 {
        self.wait_us.saturating_sub(self.poll_us)
    }
}

/// A request that control is deciding.
pub(crate) struct Deciding {
    pub api: ApiKey,
    pub slot: u64,
    pub since_ns: u64,
    pub receive_us: u64,
    /// The whole answer, where control has something to do first and nothing to say.
    pub prepared: Option<Vec<u8>>,
}

impl Deciding {
    pub fn served(self, now_ns: u64) -> Served {
        let wait_us = now_ns.saturating_sub(self.since_ns) / 1000;
        let is_poll = matches!(self.api, ApiKey::JOIN_GROUP | ApiKey::SYNC_GROUP);
        let poll_us = if is_poll { wait_us } else { 0 };
        Served { wait_us, poll_us, ..Served::at_once(self.api, self.receive_us) }
    }
}

/// Who logs slow requests, and when.
pub(crate) struct SlowLog<'a> {
    pub core: CoreId,
    pub now_ns: u64,
    pub slow_us: u64,
    pub topics: &'a Topics,
}

impl SlowLog<'_> {
    /// A line, if the request was slow; `send_us` of one whose answer has left.
    #[inline]
    pub fn look(&self, conn: Option<&Conn>, served: &Served, send_us: Option<u64>) {
        if served.busy_us() + send_us.unwrap_or(0) > self.slow_us {
            warn::limited(About::SlowRequests, self.now_ns, || self.say(conn, served, send_us));
        }
    }

    #[cold]
    fn say(&self, conn: Option<&Conn>, served: &Served, send_us: Option<u64>) {
        let topic = served.topic.as_ref().and_then(|topic| match topic {
            TopicName::Name(name) => Some(&**name),
            TopicName::Id(id) => self.topics.with_id(*id).map(|spec| &*spec.name),
        });
        tracing::warn!(
            core = self.core.0,
            api = served.api.name().unwrap_or("?"),
            client_id = conn.map(|conn| conn.client.id()),
            peer = conn.map(|conn| tracing::field::display(conn.peer)),
            topic,
            partitions = served.partitions,
            receive_ms = served.receive_us / 1000,
            wait_ms = served.wait_us / 1000,
            poll_ms = (served.poll_us > 0).then_some(served.poll_us / 1000),
            send_ms = send_us.map(|us| us / 1000),
            "slow request"
        );
    }
}

impl<B: Backend> Core<B> {
    /// A request without an answer that leaves: nobody asked for one, or nobody is there to take it.
    pub(crate) fn look_if_slow(&self, key: Key, served: &Served) {
        let log = SlowLog {
            core: self.settings.id,
            now_ns: self.now_ns,
            slow_us: self.slow_request_us(),
            topics: &self.topics,
        };
        log.look(self.conns.get(key), served, None);
    }
}
