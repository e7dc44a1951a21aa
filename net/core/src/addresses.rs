//! Connections per address (KIP-612, `connection_creation_rate`): who connects too often is not read, and closed a little
//! later, so that trying again at once does not help.
//!
//! Like a client's quota ([`crate::limits`]) a rate is one for the whole broker ([`crate::pace`]). Control hands it out by
//! message; a core asks once for each address it meets, lets it in meanwhile, and takes those connections off what it may
//! then. Bytes of open connections are not this module's business.

use crate::core::Core;
use crate::messages::ControlMessage;
use crate::pace::Pace;
use crate::token;
use ringmill_log::token::token;
use ringmill_reactor::{Backend, Op, SocketId};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// What an address that was silent may open at once: the rate of so long, which is what Kafka's windows come to.
const CREDIT_NS: u64 = 10_000_000_000;
/// A refused connection stays open for as long as its address has to wait, but no longer than one window of Kafka's.
const WAIT_NS_MAX: u64 = 1_000_000_000;
/// Refused connections of one core that may stay open; further ones are closed at once.
const REFUSED_MAX: usize = 1024;
/// Addresses a core remembers the rates of; with more, it forgets them all and asks again.
const ADDRESSES_MAX: usize = 4096;

/// How often one address may connect, `per_second` above 0; shared by all cores.
pub fn connection_pace(per_second: f64) -> Pace {
    Pace::new(per_second, CREDIT_NS)
}

enum Known {
    /// Control was asked; so many came meanwhile.
    Asked(u64),
    /// `None`: as often as it likes.
    Rate(Option<Arc<Pace>>),
}

/// What one core knows of addresses, and whom it has refused. Ends with it.
#[derive(Default)]
pub(crate) struct Addresses {
    known: HashMap<IpAddr, Known>,
    /// Sockets that are not read, by when they are closed; the number tells apart those of the same moment.
    refused: BTreeMap<(u64, u32), SocketId>,
}

impl Addresses {
    /// Quotas changed: whoever comes is asked for anew. Debts stay with the rates that stay.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.refused.first_key_value().map(|((at, _), _)| *at)
    }
}

impl<B: Backend> Core<B> {
    /// Whether a connection from this address may be served; nanoseconds that it has to wait otherwise.
    pub(crate) fn admit(&mut self, address: IpAddr) -> Result<(), u64> {
        if !self.live.address_quotas {
            return Ok(());
        }
        let (core, now_ns) = (self.settings.id, self.now_ns);
        match self.addresses.known.get_mut(&address) {
            Some(Known::Rate(None)) => Ok(()),
            Some(Known::Rate(Some(rate))) => rate.take(now_ns),
            Some(Known::Asked(came)) => {
                *came += 1;
                Ok(())
            }
            None => {
                if self.addresses.known.len() >= ADDRESSES_MAX {
                    self.addresses.forget();
                }
                self.addresses.known.insert(address, Known::Asked(1));
                self.tell_control(ControlMessage::Address { core, address, now_ns });
                Ok(())
            }
        }
    }

    /// Control says how often an address may connect.
    pub(crate) fn address_known(&mut self, address: IpAddr, rate: Option<Arc<Pace>>) {
        // Forgotten meanwhile: it will be asked for again.
        let Some(known) = self.addresses.known.get_mut(&address) else { return };
        if let (Known::Asked(came), Some(rate)) = (&known, &rate) {
            rate.charge(*came, self.now_ns, WAIT_NS_MAX);
        }
        *known = Known::Rate(rate);
    }

    /// Keeps the connection, unread, until it is closed.
    pub(crate) fn refuse_connection(&mut self, socket: SocketId, wait_ns: u64) {
        self.metrics.connections_refused += 1;
        let wait_ns = if self.addresses.refused.len() < REFUSED_MAX { wait_ns.min(WAIT_NS_MAX) } else { 0 };
        self.addresses.refused.insert((self.now_ns + wait_ns, socket.0), socket);
        self.close_refused(self.now_ns);
    }

    /// Closes those whose time was up by then.
    pub(crate) fn close_refused(&mut self, by_ns: u64) {
        while let Some(entry) = self.addresses.refused.first_entry() {
            if entry.key().0 > by_ns {
                break;
            }
            let socket = entry.remove();
            self.io.push(Op::Close { socket }, token(token::CLOSE, 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn an_address_gets_its_rate_on_average_and_refusals_cost_it_nothing() {
        let rate = connection_pace(5.0);
        let (mut now, mut taken, mut refused) = (100 * SECOND, 0u64, 0u64);
        // Twenty times as often as allowed, for a minute.
        while now < 160 * SECOND {
            match rate.take(now) {
                Ok(()) => taken += 1,
                Err(wait_ns) => {
                    assert!((1..=SECOND / 5).contains(&wait_ns), "{wait_ns}");
                    refused += 1;
                }
            }
            now += SECOND / 100;
        }
        // A minute of it, and the credit of ten seconds.
        assert!((5 * 69..=5 * 70 + 1).contains(&taken), "{taken}");
        assert_eq!(taken + refused, 6_000);
        assert!(!rate.is_even(now) && rate.is_even(now + CREDIT_NS));
        assert_eq!(rate.take(now + SECOND), Ok(()), "who waits gets in");
    }

    #[test]
    fn who_came_before_the_rate_was_known_is_counted_and_not_for_ever() {
        let rate = connection_pace(1.0);
        rate.charge(4, 100 * SECOND, WAIT_NS_MAX);
        let more = (0..10).filter(|_| rate.take(100 * SECOND).is_ok()).count();
        assert_eq!(more, 6, "ten at once, of which four had come");
        rate.charge(1_000_000, 100 * SECOND, WAIT_NS_MAX);
        assert!(rate.take(100 * SECOND).is_err_and(|wait_ns| wait_ns <= WAIT_NS_MAX + SECOND));
        assert_eq!(rate.take(102 * SECOND), Ok(()));
    }
}
