//! From bytes to requests: what a connection received is cut into frames, and each goes where it is decided.
//!
//! Owns no state of its own, it lies in [`crate::conn::Conn`]. Guarantees that frames are taken in order, that a frame's
//! memory follows the bytes that came and not the length that was claimed, and that a connection whose next request may not
//! begin yet is not read further than its buffer.

use crate::closing::Closing;
use crate::conn::{Conn, FrameBytes};
use crate::core::Core;
use crate::messages::{ControlMessage, Frame};
use crate::metrics::ApiKind;
use crate::served::Deciding;
use crate::slab::Key;
use crate::token;
use ringmill_log::token::token;
use ringmill_reactor::{Backend, BufMut, Completion, Op, Payload, Pool};
use ringmill_types::limits::{
    CONTROL_REQUEST_BYTES_MAX, METADATA_TURN_BYTES, PIPELINE_MAX, TAIL_CHUNK_BYTES,
};
use ringmill_wire::{ApiKey, RequestHeader};

/// First buffer for a large frame of a connection that never sent one.
const STRANGER_BYTES: usize = 64 << 10;
/// So much of a large frame has to be here before there is a buffer for it.
const EARNEST_BYTES: usize = 16 << 10;
/// A large frame that had no memory for this long gets that of younger ones, whose clients will send them again.
const STARVED_NS_MAX: u64 = 5_000_000_000;
/// What frames leave in the pool beside room for the largest of them: staging for destage, reads.
const KEPT_FREE_BYTES: u64 = 2 << 20;

/// Memory for `want` bytes of a frame, if what is left then takes the batch of the largest frame into the log, and from there
/// to its segment. Frames that wait for the log would hold what the log waits for otherwise.
fn frame_memory(pool: &Pool, want: usize, largest: usize) -> Option<BufMut> {
    if pool.stats().used_bytes + want as u64 > frames_bytes_max(pool, largest) {
        return None;
    }
    pool.take(want)
}

fn frames_bytes_max(pool: &Pool, largest: usize) -> u64 {
    let limit_bytes = pool.stats().limit_bytes;
    // No batch is larger than a quarter of the memory.
    let batch = (largest.max(TAIL_CHUNK_BYTES) as u64).min(limit_bytes / 4);
    limit_bytes.saturating_sub(2 * batch + KEPT_FREE_BYTES)
}

/// What the bytes of a connection hold next.
enum NextFrame {
    Frame(FrameBytes),
    More,
    Bad(Closing),
}

