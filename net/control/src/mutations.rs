//! `controller_mutation_rate` (KIP-599): how many partitions a client may have created and deleted per second.
//!
//! One account per quota in use, a token bucket as Kafka has it: it fills with the rate, up to [`BURST_S`] seconds of it,
//! and a change is taken while it is not below zero, however much further down that brings it. What Kafka calls strict
//! requests are refused then; clients of older versions are only made to pause. Owned by control, like what is limited.

use crate::control::Control;
use crate::kept::Kept;
use crate::limits::{Together, binding};
use ringmill_types::ErrorCode;
use std::time::Instant;

pub(crate) const KEY: &str = "controller_mutation_rate";

/// Kafka's windows for it: eleven of one second.
const BURST_S: f64 = 11.0;

/// What happens to a request that finds its account below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// It is refused, and so is not charged.
    Refuse,
    /// It is taken, and charged.
    Pause,
}

impl Over {
    /// Refused from this version of the request on.
    pub fn since(strict: i16, version: i16) -> Over {
        if version >= strict { Over::Refuse } else { Over::Pause }
    }
}

#[derive(Debug)]
struct Account {
    per_second: f64,
    tokens: f64,
    at: Instant,
}

impl Account {
    fn new(per_second: f64, now: Instant) -> Account {
        Account { per_second, tokens: per_second * BURST_S, at: now }
    }

    fn fill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.per_second * BURST_S);
        self.at = now;
    }

    /// Milliseconds to pause, most often none.
    ///
    /// # Errors
    /// The same, where the request is refused.
    fn charge(&mut self, partitions: usize, over: Over, now: Instant) -> Result<u32, u32> {
        self.fill(now);
        if over == Over::Refuse && self.tokens < 0.0 {
            return Err(self.pause_ms());
        }
        self.tokens -= partitions as f64;
        // A request that is not refused although it overdraws the account leaves the pause to the next one.
        Ok(if over == Over::Pause { self.pause_ms() } else { 0 })
    }

    fn pause_ms(&self) -> u32 {
        (-self.tokens / self.per_second * 1e3).round().max(0.0) as u32
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= self.per_second * BURST_S
    }
}

/// On whose account a request goes; by nobody's where no quota binds the client.
#[derive(Debug)]
pub(crate) struct OnAccount {
    of: Option<(Together, f64)>,
    over: Over,
}

/// All accounts. Ends with control.
#[derive(Default)]
pub(crate) struct Mutations {
    accounts: Kept<Together, Account>,
    /// Of the request in hand.
    pause_ms: u32,
}

impl Mutations {
    fn charge(&mut self, on: &OnAccount, partitions: usize, now: Instant) -> Result<(), ErrorCode> {
        let Some((together, per_second)) = &on.of else { return Ok(()) };
        let place = self.accounts.entry(together.clone(), |account| !account.is_full(now));
        let account = place.or_insert_with(|| Account::new(*per_second, now));
        if account.per_second != *per_second {
            *account = Account::new(*per_second, now);
        }
        let charged = account.charge(partitions, on.over, now);
        self.pause_ms = self.pause_ms.max(charged.unwrap_or_else(|pause_ms| pause_ms));
        charged.map(drop).map_err(|_| ErrorCode::ThrottlingQuotaExceeded)
    }

    /// How long the client of the request in hand has to pause; asked once, when it is decided.
    pub fn take_pause_ms(&mut self) -> u32 {
        std::mem::take(&mut self.pause_ms)
    }
}

impl Control {
    /// On whose account partitions go that a client with this id has created or deleted.
    pub(crate) fn on_account(&self, client_id: Option<&[u8]>, over: Over) -> OnAccount {
        let quotas = self.image.quotas();
        let client = String::from_utf8_lossy(client_id.unwrap_or_default());
        OnAccount { of: binding(quotas, KEY, &client), over }
    }

    /// Takes so many partitions off the account.
    ///
    /// # Errors
    /// `THROTTLING_QUOTA_EXCEEDED`, and nothing was taken: the client may try again when it has paused.
    pub(crate) fn charge_mutations(&mut self, on: &OnAccount, partitions: usize) -> Result<(), ErrorCode> {
        self.mutations.charge(on, partitions, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept::KEPT_MIN;
    use std::time::Duration;

    fn on(name: &str, per_second: f64, over: Over) -> OnAccount {
        OnAccount { of: Some((Together::Client(name.into()), per_second)), over }
    }

    #[test]
    fn an_account_is_overdrawn_once_and_then_refuses_until_it_has_filled() {
        let (mut mutations, begin) = (Mutations::default(), Instant::now());
        let strict = on("a", 2.0, Over::Refuse);
        let mut charge = |partitions, after_ms| {
            let charged = mutations.charge(&strict, partitions, begin + Duration::from_millis(after_ms));
            (charged.is_ok(), mutations.take_pause_ms())
        };
        // Eleven seconds' worth are there.
        assert_eq!(charge(20, 0), (true, 0));
        assert_eq!(charge(10, 0), (true, 0), "2 were left, and now 8 are missing");
        assert_eq!(charge(1, 0), (false, 4_000));
        assert_eq!(charge(1, 3_000), (false, 1_000), "the refused one cost nothing");
        assert_eq!(charge(1, 4_000), (true, 0));
        assert_eq!(charge(1, 4_000), (false, 500));
        assert_eq!(charge(100, 60_000), (true, 0));
        assert_eq!(charge(1, 60_000), (false, 39_000), "no more than eleven seconds are saved up");
    }

    #[test]
    fn old_clients_are_taken_and_pause() {
        let (mut mutations, now) = (Mutations::default(), Instant::now());
        let old = on("a", 1.0, Over::Pause);
        assert_eq!(mutations.charge(&old, 11, now), Ok(()));
        assert_eq!(mutations.take_pause_ms(), 0);
        assert_eq!(mutations.charge(&old, 5, now), Ok(()));
        assert_eq!(mutations.charge(&old, 5, now), Ok(()));
        assert_eq!(mutations.take_pause_ms(), 10_000, "the longest of the request's topics");
        // The same client with a newer version.
        let strict = on("a", 1.0, Over::Refuse);
        assert_eq!(mutations.charge(&strict, 1, now), Err(ErrorCode::ThrottlingQuotaExceeded));
        assert_eq!(mutations.charge(&on("b", 1.0, Over::Refuse), 1, now), Ok(()), "another one");
        let nobodys = OnAccount { of: None, over: Over::Refuse };
        assert_eq!(mutations.charge(&nobodys, 1_000_000, now), Ok(()));
    }

    #[test]
    fn accounts_of_clients_that_come_once_are_not_kept() {
        let (mut mutations, begin) = (Mutations::default(), Instant::now());
        for n in 0..20 * KEPT_MIN as u64 {
            let now = begin + Duration::from_secs(n);
            assert_eq!(mutations.charge(&on(&n.to_string(), 1.0, Over::Refuse), 5, now), Ok(()));
        }
        assert!(mutations.accounts.len() <= 2 * KEPT_MIN, "{}", mutations.accounts.len());
        // A changed quota begins anew.
        let (name, now) = ("x", begin);
        assert_eq!(mutations.charge(&on(name, 1.0, Over::Refuse), 500, now), Ok(()));
        assert_eq!(mutations.charge(&on(name, 2.0, Over::Refuse), 5, now), Ok(()));
    }
}
