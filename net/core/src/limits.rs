//! Client quotas (KIP-13, KIP-124, KIP-219): what a client may send, fetch and have done per second.
//!
//! A quota is one for the whole broker, and a client's connections lie on any core: so each quota in use is one
//! [`Allowance`], which every core charges. Control decides which allowances bind a client and hands them
//! out by message; a core asks once for each client it meets, and lets it go on meanwhile, owing what it does.
//!
//! A request is never refused and never waits: it is answered at once with its throttle time, and its connection is not
//! read until that is over. While nobody has quotas a request costs one look at a flag.

use crate::conn::FrameBytes;
use crate::core::Core;
use crate::messages::{Answer, ControlMessage};
use crate::pace::Pace;
use crate::slab::Key;
use ringmill_reactor::Backend;
use ringmill_wire::{ApiKey, RequestHeader, ResponseHead};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// What a client may do at once after a pause: the quota of so long. Kafka looks at windows of as much
/// (`quota.window.size.seconds`).
const CREDIT_NS: u64 = 1_000_000_000;
/// The longest pause for bytes. Kafka has no bound; a connection that is not read for ever is one nobody finds again.
const PAUSE_NS_MAX: u64 = 3_600_000_000_000;
/// The longest pause for time, as in Kafka: one window.
const PAUSE_FOR_TIME_NS_MAX: u64 = 1_000_000_000;
/// Clients a core remembers the limits of; with more, it forgets them all and asks again.
const CLIENTS_MAX: usize = 4096;
/// Of a longer client id only so many bytes tell it from others.
const CLIENT_ID_BYTES_MAX: usize = 1024;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limited {
    /// Bytes of Produce requests.
    Produce,
    /// Bytes of records in Fetch answers.
    Fetch,
    /// Nanoseconds that threads of the broker spend on requests.
    Time,
}

impl Limited {
    pub const ALL: [Limited; 3] = [Limited::Produce, Limited::Fetch, Limited::Time];

    fn place(self) -> usize {
        match self {
            Limited::Produce => 0,
            Limited::Fetch => 1,
            Limited::Time => 2,
        }
    }

    fn pause_ns_max(self) -> u64 {
        match self {
            Limited::Produce | Limited::Fetch => PAUSE_NS_MAX,
            Limited::Time => PAUSE_FOR_TIME_NS_MAX,
        }
    }
}

/// One quota in use, shared by all connections that it binds, on all cores.
#[derive(Debug)]
pub struct Allowance {
    limited: Limited,
    pace: Pace,
}

impl Allowance {
    /// `per_second` is in bytes, or for time in nanoseconds of threads; above 0.
    pub fn new(limited: Limited, per_second: f64) -> Allowance {
        Allowance { limited, pace: Pace::new(per_second, CREDIT_NS) }
    }

    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Charges so much; how long the client has to pause before it does more.
    pub fn charge(&self, amount: u64, now_ns: u64) -> u64 {
        self.pace.charge(amount, now_ns, self.limited.pause_ns_max())
    }
}

/// The allowances that bind one client; none of a kind is unlimited.
#[derive(Clone, Debug, Default)]
pub struct ClientLimits {
    of: [Option<Arc<Allowance>>; 3],
}

impl ClientLimits {
    pub fn set(&mut self, allowance: Arc<Allowance>) {
        if let Some(place) = self.of.get_mut(allowance.limited.place()) {
            *place = Some(allowance);
        }
    }

    pub fn of(&self, limited: Limited) -> Option<&Arc<Allowance>> {
        self.of.get(limited.place())?.as_ref()
    }
}

/// A client's id, as far as it tells it from others.
pub(crate) type ClientId = Arc<[u8]>;

enum Known {
    /// Control was asked; what the client did meanwhile is charged when it has answered.
    Asked([u64; 3]),
    Limits(Arc<ClientLimits>),
}

/// What one core knows of limits. Ends with it.
#[derive(Default)]
pub(crate) struct Limits {
    clients: HashMap<ClientId, Known>,
    /// Connections that are not read, by when they are again.
    paused: BTreeSet<(u64, Key)>,
    /// Who sent the fetch that is being taken up.
    pub fetching: Option<ClientId>,
    /// Up to when the time of the request in hand is charged.
    charged_ns: u64,
}

impl Limits {
    /// Quotas changed: whoever comes is asked for anew. Debts stay with the allowances that stay.
    pub fn forget(&mut self) {
        self.clients.clear();
    }

    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.paused.first().map(|(at, _)| *at)
    }

    pub fn paused(&self) -> u64 {
        self.paused.len() as u64
    }

    pub fn closed(&mut self, key: Key, paused_until_ns: u64) {
        self.paused.remove(&(paused_until_ns, key));
    }
}

