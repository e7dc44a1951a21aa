//! Which quotas bind which client or address, and the one allowance of each quota in use.
//!
//! Owned by control; cores ask for each client they meet and share what they are given, see `ringmill_core::limits`. An
//! allowance is kept while a core holds it or something is owed, so that a client that comes again finds its debts.

use crate::api::quotas::{CLIENT_ID, CONNECTION_RATE, IP, USER};
use crate::control::Control;
use crate::kept::Kept;
use crate::mutations;
use ringmill_core::addresses::connection_pace;
use ringmill_core::limits::{Allowance, ClientLimits, Limited};
use ringmill_core::pace::Pace;
use ringmill_core::{ConnKey, CoreMessage};
use ringmill_metadata::Image;
use ringmill_metadata::records::{QuotaEntity, Quotas};
use ringmill_types::CoreId;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// Who everybody is, without authentication.
const ANONYMOUS: &str = "ANONYMOUS";

/// Kafka's names of the quotas that cores keep, in the order of [`Limited::ALL`].
pub(crate) const KEYS: [&str; 3] = ["producer_byte_rate", "consumer_byte_rate", "request_percentage"];

fn key_of(limited: Limited) -> &'static str {
    match limited {
        Limited::Produce => KEYS[0],
        Limited::Fetch => KEYS[1],
        Limited::Time => KEYS[2],
    }
}

/// Somebody has a quota that cores keep, or one for which they have to make clients pause.
pub(crate) fn any(quotas: &BTreeMap<QuotaEntity, Quotas>) -> bool {
    let mut keys = Limited::ALL.iter().map(|limited| key_of(*limited)).chain([mutations::KEY]);
    keys.any(|key| quotas.values().any(|quotas| quotas.contains_key(key)))
}

/// Some address has one.
pub(crate) fn any_of_addresses(quotas: &BTreeMap<QuotaEntity, Quotas>) -> bool {
    quotas.values().any(|quotas| quotas.contains_key(CONNECTION_RATE))
}

/// How often this address may connect: its own rate, or else that of all which have none.
fn connection_rate(quotas: &BTreeMap<QuotaEntity, Quotas>, address: IpAddr) -> Option<f64> {
    let of = |quotas: &Quotas| quotas.get(CONNECTION_RATE).map(|limit| f64::from(*limit));
    let mut own = quotas.iter().filter_map(|(entity, quotas)| {
        let named: IpAddr = entity.get(IP)?.as_ref()?.parse().ok()?;
        (named.to_canonical() == address).then(|| of(quotas))?
    });
    own.next().or_else(|| quotas.get(&QuotaEntity::from([(IP.to_string(), None)])).and_then(of))
}

/// Whose requests count together against a quota.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Together {
    UserAndClient(String),
    User,
    Client(String),
}

/// The quota that binds a client of [`ANONYMOUS`], by Kafka's order of precedence. Each key is looked for by itself: a
/// client may have its produce quota from one entity and its fetch quota from another.
pub(crate) fn binding(
    quotas: &BTreeMap<QuotaEntity, Quotas>,
    key: &str,
    client: &str,
) -> Option<(Together, f64)> {
    // Who says nothing of itself has the quotas of its user only.
    let named = || Some(client).filter(|client| !client.is_empty());
    let find = |user: Option<Option<&str>>, id: Option<Option<&str>>| {
        let part = |kind: &str, name: Option<&str>| (kind.to_string(), name.map(str::to_string));
        let parts = [user.map(|name| part(USER, name)), id.map(|name| part(CLIENT_ID, name))];
        let entity: QuotaEntity = parts.into_iter().flatten().collect();
        quotas.get(&entity)?.get(key).map(|limit| f64::from(*limit))
    };
    for user in [Some(ANONYMOUS), None] {
        let of_client =
            named().and_then(|id| find(Some(user), Some(Some(id))).or(find(Some(user), Some(None))));
        if let Some(limit) = of_client {
            return Some((Together::UserAndClient(client.to_string()), limit));
        }
        if let Some(limit) = find(Some(user), None) {
            return Some((Together::User, limit));
        }
    }
    let limit = named().and_then(|id| find(None, Some(Some(id))).or(find(None, Some(None))))?;
    Some((Together::Client(client.to_string()), limit))
}

/// What was given out. Ends with control.
#[derive(Default)]
pub(crate) struct LimitsGiven {
    allowances: Kept<(Limited, Together), Arc<Allowance>>,
    rates: Kept<IpAddr, Arc<Pace>>,
    /// Of requests that are not answered yet, where that counts.
    work: HashMap<(ConnKey, u64), Work>,
}

