//! Which quotas bind which client, and the one allowance of each quota in use.
//!
//! Owned by control; cores ask for each client they meet and share what they are given, see `ringmill_core::limits`. An
//! allowance is kept while a core holds it or something is owed, so that a client that comes again finds its debts.

use crate::api::quotas::{CLIENT_ID, USER};
use crate::control::Control;
use ringmill_core::limits::{Allowance, ClientLimits, Limited};
use ringmill_core::{ConnKey, CoreMessage};
use ringmill_metadata::Image;
use ringmill_metadata::records::{QuotaEntity, Quotas};
use ringmill_types::CoreId;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

/// Who everybody is, without authentication.
const ANONYMOUS: &str = "ANONYMOUS";
/// Allowances below which none are looked through for those that nobody needs.
const KEPT_MIN: usize = 256;

/// Kafka's names of the quotas that cores keep, in the order of [`Limited::ALL`].
pub(crate) const KEYS: [&str; 3] = ["producer_byte_rate", "consumer_byte_rate", "request_percentage"];

fn key_of(limited: Limited) -> &'static str {
    match limited {
        Limited::Produce => KEYS[0],
        Limited::Fetch => KEYS[1],
        Limited::Time => KEYS[2],
    }
}

/// Somebody has a quota that cores keep.
pub(crate) fn any(quotas: &BTreeMap<QuotaEntity, Quotas>) -> bool {
    quotas.values().any(|quotas| Limited::ALL.iter().any(|limited| quotas.contains_key(key_of(*limited))))
}

/// Whose requests count together against a quota.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Together {
    UserAndClient(String),
    User,
    Client(String),
}

/// The quota that binds a client of [`ANONYMOUS`], by Kafka's order of precedence. Each key is looked for by itself: a
/// client may have its produce quota from one entity and its fetch quota from another.
fn binding(
    quotas: &BTreeMap<QuotaEntity, Quotas>,
    limited: Limited,
    client: &str,
) -> Option<(Together, f64)> {
    // Who says nothing of itself has the quotas of its user only.
    let named = || Some(client).filter(|client| !client.is_empty());
    let find = |user: Option<Option<&str>>, id: Option<Option<&str>>| {
        let part = |kind: &str, name: Option<&str>| (kind.to_string(), name.map(str::to_string));
        let parts = [user.map(|name| part(USER, name)), id.map(|name| part(CLIENT_ID, name))];
        let entity: QuotaEntity = parts.into_iter().flatten().collect();
        quotas.get(&entity)?.get(key_of(limited)).map(|limit| f64::from(*limit))
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
    allowances: HashMap<(Limited, Together), Arc<Allowance>>,
    /// Look for what nobody needs when there are so many.
    look_at: usize,
    /// How long control worked on requests that are not answered yet, where that counts.
    work: HashMap<(ConnKey, u64), u64>,
}

impl LimitsGiven {
    fn limits_of(
        &mut self,
        quotas: &BTreeMap<QuotaEntity, Quotas>,
        client: &[u8],
        now_ns: u64,
    ) -> ClientLimits {
        let client = String::from_utf8_lossy(client);
        if self.allowances.len() >= self.look_at.max(KEPT_MIN) {
            self.allowances.retain(|_, a| Arc::strong_count(a) > 1 || !a.is_even(now_ns));
            self.look_at = self.allowances.len() * 2;
        }
        let mut limits = ClientLimits::default();
        for limited in Limited::ALL {
            let Some((together, limit)) = binding(quotas, limited, &client) else { continue };
            let per_second = match limited {
                Limited::Produce | Limited::Fetch => limit,
                // Percent of one thread, in nanoseconds a second.
                Limited::Time => limit / 100.0 * 1e9,
            };
            let place = self.allowances.entry((limited, together));
            let allowance = place.or_insert_with(|| Arc::new(Allowance::new(limited, per_second)));
            if allowance.per_second() != per_second {
                *allowance = Arc::new(Allowance::new(limited, per_second));
            }
            limits.set(allowance.clone());
        }
        limits
    }

    /// Control decided on a request that began then.
    pub fn worked(&mut self, conn: ConnKey, slot: u64, image: &Image, began: Instant) {
        if !image.quotas().is_empty() {
            self.work.insert((conn, slot), began.elapsed().as_nanos() as u64);
        }
    }

    /// How long that took; the request is answered.
    pub fn work_of(&mut self, conn: ConnKey, slot: u64) -> u64 {
        if self.work.is_empty() { 0 } else { self.work.remove(&(conn, slot)).unwrap_or(0) }
    }
}

impl Control {
    /// A core met a client.
    pub(crate) fn tell_limits(&mut self, core: CoreId, client: Arc<[u8]>, now_ns: u64) {
        let limits = Arc::new(self.limits.limits_of(self.image.quotas(), &client, now_ns));
        self.send(core, CoreMessage::Limits { client, limits });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
            assert_eq!(binding(&set, Limited::Produce, "c"), Some((together, at as f64 + 1.0)), "{at}");
            assert_eq!(binding(&set, Limited::Fetch, "c"), None);
        }
        let set = quotas(&texts);
        assert_eq!(binding(&set, Limited::Produce, "d"), Some((both("d"), 2.0)));
        // Who has no name is a user all the same.
        assert_eq!(binding(&set, Limited::Produce, ""), Some((Together::User, 3.0)));
        assert_eq!(binding(&quotas(&["-/*=8"]), Limited::Produce, ""), None);
        assert_eq!(binding(&quotas(&["other/c=1"]), Limited::Produce, "c"), None);
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
    fn a_changed_quota_is_a_new_allowance_and_an_unchanged_one_the_same() {
        let mut given = LimitsGiven::default();
        let mut rate =
            |text: &str| given.limits_of(&quotas(&[text]), b"c", 0).of(Limited::Produce).cloned().unwrap();
        let first = rate("-/c=1000");
        assert!(Arc::ptr_eq(&first, &rate("-/c=1000")));
        let second = rate("-/c=2000");
        assert!(!Arc::ptr_eq(&first, &second));
        assert_eq!(second.per_second(), 2000.0);
    }
}