/// Who sent a frame.
pub(crate) fn client_of(client_id: Option<&[u8]>) -> ClientId {
    let id = client_id.unwrap_or_default();
    id.get(..CLIENT_ID_BYTES_MAX).unwrap_or(id).into()
}

impl<B: Backend> Core<B> {
    /// Handles a request where somebody has quotas: its bytes and the time it takes are charged.
    pub(crate) fn dispatch_charged(&mut self, key: Key, frame: FrameBytes) -> bool {
        self.limits.charged_ns = self.io.now_ns();
        let Ok(header) = RequestHeader::parse(&frame) else { return false };
        let (api, client) = (header.api_key, client_of(header.client_id));
        if api == ApiKey::PRODUCE {
            self.charge(key, &client, Limited::Produce, frame.len() as u64);
        } else if api == ApiKey::FETCH {
            self.limits.fetching = Some(client.clone());
        } else if api != ApiKey::API_VERSIONS
            && let Some(conn) = self.conns.get_mut(key)
        {
            conn.asked = Some((header.response_head(), client.clone()));
        }
        let open = self.dispatch(key, api, frame);
        self.charge_time(key, &client);
        open
    }

    /// Charges the time of the request in hand that was not charged yet.
    fn charge_time(&mut self, key: Key, client: &ClientId) {
        let now_ns = self.io.now_ns();
        let busy_ns = now_ns.saturating_sub(std::mem::replace(&mut self.limits.charged_ns, now_ns));
        self.charge(key, client, Limited::Time, busy_ns);
    }

    /// Charges a request that this core answers at once, before its answer leaves: that says how long to pause.
    pub(crate) fn charge_at_once(&mut self, key: Key, bytes: &mut [u8]) {
        let Some((head, client)) = self.conns.get_mut(key).and_then(|conn| conn.asked.take()) else { return };
        self.charge_time(key, &client);
        self.say_pause(key, head, bytes);
    }

    fn say_pause(&self, key: Key, head: ResponseHead, bytes: &mut [u8]) {
        let throttle_ms = self.conns.get(key).map_or(0, |conn| conn.throttle_ms(self.now_ns));
        ringmill_wire::patch_throttle(head, bytes, throttle_ms);
    }

    /// The same for what control worked, and for what it says of partitions that the client had created or deleted. The
    /// answer's bytes, which begin with their length, say how long to pause.
    pub(crate) fn charge_for_control(&mut self, key: Key, answer: &Answer, bytes: &mut [u8]) {
        let Some((head, client)) = self.conns.get_mut(key).and_then(|conn| conn.asked.take()) else { return };
        self.charge(key, &client, Limited::Time, answer.busy_ns);
        if answer.pause_ms > 0 {
            let pause_ns = u64::from(answer.pause_ms) * 1_000_000;
            self.metrics.throttled_mutations.requests += 1;
            self.metrics.throttled_mutations.pauses_ns += pause_ns;
            self.pause_until(key, self.now_ns + pause_ns);
        }
        self.say_pause(key, head, bytes);
    }

    /// Charges a client for what its connection did; where that is more than it may, the connection pauses.
    pub(crate) fn charge(&mut self, key: Key, client: &ClientId, limited: Limited, amount: u64) {
        match self.limits.clients.get_mut(client) {
            Some(Known::Limits(limits)) => {
                let Some(allowance) = limits.of(limited) else { return };
                let pause_ns = allowance.charge(amount, self.now_ns);
                self.pause(key, limited, pause_ns);
            }
            Some(Known::Asked(owed)) => {
                if let Some(owed) = owed.get_mut(limited.place()) {
                    *owed += amount;
                }
            }
            None => {
                if self.limits.clients.len() >= CLIENTS_MAX {
                    self.limits.forget();
                }
                let mut owed = [0; 3];
                if let Some(owed) = owed.get_mut(limited.place()) {
                    *owed = amount;
                }
                self.limits.clients.insert(client.clone(), Known::Asked(owed));
                let (core, now_ns) = (self.settings.id, self.now_ns);
                self.tell_control(ControlMessage::Limits { core, client: client.clone(), now_ns });
            }
        }
    }

    /// Control says what binds a client.
    pub(crate) fn limits_known(&mut self, client: ClientId, limits: Arc<ClientLimits>) {
        // Forgotten meanwhile: it will be asked for again.
        let Some(known) = self.limits.clients.get_mut(&client) else { return };
        if let Known::Asked(owed) = known {
            for limited in Limited::ALL {
                let owed = owed.get(limited.place()).copied().unwrap_or(0);
                if let Some(allowance) = limits.of(limited).filter(|_| owed > 0) {
                    allowance.charge(owed, self.now_ns);
                }
            }
        }
        *known = Known::Limits(limits);
    }