/// What a request is charged with besides its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// How long control was busy with it.
    pub busy_ns: u64,
    /// How long its client has to pause for what was created or deleted.
    pub pause_ms: u32,
}

impl LimitsGiven {
    fn limits_of(
        &mut self,
        quotas: &BTreeMap<QuotaEntity, Quotas>,
        client: &[u8],
        now_ns: u64,
    ) -> ClientLimits {
        let client = String::from_utf8_lossy(client);
        let mut limits = ClientLimits::default();
        for limited in Limited::ALL {
            let Some((together, limit)) = binding(quotas, key_of(limited), &client) else { continue };
            let per_second = match limited {
                Limited::Produce | Limited::Fetch => limit,
                // Percent of one thread, in nanoseconds a second.
                Limited::Time => limit / 100.0 * 1e9,
            };
            let needed = |a: &mut Arc<Allowance>| Arc::strong_count(a) > 1 || !a.pace().is_even(now_ns);
            let place = self.allowances.entry((limited, together), needed);
            let allowance = place.or_insert_with(|| Arc::new(Allowance::new(limited, per_second)));
            if allowance.pace().per_second() != per_second {
                *allowance = Arc::new(Allowance::new(limited, per_second));
            }
            limits.set(allowance.clone());
        }
        limits
    }

    fn rate_of(
        &mut self,
        quotas: &BTreeMap<QuotaEntity, Quotas>,
        address: IpAddr,
        now_ns: u64,
    ) -> Option<Arc<Pace>> {
        let per_second = connection_rate(quotas, address)?;
        let needed = |rate: &mut Arc<Pace>| Arc::strong_count(rate) > 1 || !rate.is_even(now_ns);
        let rate = self.rates.entry(address, needed).or_insert_with(|| Arc::new(connection_pace(per_second)));
        if rate.per_second() != per_second {
            *rate = Arc::new(connection_pace(per_second));
        }
        Some(rate.clone())
    }

    /// Control decided on a request that began then, and whose client has to pause for what it had done.
    pub fn worked(&mut self, conn: ConnKey, slot: u64, image: &Image, (began, pause_ms): (Instant, u32)) {
        if !image.quotas().is_empty() {
            let busy_ns = began.elapsed().as_nanos() as u64;
            self.work.insert((conn, slot), Work { busy_ns, pause_ms });
        }
    }

    /// What that came to; the request is answered.
    pub fn work_of(&mut self, conn: ConnKey, slot: u64) -> Work {
        if self.work.is_empty() {
            Work::default()
        } else {
            self.work.remove(&(conn, slot)).unwrap_or_default()
        }
    }
}

impl Control {
    /// A core met a client.
    pub(crate) fn tell_limits(&mut self, core: CoreId, client: Arc<[u8]>, now_ns: u64) {
        let limits = Arc::new(self.limits.limits_of(self.image.quotas(), &client, now_ns));
        self.send(core, CoreMessage::Limits { client, limits });
    }

