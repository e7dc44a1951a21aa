//! One client connection: bytes in, frames out of them, answers in request order.
//!
//! Owned by one core; ends when the peer closes, misbehaves, or is idle for too long. Memory follows the bytes that have
//! arrived, not the length a frame claims.

use crate::clients::Client;
use crate::closing::Closing;
use crate::fetch::ANSWER_BYTES_MAX;
use crate::limits::ClientId;
use crate::messages::ConnKey;
use crate::served::{Deciding, Served};
use ringmill_reactor::{Buf, BufMut, SocketId};
use ringmill_types::limits::{METADATA_UNSENT_BYTES, UNSENT_ANSWERS_MAX};
use ringmill_wire::ApiKey;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Bytes handed to one send.
pub(crate) const SEND_BYTES_MAX: usize = 1 << 20;

/// With so many bytes of answers that its peer has not begun to take a connection is not read further: as little as 24 bytes
/// ask for all that there is. What comes behind one Fetch is taken all the same.
const UNSENT_BYTES_MAX: usize = ANSWER_BYTES_MAX + SEND_BYTES_MAX;

/// A frame that arrives more slowly than this is not waited for: its memory is of use to others.
const FRAME_BYTES_PER_SECOND_MIN: u64 = 64 << 10;

/// An answer's place in the connection's order.
pub(crate) enum AnswerState {
    Waiting,
    Ready(Vec<Buf>, Served),
    /// acks=0: nothing is sent.
    Nothing,
}

/// A request whose bytes are all here.
pub(crate) enum FrameBytes {
    Small(Vec<u8>),
    Large(Buf),
}

impl std::ops::Deref for FrameBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            FrameBytes::Small(bytes) => bytes,
            FrameBytes::Large(buf) => buf,
        }
    }
}

impl FrameBytes {
    /// A buffer that another core may hold.
    pub fn share(&mut self) -> Buf {
        if let FrameBytes::Small(bytes) = self {
            *self = FrameBytes::Large(Buf::from_vec(std::mem::take(bytes)));
        }
        match self {
            FrameBytes::Large(buf) => buf.clone(),
            FrameBytes::Small(_) => unreachable!("made large above"),
        }
    }
}

pub(crate) struct Conn {
    pub key: ConnKey,
    pub socket: SocketId,
    pub peer: SocketAddr,
    pub client: Client,
    /// Bytes received and not yet a frame.
    pub input: Vec<u8>,
    /// A frame too large for `input`, being filled by the ring or waiting for memory.
    pub large_need: usize,
    /// Of it, what the ring was asked for last; the ring tells nothing before all of that came.
    pub large_piece: usize,
    /// The largest frame this connection completed.
    pub large_seen: usize,
    pub large_part: Option<BufMut>,
    pub receiving: bool,
    /// When the frame that is arriving began, or was last held up by us.
    pub frame_since_ns: u64,
    /// When bytes of it came last.
    pub received_ns: u64,
    /// How long the frame that was cut last was on its way; 0 when its request was taken.
    frame_us: u64,
    /// The same of the request that was taken last.
    pub received_us: u64,
    pub deciding: Option<Deciding>,
    /// Slot of the oldest unanswered request; `answers[i]` is slot `head + i`.
    head: u64,
    answers: VecDeque<AnswerState>,
    /// A request that nothing may overtake is being answered.
    pub barrier: bool,
    /// A produce that met no room; the connection is not read further until it went through.
    pub stalled: bool,
    /// A quota was exceeded: not read before then. Past and 0 mean nothing.
    pub paused_until_ns: u64,
    /// The request that control is deciding or this core is about to answer, where somebody has quotas.
    pub asked: Option<(ringmill_wire::ResponseHead, ClientId)>,
    pub out: VecDeque<Buf>,
    /// Of `out`, all together.
    out_bytes: usize,
    /// Of Metadata, since all had left.
    pub metadata_bytes: usize,
    /// Requests wait until all of `out` has left.
    pub choked: bool,
    /// The next request asks for Metadata, and waits for the core's next turn.
    pub resting: bool,
    pub sending: bool,
    pub send_since_ns: u64,
    /// What of it is in `out` or on its way, and since when.
    pub leaving: Vec<(Served, u64)>,
    pub last_active_ns: u64,
    /// Takes no further request; closes when what it is owed has left.
    pub ending: bool,
    /// The peer sends no more; it may still read.
    pub eof: bool,
    /// Bytes served for partitions of other cores, and of this one: a connection moves to where its bytes are.
    pub foreign_bytes: u64,
    pub own_bytes: u64,
    pub move_to: Option<u16>,
    pub session: Option<u32>,
    /// The fetch that is being answered, to end its wait when the connection goes.
    pub fetch: Option<crate::slab::Key>,
}