    /// Record bytes that one answer to the client may have: more would make it pause for longer than it has to.
    pub(crate) fn fetch_bytes_max(&self, client: &ClientId) -> usize {
        match self.limits.clients.get(client) {
            Some(Known::Limits(limits)) => limits
                .of(Limited::Fetch)
                .map_or(usize::MAX, |a| usize::try_from(a.pace.at_once().max(1)).unwrap_or(usize::MAX)),
            Some(Known::Asked(_)) | None => usize::MAX,
        }
    }

    fn pause(&mut self, key: Key, limited: Limited, pause_ns: u64) {
        if pause_ns == 0 {
            return;
        }
        let throttled = match limited {
            Limited::Produce => &mut self.metrics.throttled_produce,
            Limited::Fetch => &mut self.metrics.throttled_fetch,
            Limited::Time => &mut self.metrics.throttled_time,
        };
        throttled.requests += 1;
        throttled.pauses_ns += pause_ns;
        self.pause_until(key, self.now_ns + pause_ns);
    }

    fn pause_until(&mut self, key: Key, until_ns: u64) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if until_ns <= conn.paused_until_ns {
            return;
        }
        self.limits.paused.remove(&(conn.paused_until_ns, key));
        self.limits.paused.insert((until_ns, key));
        conn.paused_until_ns = until_ns;
    }

    /// Connections whose pause is over are read again.
    pub(crate) fn end_pauses(&mut self) {
        while let Some((at_ns, key)) = self.limits.paused.first().copied() {
            if at_ns > self.now_ns {
                break;
            }
            self.limits.paused.pop_first();
            self.advance_input(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const MIB: u64 = 1 << 20;

    #[test]
    fn who_sends_as_fast_as_allowed_gets_the_quota_on_average_and_little_more_in_any_window() {
        let allowance = Allowance::new(Limited::Produce, MIB as f64);
        let (mut now, mut sent) = (100 * SECOND, Vec::new());
        while now < 160 * SECOND {
            // Requests of very different sizes, each as soon as the pause of the one before is over.
            let bytes = 1 + (sent.len() as u64 * 7919) % (3 * MIB);
            sent.push((now, bytes));
            now += allowance.charge(bytes, now).max(1_000_000);
        }
        let in_window = |from: u64, to: u64| -> u64 {
            sent.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, bytes)| bytes).sum()
        };
        let whole = in_window(0, u64::MAX);
        assert!((60 * MIB..=64 * MIB).contains(&whole), "{whole}");
        for from in 100..150 {
            // A window has its quota, the credit before it, and the request that crosses its end.
            assert!(in_window(from * SECOND, (from + 10) * SECOND) <= (10 + 1 + 3) * MIB);
        }
    }

    #[test]
    fn many_cores_share_one_allowance_to_the_byte() {
        let allowance = Allowance::new(Limited::Fetch, 1e6);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).map(|_| allowance.charge(100, 10 * SECOND)).max());
            }
        });
        // 4 MB at 1 MB a second, one second of it as credit.
        let owed = allowance.charge(0, 10 * SECOND);
        assert!(owed.abs_diff(3 * SECOND) < 1_000_000, "{owed}");
    }

    #[test]
    fn pauses_have_a_bound_and_credit_is_not_saved_up() {
        let bytes = Allowance::new(Limited::Produce, 1.0);
        assert_eq!(bytes.charge(u64::MAX, 5 * SECOND), PAUSE_NS_MAX);
        let time = Allowance::new(Limited::Time, 1e7);
        assert_eq!(time.charge(SECOND, 5 * SECOND), PAUSE_FOR_TIME_NS_MAX);

        let idle = Allowance::new(Limited::Produce, 1000.0);
        assert_eq!(idle.charge(1000, 3600 * SECOND), 0, "a second's worth");
        assert_eq!(idle.charge(1000, 3600 * SECOND), SECOND, "and not an hour's");
        assert!(!idle.pace.is_even(3601 * SECOND) && idle.pace.is_even(3602 * SECOND));
    }

    #[test]
    fn ids_are_told_apart_by_their_beginning() {
        let long = |end: u8| {
            let mut id = vec![b'x'; CLIENT_ID_BYTES_MAX + 1];
            id[CLIENT_ID_BYTES_MAX] = end;
            client_of(Some(&id))
        };
        assert_eq!(long(1), long(2));
        assert_eq!(client_of(None), client_of(Some(b"")));
    }
}