impl<B: Backend> Core<B> {
    pub(crate) fn received(&mut self, key: Key, completion: Completion) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.receiving = false;
        match (completion.result, completion.payload) {
            (Ok(0), _) => {
                // What came before the end is answered still, and here: it is not worth a move. A long poll has nobody to wait
                // for.
                conn.eof = true;
                conn.move_to = None;
                self.poke.extend(conn.fetch);
                self.advance_input(key);
            }
            (Ok(_), Payload::Received(bytes)) if conn.ending => {
                // Read and dropped: closing with unread bytes would reset the connection, with answers on their way.
                drop(bytes);
                self.read_more(key);
            }
            (Ok(_), Payload::Received(bytes)) => {
                conn.last_active_ns = self.now_ns;
                if !conn.holds_frame() {
                    conn.received_ns = self.now_ns;
                }
                self.metrics.bytes_received += bytes.len() as u64;
                conn.client.received_bytes += bytes.len() as u64;
                if conn.input.is_empty() {
                    conn.frame_since_ns = self.now_ns;
                }
                conn.input.extend_from_slice(&bytes);
                drop(bytes);
                self.advance_input(key);
            }
            (Ok(_), _) | (Err(_), _) => self.close(key, None),
        }
    }

    pub(crate) fn filled(&mut self, key: Key, completion: Completion) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.receiving = false;
        let need = conn.large_need;
        let (Ok(got), Payload::BufMut(buf)) = (completion.result, completion.payload) else {
            self.close(key, None);
            return;
        };
        self.metrics.bytes_received += u64::from(got);
        conn.client.received_bytes += u64::from(got);
        (conn.last_active_ns, conn.received_ns) = (self.now_ns, self.now_ns);
        if got == 0 {
            conn.eof = true;
            self.end(key, None);
            return;
        }
        if conn.ending {
            drop(buf);
            self.read_more(key);
            return;
        }
        conn.large_part = Some(buf);
        if conn.large_part.as_ref().is_some_and(|b| b.len() >= need) {
            self.advance_input(key);
        } else {
            self.fill_large(key);
        }
    }

    /// Goes on receiving a large frame; its buffer grows with the bytes that came, so a claim alone buys nothing.
    pub(crate) fn fill_large(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.receiving {
            return;
        }
        let need = conn.large_need;
        let mut part = conn.large_part.take();
        // What came behind a request that held the connection up may be more than a stranger's beginning.
        let have = part.as_ref().map_or(conn.input.len().min(need), |p| p.len());
        if part.as_ref().is_none_or(|p| p.capacity() < need && p.len() == p.capacity()) {
            // A connection that sent large frames before gets room for one at once; a stranger's beginning buys 64 KiB.
            let want = need.min((have * 4).max(conn.large_seen).max(STRANGER_BYTES));
            self.largest_frame = self.largest_frame.max(need);
            // Nobody overtakes those that wait.
            let waits = self.starved_at_bytes.is_some() && self.next_fed != Some(key);
            let room = (!waits).then(|| frame_memory(self.io.pool(), want, self.largest_frame));
            let Some(mut larger) = room.flatten() else {
                // Memory is short: TCP pushes back, what becomes free is tried again, the frame's deadline bounds the wait.
                conn.large_part = part;
                self.starved_at_bytes = Some(self.io.pool().stats().used_bytes);
                self.log.give_up_memory();
                return;
            };
            match &part {
                Some(old) => larger.extend(old),
                None => {
                    larger.extend(conn.input.get(..have).unwrap_or_default());
                    conn.input.drain(..have);
                }
            }
            part = Some(larger);
        }
        let Some(part) = part else { return };
        if part.len() >= need {
            conn.large_part = Some(part);
            return;
        }
        conn.receiving = true;
        let fill_to = need.min(part.capacity());
        conn.large_piece = fill_to.saturating_sub(part.len());
        self.io
            .push(Op::RecvInto { socket: conn.socket, buf: part, fill_to }, token(token::FILL, key.pack()));
    }

    /// Connections whose large frames had no memory, the oldest frame first.
    fn starving(&self) -> Vec<(u64, Key)> {
        let frame = |key: Key| self.conns.get(key).filter(|c| c.starves()).map(|c| (c.frame_since_ns, key));
        let mut starving: Vec<(u64, Key)> = self.conns.keys().into_iter().filter_map(frame).collect();
        starving.sort_unstable();
        starving
    }

    fn starves(&self, key: Key) -> bool {
        self.conns.get(key).is_some_and(Conn::starves)
    }

    /// Large frames that had no memory go on, as far as there is some now. Nobody overtakes an older one that still has to
    /// wait: whether there is one.
    pub(crate) fn feed(&mut self) -> bool {
        let starving = self.starving();
        self.starved_at_bytes = None;
        for (_, key) in starving {
            self.next_fed = Some(key);
            self.fill_large(key);
            if self.starves(key) {
                return true;
            }
        }
        false
    }

    /// Each large frame holds what came of it, so together they may hold what every one of them waits for: when the oldest
    /// has waited for long, the youngest give way.
    pub(crate) fn make_way(&mut self) {
        let starving = self.starving();
        let Some(((since_ns, oldest), younger)) = starving.split_first() else { return };
        if self.now_ns.saturating_sub(*since_ns) < STARVED_NS_MAX {
            return;
        }
        self.next_fed = Some(*oldest);
        for (_, key) in younger.iter().rev() {
            let gives_way = |conn: &&Conn| conn.large_part.is_some() && conn.owes_nothing();
            let Some(conn) = self.conns.get(*key).filter(gives_way) else { continue };
            let reason = Closing::FrameWithoutMemory { bytes: conn.large_need };
            self.close(*key, Some(reason));
            self.fill_large(*oldest);
            if !self.starves(*oldest) {
                return;
            }
        }
    }

    /// Takes frames from the input while the connection may go on, then asks for more bytes.
    pub(crate) fn advance_input(&mut self, key: Key) {
        loop {
            let Some(conn) = self.conns.get_mut(key) else { return };
            let eof = conn.eof;
            if conn.ending
                || conn.stalled
                || conn.paused_until_ns > self.now_ns
                || conn.barrier
                || conn.move_to.is_some()
                || conn.waiting() >= PIPELINE_MAX
                || conn.chokes()
            {
                break;
            }
            if self.metadata_turn_bytes >= METADATA_TURN_BYTES && conn.asks_for_metadata() {
                if !std::mem::replace(&mut conn.resting, true) {
                    self.resting.push_back(key);
                }
                break;
            }
            match self.next_frame(key) {
                NextFrame::Frame(frame) => {
                    if !self.handle_frame(key, frame) {
                        return;
                    }
                }
                NextFrame::More if eof => {
                    self.end(key, None);
                    return;
                }
                NextFrame::More => break,
                NextFrame::Bad(reason) => {
                    self.end(key, Some(reason));
                    return;
                }
            }
        }
        self.read_more(key);
    }

    /// Goes on with connections whose next request waited for this turn, before those that come with it: in turns, as far as
    /// there is room. Who still has to rest is behind the others then.
    pub(crate) fn resume_resting(&mut self) {
        self.metadata_turn_bytes = 0;
        for _ in 0..self.resting.len() {
            if self.metadata_turn_bytes >= METADATA_TURN_BYTES {
                return;
            }
            let Some(key) = self.resting.pop_front() else { return };
            if let Some(conn) = self.conns.get_mut(key) {
                conn.resting = false;
                self.advance_input(key);
            }
        }
    }

    pub(crate) fn read_more(&mut self, key: Key) {
        const INPUT_MAX: usize = 64 << 10;
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.eof {
            return;
        }
        if conn.ending {
            if !conn.receiving {
                conn.receiving = true;
                self.io.push(Op::Recv { socket: conn.socket }, token(token::RECV, key.pack()));
            }
            return;
        }
        if let Some(target) = conn.move_to
            && conn.is_quiet(self.now_ns)
            && !conn.receiving
        {
            self.move_away(key, target);
            return;
        }
        if conn.receiving || conn.move_to.is_some() {
            return;
        }
        if conn.large_need > 0 {
            if conn.large_part.as_ref().is_none_or(|p| p.len() < conn.large_need) {
                self.fill_large(key);
            }
            return;
        }
        if conn.input.len() < INPUT_MAX {
            conn.receiving = true;
            self.io.push(Op::Recv { socket: conn.socket }, token(token::RECV, key.pack()));
        }
    }

    fn next_frame(&mut self, key: Key) -> NextFrame {
        const SMALL_MAX: usize = 32 << 10;
        let max = self.settings.request_bytes_max;
        let Some(conn) = self.conns.get_mut(key) else { return NextFrame::More };
        if conn.large_need > 0 {
            return match conn.large_part.take() {
                Some(part) if part.len() >= conn.large_need => {
                    conn.large_seen = conn.large_seen.max(conn.large_need);
                    conn.large_need = 0;
                    conn.frame_ends(self.now_ns);
                    NextFrame::Frame(FrameBytes::Large(part.freeze()))
                }
                // Its rest came with an ordinary receive, which was under way before the frame was known to be large.
                None if conn.input.len() >= conn.large_need => {
                    let rest = conn.input.split_off(conn.large_need);
                    conn.large_need = 0;
                    conn.frame_ends(self.now_ns);
                    NextFrame::Frame(FrameBytes::Small(std::mem::replace(&mut conn.input, rest)))
                }
                part => {
                    conn.large_part = part;
                    NextFrame::More
                }
            };
        }
        let Some(prefix) = conn.input.first_chunk::<4>() else { return NextFrame::More };
        let claimed = i32::from_be_bytes(*prefix);
        let Ok(need) = usize::try_from(claimed) else {
            return NextFrame::Bad(Closing::NegativeLength(claimed));
        };
        if need > max {
            return NextFrame::Bad(Closing::TooLarge { bytes: claimed, max });
        }
        if need < 8 {
            return NextFrame::Bad(Closing::TooShort(need));
        }
        if need > SMALL_MAX && need as u64 > frames_bytes_max(self.io.pool(), need) {
            // It would only be in the way of those that fit.
            return NextFrame::Bad(Closing::FrameWithoutMemory { bytes: need });
        }
        if conn.input.len() >= 4 + need {
            let frame = conn.input.get(4..4 + need).unwrap_or_default().to_vec();
            conn.input.drain(..4 + need);
            conn.frame_ends(self.now_ns);
            if conn.input.is_empty() && conn.input.capacity() > SMALL_MAX {
                conn.input = Vec::new();
            }
            return NextFrame::Frame(FrameBytes::Small(frame));
        }
        // A claim alone buys nothing: a stranger's large frame gets a buffer of its own when the beginning of it is here.
        if need > SMALL_MAX && (conn.large_seen > 0 || conn.input.len() > EARNEST_BYTES) {
            conn.input.drain(..4);
            conn.large_need = need;
        }
        NextFrame::More
    }

    /// Handles one request. False when the connection is gone.
    fn handle_frame(&mut self, key: Key, frame: FrameBytes) -> bool {
        let Some(conn) = self.conns.get_mut(key) else { return false };
        let header = match RequestHeader::parse(&frame) {
            Ok(header) => header,
            Err(error) => {
                self.end(key, Some(Closing::Header(error)));
                return false;
            }
        };
        let api = header.api_key;
        // Produce may follow produce; anything else waits until all before it are answered, and nothing passes it.
        if api != ApiKey::PRODUCE && conn.waiting() > 0 {
            let mut input = Vec::with_capacity(4 + frame.len() + conn.input.len());
            input.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            input.extend_from_slice(&frame);
            input.append(&mut conn.input);
            conn.input = input;
            conn.barrier = true;
            return true;
        }
        conn.client.request(header.client_id);
        let received_us = conn.take_received_us();
        self.metrics.of(ApiKind::of(api)).taken(received_us);
        if !self.live.quotas {
            return self.dispatch(key, api, frame);
        }
        self.dispatch_charged(key, frame)
    }

    pub(crate) fn dispatch(&mut self, key: Key, api: ApiKey, frame: FrameBytes) -> bool {
        match api {
            ApiKey::PRODUCE => self.handle_produce(key, frame),
            ApiKey::FETCH => self.handle_fetch(key, frame),
            ApiKey::API_VERSIONS => self.handle_api_versions(key, &frame),
            _ if frame.len() > CONTROL_REQUEST_BYTES_MAX => {
                self.refuse(key, ApiKind::Other, Closing::TooLargeForControl { api, bytes: frame.len() })
            }
            ApiKey::METADATA => self.handle_metadata(key, frame),
            _ => self.forward(key, api, frame, None),
        }
    }

    /// Hands a request to control, which answers it, or does what comes before an answer that is `prepared`.
    pub(crate) fn forward(
        &mut self,
        key: Key,
        api: ApiKey,
        frame: FrameBytes,
        prepared: Option<Vec<u8>>,
    ) -> bool {
        let Some(conn) = self.conns.get_mut(key) else { return false };
        let slot = conn.reserve();
        conn.barrier = true;
        let (since_ns, receive_us) = (self.now_ns, conn.received_us);
        conn.deciding = Some(Deciding { api, slot, since_ns, receive_us, prepared });
        let frame = Frame {
            conn: conn.key,
            slot,
            peer: conn.peer,
            bytes: match frame {
                FrameBytes::Small(bytes) => bytes,
                FrameBytes::Large(buf) => buf.to_vec(),
            },
        };
        self.tell_control(ControlMessage::Frame(frame));
        true
    }

    /// Closes instead of answering a request that was taken and cannot be understood; false, for who handles it.
    pub(crate) fn refuse(&mut self, key: Key, kind: ApiKind, reason: Closing) -> bool {
        self.metrics.of(kind).answered(0, true);
        self.end(key, Some(reason));
        false
    }
}