impl Conn {
    pub fn new(key: ConnKey, socket: SocketId, peer: SocketAddr, now_ns: u64) -> Conn {
        Conn {
            key,
            socket,
            peer,
            client: Client::new(now_ns),
            input: Vec::new(),
            large_need: 0,
            large_piece: 0,
            large_seen: 0,
            large_part: None,
            receiving: false,
            // One that comes from another core may bring half a frame.
            frame_since_ns: now_ns,
            received_ns: now_ns,
            frame_us: 0,
            received_us: 0,
            deciding: None,
            head: 0,
            answers: VecDeque::new(),
            barrier: false,
            stalled: false,
            paused_until_ns: 0,
            asked: None,
            out: VecDeque::new(),
            out_bytes: 0,
            metadata_bytes: 0,
            choked: false,
            resting: false,
            sending: false,
            send_since_ns: 0,
            leaving: Vec::new(),
            last_active_ns: now_ns,
            ending: false,
            eof: false,
            foreign_bytes: 0,
            own_bytes: 0,
            move_to: None,
            session: None,
            fetch: None,
        }
    }

    /// Reserves the next place in the order of answers.
    pub fn reserve(&mut self) -> u64 {
        self.answers.push_back(AnswerState::Waiting);
        self.head + self.answers.len() as u64 - 1
    }

    pub fn waiting(&self) -> usize {
        self.answers.len()
    }

    /// Fills a reserved place, and moves every answer whose turn has come to the output. Late answers to a slot that
    /// was filled already are ignored.
    pub fn answer(&mut self, slot: u64, state: AnswerState, now_ns: u64) {
        let Some(place) = slot.checked_sub(self.head).and_then(|at| self.answers.get_mut(at as usize)) else {
            return;
        };
        if matches!(place, AnswerState::Waiting) {
            *place = state;
        }
        while let Some(AnswerState::Ready(..) | AnswerState::Nothing) = self.answers.front() {
            self.head += 1;
            if let Some(AnswerState::Ready(bufs, served)) = self.answers.pop_front() {
                self.out_bytes += bufs.iter().map(|buf| buf.len()).sum::<usize>();
                self.out.extend(bufs);
                self.leaving.push((served, now_ns));
            }
        }
        if self.answers.is_empty() {
            self.barrier = false;
        }
    }

    /// All of the next frame is in `input`; what comes then belongs to those behind it.
    pub fn holds_frame(&self) -> bool {
        let prefix = self.input.first_chunk::<4>().filter(|_| self.large_need == 0);
        prefix.is_some_and(|prefix| self.input.len() - 4 >= u32::from_be_bytes(*prefix) as usize)
    }

    /// A frame is whole; what else is here belongs to the next one. One that waits behind others, with all of it here, is
    /// taken twice: it came once.
    pub fn frame_ends(&mut self, now_ns: u64) {
        self.frame_us += self.received_ns.saturating_sub(self.frame_since_ns) / 1000;
        self.frame_since_ns = now_ns;
    }

    /// The request of the frame that was cut last is taken: how long it was on its way.
    pub fn take_received_us(&mut self) -> u64 {
        self.received_us = std::mem::take(&mut self.frame_us);
        self.received_us
    }

    /// Takes the next send's worth from the output.
    pub fn next_send(&mut self) -> Vec<Buf> {
        const PARTS_MAX: usize = 512;
        let mut parts = Vec::new();
        let mut bytes = 0;
        while let Some(buf) = self.out.front() {
            if buf.is_empty() {
                self.out.pop_front();
                continue;
            }
            if bytes > 0 && (bytes + buf.len() > SEND_BYTES_MAX || parts.len() >= PARTS_MAX) {
                break;
            }
            bytes += buf.len();
            parts.extend(self.out.pop_front());
        }
        self.out_bytes -= bytes;
        parts
    }

    /// Whether the next request has to wait for its peer to take answers.
    pub fn chokes(&mut self) -> bool {
        self.choked |= self.out_bytes >= UNSENT_BYTES_MAX
            || self.leaving.len() >= UNSENT_ANSWERS_MAX
            || self.metadata_bytes >= METADATA_UNSENT_BYTES && self.asks_for_metadata();
        self.choked
    }

