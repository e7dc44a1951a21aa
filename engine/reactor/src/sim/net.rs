//! Sockets in memory: random segments, delays, bounded windows, half-close and reset.

use super::world::{Event, OpState, SimWorld, Transfer, World};
use crate::op::{Completion, Errno, Payload, Received, ReceivedInner, SocketId};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

/// Where clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerId(pub(crate) u64);

pub(crate) struct Listener {
    pub accept: Option<u64>,
    /// Connected before anyone accepted.
    pub waiting: VecDeque<u64>,
}

/// One end of a connection.
#[derive(Default)]
pub(crate) struct Socket {
    pub peer: u64,
    pub inbox: VecDeque<u8>,
    outbox: VecDeque<u8>,
    /// Sent by this end, not yet taken out of the other's inbox.
    unread: usize,
    last_delivery_ns: u64,
    pub ended: bool,
    pub reset: bool,
    closing: bool,
    closed: bool,
    pub recv: Option<u64>,
    pub send: Option<u64>,
}

/// Bytes that one receive gives at most.
const RECV_BYTES_MAX: usize = 16 << 10;

impl World {
    /// Two connected ends.
    pub fn pair(&mut self) -> (u64, u64) {
        let (a, b) = (self.id(), self.id());
        self.sockets.insert(a, Socket { peer: b, ..Socket::default() });
        self.sockets.insert(b, Socket { peer: a, ..Socket::default() });
        (a, b)
    }

    /// Puts what the window allows on its way.
    pub fn pump(&mut self, socket: u64) {
        loop {
            let max = self.rng.between(1, self.options.segment_bytes_max) as usize;
            let window = self.options.window_bytes;
            let at = self.now_ns + self.net_ns();
            let Some(this) = self.sockets.get_mut(&socket) else { return };
            let step = max.min(this.outbox.len()).min(window.saturating_sub(this.unread));
            if step == 0 {
                break;
            }
            let bytes: Vec<u8> = this.outbox.drain(..step).collect();
            this.unread += step;
            let at = at.max(this.last_delivery_ns + 1);
            this.last_delivery_ns = at;
            let to = this.peer;
            self.schedule(at, Event::Deliver { to, bytes });
        }
        let Some(this) = self.sockets.get_mut(&socket) else { return };
        if !this.outbox.is_empty() {
            return;
        }
        let (to, at) = (this.peer, this.last_delivery_ns + 1);
        if std::mem::take(&mut this.closing) {
            self.schedule(at, Event::End { to });
        }
        let Some(op) = self.sockets.get_mut(&socket).and_then(|s| s.send.take()) else { return };
        let Some(pending) = self.ops.get(&op) else { return };
        if let OpState::Send { parts } = &pending.state {
            let same = parts.iter().all(Transfer::is_untouched);
            assert!(same, "seed {}: a buffer changed while its send was in flight", self.seed);
            let bytes = parts.iter().map(|p| p.len() as u32).sum();
            self.finish(op, Ok(bytes), Payload::None);
        }
    }

    pub fn send(&mut self, socket: u64, bytes: &[u8]) {
        if let Some(this) = self.sockets.get_mut(&socket) {
            this.outbox.extend(bytes);
        }
        self.pump(socket);
    }

    /// Takes up to `max` bytes that arrived; the other end may send as many more.
    fn take(&mut self, socket: u64, max: usize) -> Vec<u8> {
        let Some(this) = self.sockets.get_mut(&socket) else { return Vec::new() };
        let step = max.min(this.inbox.len());
        let bytes: Vec<u8> = this.inbox.drain(..step).collect();
        let peer = this.peer;
        if let Some(peer_end) = self.sockets.get_mut(&peer) {
            peer_end.unread = peer_end.unread.saturating_sub(step);
            self.pump(peer);
        }
        bytes
    }

    pub fn delivered(&mut self, to: u64, bytes: Vec<u8>) {
        self.note(self.now_ns ^ bytes.len() as u64);
        let Some(this) = self.sockets.get_mut(&to) else { return };
        if this.closed {
            let peer = this.peer;
            self.reset_end(peer);
            return;
        }
        if this.reset {
            return;
        }
        this.inbox.extend(bytes);
        self.try_receive(to);
    }

    pub fn ended(&mut self, to: u64) {
        if let Some(this) = self.sockets.get_mut(&to) {
            this.ended = true;
            self.try_receive(to);
        }
    }

    pub fn connected(&mut self, listener: u64, socket: u64) {
        let Some(place) = self.listeners.get_mut(&listener) else {
            if let Some(peer) = self.sockets.remove(&socket).map(|s| s.peer) {
                self.reset_end(peer);
            }
            return;
        };
        place.waiting.push_back(socket);
        self.try_accept(listener);
    }

