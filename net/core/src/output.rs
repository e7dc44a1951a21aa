//! From answers to bytes: answers leave in the order of their requests, one send of a connection at a time.
//!
//! Owns no state of its own, it lies in [`crate::conn::Conn`].

use crate::closing::Closing;
use crate::conn::AnswerState;
use crate::core::Core;
use crate::served::SlowLog;
use crate::slab::Key;
use crate::token;
use ringmill_log::token::token;
use ringmill_reactor::{Backend, Completion, Op};
use ringmill_types::limits::PIPELINE_MAX;

impl<B: Backend> Core<B> {
    /// Ends the connection instead of an answer.
    pub(crate) fn answer_nothing(&mut self, key: Key, slot: u64, reason: Closing) {
        self.end(key, Some(reason));
        self.answer(key, slot, AnswerState::Nothing);
    }

    /// Fills an answer's place; sends what is due, and goes on with what the connection held back.
    pub(crate) fn answer(&mut self, key: Key, slot: u64, state: AnswerState) {
        let now_ns = self.now_ns;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let held = conn.barrier || conn.waiting() >= PIPELINE_MAX || conn.move_to.is_some();
        conn.answer(slot, state, now_ns);
        conn.last_active_ns = now_ns;
        if !conn.out.is_empty() && !conn.sending {
            self.send_queue.push(key);
        }
        if held && !conn.barrier {
            self.advance_input(key);
        }
        self.close_if_done(key);
    }

    pub(crate) fn flush_sends(&mut self) {
        let mut queue = std::mem::take(&mut self.send_queue);
        for key in queue.drain(..) {
            self.send_next(key);
        }
        self.send_queue.append(&mut queue);
    }

    fn send_next(&mut self, key: Key) {
        let zero_copy_from = self.settings.zero_copy_from_bytes;
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.sending {
            return;
        }
        let parts = conn.next_send();
        if parts.is_empty() {
            return;
        }
        conn.sending = true;
        conn.send_since_ns = self.now_ns;
        let bytes: usize = parts.iter().map(|p| p.len()).sum();
        self.io.push(
            Op::Send { socket: conn.socket, parts, zero_copy: bytes >= zero_copy_from },
            token(token::SEND, key.pack()),
        );
    }

    pub(crate) fn sent(&mut self, key: Key, completion: Completion) {
        let now_ns = self.now_ns;
        let (core, slow_us, topics) = (self.settings.id, self.slow_request_us(), &self.topics);
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.sending = false;
        let Ok(bytes) = completion.result else {
            self.close(key, None);
            return;
        };
        conn.last_active_ns = now_ns;
        self.metrics.bytes_sent += u64::from(bytes);
        conn.client.sent_bytes += u64::from(bytes);
        if !conn.out.is_empty() {
            self.send_next(key);
            return;
        }
        let mut leaving = std::mem::take(&mut conn.leaving);
        let log = SlowLog { core, now_ns, slow_us, topics };
        for (served, ready_ns) in leaving.drain(..) {
            let micros = now_ns.saturating_sub(ready_ns) / 1000;
            self.metrics.of(served.kind()).send_us.record(micros);
            log.look(Some(conn), &served, Some(micros));
        }
        conn.leaving = leaving;
        conn.metadata_bytes = 0;
        let was_choked = std::mem::take(&mut conn.choked);
        if conn.ending {
            self.close_if_done(key);
        } else if was_choked {
            self.advance_input(key);
        } else if conn.move_to.is_some() {
            self.read_more(key);
        }
    }
}