    /// The next frame, as far as it is here, is a request for Metadata.
    pub fn asks_for_metadata(&self) -> bool {
        let api = match &self.large_part {
            Some(part) => part.get(..2),
            None if self.large_need > 0 => self.input.get(..2),
            None => self.input.get(4..6),
        };
        api == Some(&ApiKey::METADATA.0.to_be_bytes())
    }

    /// Nothing is owed to the client.
    pub fn owes_nothing(&self) -> bool {
        self.answers.is_empty() && self.out.is_empty() && !self.sending
    }

    /// Why the frame that is arriving is not waited for any longer, if so. Its sender gets `frame_ns`, and a second for
    /// each [`FRAME_BYTES_PER_SECOND_MIN`]; a third of that goes by without a sign only when it has gone.
    pub fn overdue(&self, now_ns: u64, frame_ns: u64) -> Option<Closing> {
        let at_least = |bytes: usize| bytes as u64 * 1_000_000_000 / FRAME_BYTES_PER_SECOND_MIN;
        let age = now_ns.saturating_sub(self.frame_since_ns);
        let silence = now_ns.saturating_sub(self.last_active_ns);
        let is_half = self.large_need > 0 || !self.input.is_empty();
        if !is_half || age <= frame_ns {
            None
        } else if self.starves() {
            Some(Closing::FrameWithoutMemory { bytes: self.large_need })
        } else if silence > frame_ns / 3 + at_least(self.large_piece) {
            Some(Closing::FrameStopped { seconds: silence / 1_000_000_000 })
        } else if age > frame_ns + at_least(self.large_need) {
            Some(Closing::FrameTooSlow { seconds: age / 1_000_000_000 })
        } else {
            None
        }
    }

    /// A large frame stands still because there was no memory for the rest of it.
    pub fn starves(&self) -> bool {
        let here = self.large_part.as_ref().map_or(0, |part| part.len());
        !self.receiving && here < self.large_need
    }

    /// What is left of its pause, as answers say it.
    pub fn throttle_ms(&self, now_ns: u64) -> i32 {
        let left_ns = self.paused_until_ns.saturating_sub(now_ns);
        i32::try_from(left_ns.div_ceil(1_000_000)).unwrap_or(i32::MAX)
    }

    /// Nothing is owed to the client, it is not made to pause, and nothing of it is half-read.
    pub fn is_quiet(&self, now_ns: u64) -> bool {
        self.owes_nothing()
            && !self.stalled
            && self.paused_until_ns <= now_ns
            && self.large_part.is_none()
            && self.large_need == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmill_types::CoreId;

    const SECOND: u64 = 1_000_000_000;

    fn conn() -> Conn {
        let key = ConnKey { core: CoreId(0), slot: 0, serial: 0 };
        let mut conn = Conn::new(key, SocketId(0), SocketAddr::from(([127, 0, 0, 1], 1)), 0);
        conn.receiving = true;
        conn
    }

    #[test]
    fn a_frame_is_waited_for_as_long_as_it_comes() {
        let overdue = |conn: &Conn, second: u64| conn.overdue(second * SECOND, 30 * SECOND);
        let mut idle = conn();
        assert_eq!(overdue(&idle, 3600), None, "nothing of a frame is here");

        // A byte a second: never silent, and still not for ever.
        idle.input = vec![0; 4];
        idle.last_active_ns = 29 * SECOND;
        assert_eq!(overdue(&idle, 30), None);
        idle.last_active_ns = 30 * SECOND;
        assert_eq!(overdue(&idle, 31), Some(Closing::FrameTooSlow { seconds: 31 }));

        // 100 MiB over a slow line: the ring is silent while the last 36 MiB come.
        let mut large = conn();
        (large.large_need, large.large_piece, large.last_active_ns) = (100 << 20, 36 << 20, 60 * SECOND);
        assert_eq!(overdue(&large, 90), None);
        // The same, but only the first 64 KiB were asked for: whoever claimed it has gone.
        (large.large_piece, large.last_active_ns) = (64 << 10, 0);
        assert_eq!(overdue(&large, 31), Some(Closing::FrameStopped { seconds: 31 }));
        large.receiving = false;
        assert_eq!(overdue(&large, 31), Some(Closing::FrameWithoutMemory { bytes: 100 << 20 }));
    }
}