    pub fn try_accept(&mut self, listener: u64) {
        let Some(place) = self.listeners.get_mut(&listener) else { return };
        let Some(op) = place.accept else { return };
        let waiting = std::mem::take(&mut place.waiting);
        for socket in waiting {
            let Some(pending) = self.ops.get(&op) else { return };
            let (core, token) = (pending.core, pending.token);
            let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000 + (socket % 20_000) as u16));
            let payload = Payload::Accepted { socket: SocketId(socket as u32), peer };
            self.note(self.now_ns ^ socket);
            if let Some(side) = self.cores.get_mut(core) {
                side.ready.push_back(Completion { token, result: Ok(0), payload, more: true });
            }
        }
    }

    /// Ends a receive if something is there for it.
    pub fn try_receive(&mut self, socket: u64) {
        let Some(this) = self.sockets.get(&socket) else { return };
        let (ready, ended, reset) = (!this.inbox.is_empty(), this.ended, this.reset);
        let Some(op) = this.recv else { return };
        if !ready && !ended && !reset {
            return;
        }
        let Some(pending) = self.ops.get_mut(&op) else { return };
        let state = std::mem::replace(&mut pending.state, OpState::Recv);
        let (result, payload) = match state {
            OpState::RecvInto { mut buf, fill_to, mut got } => {
                // Not a byte more: it would be the next frame's.
                let room = fill_to.saturating_sub(buf.len());
                let bytes = self.take(socket, room);
                buf.extend(&bytes);
                got += bytes.len() as u32;
                if buf.len() < fill_to && !ended && !reset {
                    if let Some(pending) = self.ops.get_mut(&op) {
                        pending.state = OpState::RecvInto { buf, fill_to, got };
                    }
                    return;
                }
                let result = if reset && got == 0 { Err(Errno::CONNECTION_RESET) } else { Ok(got) };
                (result, Payload::BufMut(buf))
            }
            _ if reset && !ready => (Err(Errno::CONNECTION_RESET), Payload::None),
            _ => {
                let bytes = self.take(socket, RECV_BYTES_MAX);
                let received = Received(ReceivedInner::Owned(bytes.into_boxed_slice()));
                (Ok(received.len() as u32), Payload::Received(received))
            }
        };
        if let Some(this) = self.sockets.get_mut(&socket) {
            this.recv = None;
        }
        self.finish(op, result, payload);
    }

    /// The other side sent a reset.
    pub fn reset_end(&mut self, socket: u64) {
        let Some(this) = self.sockets.get_mut(&socket) else { return };
        this.reset = true;
        this.outbox = VecDeque::new();
        if let Some(op) = this.send.take() {
            self.finish(op, Err(Errno::CONNECTION_RESET), Payload::None);
        }
        self.try_receive(socket);
    }

    /// Closes an end that a core owns: what it waits for fails, what is on its way arrives, then the end.
    pub fn close_end(&mut self, socket: u64) {
        let Some(this) = self.sockets.get_mut(&socket) else { return };
        let ops = [this.recv.take(), this.send.take()];
        this.closed = true;
        this.closing = true;
        this.outbox = VecDeque::new();
        for op in ops.into_iter().flatten() {
            self.finish(op, Err(Errno::CANCELED), Payload::None);
        }
        self.pump(socket);
    }

    /// The process died: its ends are gone, clients see a reset.
    pub fn lose_connections(&mut self) {
        for socket in self.sockets.values_mut() {
            socket.reset = true;
            socket.recv = None;
            socket.send = None;
            socket.outbox = VecDeque::new();
        }
    }
}

/// A client's end of a connection.
pub struct SimConn {
    world: Rc<RefCell<World>>,
    socket: u64,
}

impl SimWorld {
    /// Connects; data may be sent at once.
    pub fn connect(&self, listener: ListenerId) -> SimConn {
        let mut world = self.world.borrow_mut();
        let (client, server) = world.pair();
        let at = world.now_ns + world.net_ns();
        world.schedule(at, Event::Connect { listener: listener.0, socket: server });
        SimConn { world: self.world.clone(), socket: client }
    }
}

impl SimConn {
    pub fn send(&self, bytes: &[u8]) {
        self.world.borrow_mut().send(self.socket, bytes);
    }

    /// What arrived since the last call. Not calling it makes a slow reader.
    pub fn recv(&self) -> Vec<u8> {
        self.world.borrow_mut().take(self.socket, usize::MAX)
    }

    /// No more will be sent; what was sent arrives first, and answers can still be read.
    pub fn close(&self) {
        let mut world = self.world.borrow_mut();
        if let Some(this) = world.sockets.get_mut(&self.socket) {
            this.closing = true;
        }
        world.pump(self.socket);
    }

    /// Gone at once, both ways.
    pub fn reset(&self) {
        let mut world = self.world.borrow_mut();
        let peer = world.sockets.get(&self.socket).map(|s| s.peer);
        if let Some(this) = world.sockets.get_mut(&self.socket) {
            this.closed = true;
            this.reset = true;
            (this.inbox, this.outbox) = (VecDeque::new(), VecDeque::new());
        }
        if let Some(peer) = peer {
            world.reset_end(peer);
        }
    }

    /// The broker closed the connection or died, and all that it sent was taken.
    pub fn is_over(&self) -> bool {
        let world = self.world.borrow();
        world.sockets.get(&self.socket).is_none_or(|s| s.reset || s.ended && s.inbox.is_empty())
    }
}

impl Drop for SimConn {
    fn drop(&mut self) {
        if !self.is_over() {
            self.reset();
        }
    }
}
