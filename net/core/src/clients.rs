//! Who is at the other end of a connection, and what came and went over it: for whoever watches, nothing depends on it.
//!
//! Owned by the connection, moves with it to another core, ends with it.

use crate::core::Core;
use crate::metrics::SoftwareCounts;
use ringmill_reactor::Backend;
use ringmill_types::CoreId;
use std::net::SocketAddr;

/// What is remembered of a client id; clients may send 32 KiB of it.
const CLIENT_ID_BYTES_MAX: usize = 64;
/// Connections that one core tells of in one answer.
pub const CONNECTIONS_SHOWN_MAX: usize = 500;
/// One that was used within this is shown before one that was not.
const ACTIVE_NS: u64 = 10_000_000_000;

/// What a connection remembers of its client.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// Of the first request; later ones are not looked at.
    id: Option<Box<str>>,
    software: Option<(Box<str>, Box<str>)>,
    since_ns: u64,
    pub requests: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

impl Client {
    pub fn new(now_ns: u64) -> Client {
        Client { since_ns: now_ns, ..Client::default() }
    }

    /// Every request passes here.
    #[inline]
    pub fn request(&mut self, client_id: Option<&[u8]>) {
        self.requests += 1;
        if self.id.is_none() {
            self.introduce(client_id.unwrap_or_default());
        }
    }

    #[cold]
    fn introduce(&mut self, client_id: &[u8]) {
        let shown = client_id.get(..CLIENT_ID_BYTES_MAX).unwrap_or(client_id);
        self.id = Some(String::from_utf8_lossy(shown).into());
    }

    /// Empty where it sends none.
    pub fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }

    /// From an ApiVersions request (KIP-511).
    pub fn runs(&mut self, name: &str, version: &str) {
        if SoftwareCounts::is_shown(name, version) {
            self.software = Some((name.into(), version.into()));
        }
    }
}

/// A connection as `/v1/connections` shows it. Counters are the connection's own, whichever core it was on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionView {
    pub core: CoreId,
    pub peer: SocketAddr,
    /// Empty before the first request, and where the client sends none.
    pub client_id: String,
    pub software: String,
    pub software_version: String,
    pub age_ms: u64,
    pub idle_ms: u64,
    pub requests: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Requests that were taken and are not answered.
    pub waiting: u64,
    /// Not read from, because its Produce finds no room.
    pub muted: bool,
}

impl<B: Backend> Core<B> {
    /// The connections in use first, then by what they moved; the number of all of them beside it.
    pub(crate) fn connections(&self) -> (u64, Vec<ConnectionView>) {
        let since = |then_ns: u64| self.now_ns.saturating_sub(then_ns);
        let mut all: Vec<_> = self.conns.iter().map(|(_, conn)| conn).collect();
        let rank = |conn: &&crate::conn::Conn| {
            let moved = conn.client.received_bytes + conn.client.sent_bytes;
            (since(conn.last_active_ns) > ACTIVE_NS, std::cmp::Reverse(moved))
        };
        let count = all.len() as u64;
        if all.len() > CONNECTIONS_SHOWN_MAX {
            all.select_nth_unstable_by_key(CONNECTIONS_SHOWN_MAX, rank);
            all.truncate(CONNECTIONS_SHOWN_MAX);
        }
        let views = all.into_iter().map(|conn| {
            let client = &conn.client;
            let software = client.software.as_ref();
            ConnectionView {
                core: self.settings.id,
                peer: conn.peer,
                client_id: client.id().to_string(),
                software: software.map_or("", |(name, _)| name).to_string(),
                software_version: software.map_or("", |(_, version)| version).to_string(),
                age_ms: since(client.since_ns) / 1_000_000,
                idle_ms: since(conn.last_active_ns) / 1_000_000,
                requests: client.requests,
                received_bytes: client.received_bytes,
                sent_bytes: client.sent_bytes,
                waiting: conn.waiting() as u64,
                muted: conn.stalled,
            }
        });
        (count, views.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_remembered_by_its_first_request_and_in_bounds() {
        let mut client = Client::new(0);
        client.request(Some(&[b'x'; 30_000]));
        client.request(Some(b"another"));
        assert_eq!(client.id.as_deref(), Some("x".repeat(CLIENT_ID_BYTES_MAX).as_str()));
        assert_eq!(client.requests, 2);
        client.runs("librdkafka", "2.12.1");
        client.runs(&"y".repeat(1000), "1");
        assert_eq!(client.software, Some(("librdkafka".into(), "2.12.1".into())));
        let mut nameless = Client::new(0);
        nameless.request(None);
        assert_eq!(nameless.id.as_deref(), Some(""));
    }
}