    /// A core met an address.
    pub(crate) fn tell_rate(&mut self, core: CoreId, address: IpAddr, now_ns: u64) {
        let rate = self.limits.rate_of(self.image.quotas(), address, now_ns);
        self.send(core, CoreMessage::Address { address, rate });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::kept::KEPT_MIN;

    /// `user/client=rate`, `-` for no such part and `*` for the default.
    fn quotas(texts: &[&str]) -> BTreeMap<QuotaEntity, Quotas> {
        let entry = |text: &&str| {
            let (entity, rate) = text.split_once('=').unwrap();
            let (user, client) = entity.split_once('/').unwrap();
            let part = |kind: &str, name: &str| {
                (name != "-").then(|| (kind.to_string(), Some(name.to_string()).filter(|name| name != "*")))
            };
            let entity = [part(USER, user), part(CLIENT_ID, client)].into_iter().flatten().collect();
            let rate: f64 = rate.parse().unwrap();
            (entity, Quotas::from([("producer_byte_rate".to_string(), rate.into())]))
        };
        texts.iter().map(entry).collect()
    }

    #[test]
    fn the_first_entity_of_kafkas_order_binds_and_says_who_counts_together() {
        let both = |client: &str| Together::UserAndClient(client.into());
        let alone = |client: &str| Together::Client(client.into());
        // From the strongest to the weakest; without the first ones the next binds.
        let order = [
            ("ANONYMOUS/c=1", both("c")),
            ("ANONYMOUS/*=2", both("c")),
            ("ANONYMOUS/-=3", Together::User),
            ("*/c=4", both("c")),
            ("*/*=5", both("c")),
            ("*/-=6", Together::User),
            ("-/c=7", alone("c")),
            ("-/*=8", alone("c")),
        ];
        let texts: Vec<&str> = order.iter().map(|(text, _)| *text).collect();
        for (at, (_, together)) in order.into_iter().enumerate() {
            let set = quotas(&texts[at..]);
            assert_eq!(binding(&set, KEYS[0], "c"), Some((together, at as f64 + 1.0)), "{at}");
            assert_eq!(binding(&set, KEYS[1], "c"), None);
        }
        let set = quotas(&texts);
        assert_eq!(binding(&set, KEYS[0], "d"), Some((both("d"), 2.0)));
        // Who has no name is a user all the same.
        assert_eq!(binding(&set, KEYS[0], ""), Some((Together::User, 3.0)));
        assert_eq!(binding(&quotas(&["-/*=8"]), KEYS[0], ""), None);
        assert_eq!(binding(&quotas(&["other/c=1"]), KEYS[0], "c"), None);
    }

    #[test]
    fn clients_of_one_user_share_and_debts_outlive_who_made_them() {
        let mut given = LimitsGiven::default();
        let set = quotas(&["ANONYMOUS/-=1000"]);
        let a = given.limits_of(&set, b"a", 0);
        let b = given.limits_of(&set, b"b", 0);
        let of = |limits: &ClientLimits| limits.of(Limited::Produce).cloned().unwrap();
        assert!(Arc::ptr_eq(&of(&a), &of(&b)));
        assert!(of(&a).charge(5_000, 10_000_000_000) > 0);
        drop((a, b));
        for n in 0..10 * KEPT_MIN {
            given.limits_of(&quotas(&["-/*=7", "*/-=1"]), format!("client-{n}").as_bytes(), 10_000_000_000);
            given.limits_of(&quotas(&["-/*=7"]), format!("client-{n}").as_bytes(), 10_000_000_000);
        }
        assert!(given.allowances.len() <= 2 * KEPT_MIN, "{}", given.allowances.len());
    }

    #[test]
    fn an_address_has_its_own_rate_before_that_of_all_others() {
        let entry = |ip: Option<&str>, rate: f64| {
            let entity = QuotaEntity::from([(IP.to_string(), ip.map(str::to_string))]);
            (entity, Quotas::from([(CONNECTION_RATE.to_string(), rate.into())]))
        };
        // An address of the new kind may be written in many ways.
        let set =
            BTreeMap::from([entry(None, 10.0), entry(Some("10.0.0.7"), 3.0), entry(Some("0:0::1"), 4.0)]);
        let of = |set: &BTreeMap<_, _>, address: &str| connection_rate(set, address.parse().unwrap());
        assert_eq!(
            (of(&set, "10.0.0.7"), of(&set, "10.0.0.8"), of(&set, "::1")),
            (Some(3.0), Some(10.0), Some(4.0))
        );
        let own_only = BTreeMap::from([entry(Some("10.0.0.7"), 3.0)]);
        assert_eq!(of(&own_only, "10.0.0.8"), None);
        assert_eq!(of(&quotas(&["-/*=8"]), "10.0.0.8"), None);
        let mut given = LimitsGiven::default();
        let mut rate = |set: &BTreeMap<_, _>, n: u64| {
            let address = std::net::Ipv4Addr::from_bits(n as u32).into();
            given.rate_of(set, address, 1_000_000_000_000 + n).unwrap()
        };
        assert!(Arc::ptr_eq(&rate(&set, 1), &rate(&set, 1)));
        assert!(!Arc::ptr_eq(&rate(&set, 1), &rate(&set, 2)), "each of the others has one to itself");
        for n in 0..10 * KEPT_MIN as u64 {
            rate(&set, n);
        }
        assert!(given.rates.len() <= 2 * KEPT_MIN, "{}", given.rates.len());
    }

    #[test]
    fn a_changed_quota_is_a_new_allowance_and_an_unchanged_one_the_same() {
        let mut given = LimitsGiven::default();
        let mut rate =
            |text: &str| given.limits_of(&quotas(&[text]), b"c", 0).of(Limited::Produce).cloned().unwrap();
        let first = rate("-/c=1000");
        assert!(Arc::ptr_eq(&first, &rate("-/c=1000")));
        let second = rate("-/c=2000");
        assert!(!Arc::ptr_eq(&first, &second));
        assert_eq!(second.pace().per_second(), 2000.0);
    }
}
