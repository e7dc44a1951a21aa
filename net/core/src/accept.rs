//! Taking connections from the listener, also when the system has no room for one more.
//!
//! Who cannot be accepted waits in the listener's queue; those that are connected go on.

use crate::core::Core;
use crate::token;
use ringmill_log::token::token;
use ringmill_reactor::{Backend, Completion, Op, Payload};

/// Between attempts to accept when one failed, and between lines in the log about it.
const PAUSE_NS: u64 = 100_000_000;
const QUIET_NS: u64 = 10_000_000_000;

/// Owned by one core, for as long as it listens.
#[derive(Default)]
pub(crate) struct Accepting {
    /// The ring has been asked.
    under_way: bool,
    /// No attempt before this.
    until_ns: u64,
    /// No line in the log before this.
    quiet_until_ns: u64,
    /// Failures since the last line.
    failures: u64,
}

impl<B: Backend> Core<B> {
    pub(crate) fn start_accepting(&mut self) {
        if self.accepting.under_way || self.stopping || self.now_ns < self.accepting.until_ns {
            return;
        }
        if let Some(listener) = self.listener {
            self.accepting.under_way = true;
            self.io.push(Op::Accept { listener }, token(token::ACCEPT, 0));
        }
    }

    pub(crate) fn accept_deadline_ns(&self) -> Option<u64> {
        (!self.accepting.under_way && self.listener.is_some()).then_some(self.accepting.until_ns)
    }

    pub(crate) fn accepted(&mut self, completion: Completion) {
        self.accepting.under_way = completion.more;
        if let Payload::Accepted { socket, peer } = completion.payload {
            if self.conns.len() >= self.connections_max() || self.stopping {
                self.io.push(Op::Close { socket }, token(token::CLOSE, 0));
                return;
            }
            self.metrics.connections_accepted += 1;
            if let Err(wait_ns) = self.admit(peer.ip().to_canonical()) {
                return self.refuse_connection(socket, wait_ns);
            }
            self.open(socket, peer, None, Vec::new());
        } else if let Err(errno) = completion.result
            && !self.stopping
        {
            // Out of descriptors or memory: those who knock wait in the listener's queue, and trying again at once would
            // fail as often as the core turns.
            self.accepting.until_ns = self.now_ns + PAUSE_NS;
            self.accepting.failures += 1;
            if self.now_ns >= self.accepting.quiet_until_ns {
                self.accepting.quiet_until_ns = self.now_ns + QUIET_NS;
                let (core, failures) = (self.settings.id.0, std::mem::take(&mut self.accepting.failures));
                tracing::warn!(core, error = %errno, failures, "accepting connections fails; it is tried again ten times a second, and who knocks waits");
            }
        }
    }
}
