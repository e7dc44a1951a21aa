//! A rate that is one for the whole broker: a single atomic that every core charges.
//!
//! What is charged is paid for by time alone, at the rate; whoever was silent has credit. Nothing waits here and nothing is
//! refused but by whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};

/// So much per second, shared by all who hold it, on whatever core.
#[derive(Debug)]
pub struct Pace {
    per_second: f64,
    /// After a pause, what is paid for in this time may be done at once.
    credit_ns: u64,
    /// When all that was charged so far is paid for, on the monotonic clock.
    paid_at_ns: AtomicU64,
}

impl Pace {
    /// `per_second` is above 0.
    pub fn new(per_second: f64, credit_ns: u64) -> Pace {
        Pace { per_second, credit_ns, paid_at_ns: AtomicU64::new(0) }
    }

    pub fn per_second(&self) -> f64 {
        self.per_second
    }

    /// What one that nobody used gives at once.
    pub fn at_once(&self) -> u64 {
        (self.per_second * (self.credit_ns as f64 / 1e9)) as u64
    }

    /// Charges so much, but lets nobody owe for longer than `owed_ns_max`; how long it takes until all is paid for.
    pub fn charge(&self, amount: u64, now_ns: u64, owed_ns_max: u64) -> u64 {
        let most = now_ns.saturating_add(owed_ns_max);
        let next = |paid_at: u64| self.after(paid_at, amount, now_ns).min(most.max(paid_at));
        // Relaxed: the number alone is shared, nothing else is read because of it.
        let before = self.paid_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| Some(next(at)));
        next(before.unwrap_or_else(|at| at)).saturating_sub(now_ns)
    }

    /// Charges one.
    ///
    /// # Errors
    /// It is one too many, and was not charged: nanoseconds until there is room for it.
    pub fn take(&self, now_ns: u64) -> Result<(), u64> {
        let after = |paid_at: u64| self.after(paid_at, 1, now_ns);
        let fits = |paid_at: u64| Some(after(paid_at)).filter(|at| *at <= now_ns);
        // Relaxed: as above.
        let taken = self.paid_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map(drop).map_err(|paid_at| after(paid_at).saturating_sub(now_ns))
    }

    /// Nothing is owed, and forgetting it forgives nothing.
    pub fn is_even(&self, now_ns: u64) -> bool {
        self.paid_at_ns.load(Ordering::Relaxed) <= now_ns.saturating_sub(self.credit_ns)
    }

    fn after(&self, paid_at_ns: u64, amount: u64, now_ns: u64) -> u64 {
        let cost_ns = (amount as f64 / self.per_second * 1e9) as u64;
        paid_at_ns.max(now_ns.saturating_sub(self.credit_ns)).saturating_add(cost_ns)
    }
}
