//! The second half of an operation's life: what its completions mean, and what of it is asked again.

use super::{Pending, RECV_BYTES, RingBackend, Slot};
use crate::buffer::Fresh;
use crate::op::{Completion, Errno, Payload, Received, ReceivedInner, Token};
use crate::provided::ProvidedRing;
use io_uring::cqueue;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

impl RingBackend {
    pub(super) fn reap(&mut self) {
        let mut completions: [Option<cqueue::Entry>; 64] = [const { None }; 64];
        loop {
            let mut count = 0;
            for (place, entry) in completions.iter_mut().zip(self.ring.completion()) {
                *place = Some(entry);
                count += 1;
            }
            for place in completions.iter_mut().take(count) {
                if let Some(entry) = place.take() {
                    self.completed(&entry);
                    self.tell_closed();
                }
            }
            if count < completions.len() {
                return;
            }
        }
    }

    fn completed(&mut self, entry: &cqueue::Entry) {
        let (data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
        let at = (data >> 2) as u32;
        let outcome = if result >= 0 { Ok(result as u32) } else { Err(Errno(-result)) };
        let Some(slot) = self.slots.get_mut(at as usize) else { return };
        assert_eq!(
            u64::from(slot.generation),
            data >> 34,
            "a completion belongs to the present life of its slot"
        );
        let token = slot.token;
        match &slot.pending {
            Some(Pending::Accept { .. }) => self.accepted(at, token, outcome, cqueue::more(flags)),
            Some(Pending::Recv { .. }) => self.received(at, outcome, flags),
            Some(Pending::RecvPoll { .. }) => self.readable(at, outcome),
            Some(Pending::RecvInto { .. }) => self.received_into(at, outcome),
            Some(Pending::Send(_)) => self.sent(at, token, outcome, flags),
            Some(Pending::Write { .. }) => self.written(at, token, outcome, data & 3),
            Some(Pending::Sync { .. }) => {
                self.remove(at);
                self.done.push_back(Completion {
                    token,
                    result: outcome,
                    payload: Payload::None,
                    more: false,
                });
            }
            Some(Pending::Read { .. }) => self.read(at, outcome),
            Some(Pending::Wake) => {
                self.bell_watched = false;
                self.in_flight += 1;
                self.remove(at);
                self.watch_bell();
            }
            // A close is told by `remove`, when it was the last of its socket.
            Some(Pending::Close { .. } | Pending::Ignored) | None => {
                self.remove(at);
            }
        }
    }

    fn received_into(&mut self, at: u32, outcome: Result<u32, Errno>) {
        let Some(Slot { pending: Some(Pending::RecvInto { buf, fill_to, got, .. }), .. }) =
            self.slots.get_mut(at as usize)
        else {
            return;
        };
        if let Ok(count) = outcome {
            let len = buf.len() + count as usize;
            buf.set_len(len);
            *got += count;
            if count > 0 && len < *fill_to && !self.ending {
                return self.push_recv_into(at);
            }
        }
        if let Some((token, Pending::RecvInto { buf, got, .. })) = self.remove(at) {
            let result = outcome.map(|_| got);
            self.done.push_back(Completion { token, result, payload: Payload::BufMut(buf), more: false });
        }
    }

    /// A write's only completion: `part` 0 is the write itself, others are its linked flush.
    fn written(&mut self, at: u32, token: Token, outcome: Result<u32, Errno>, part: u64) {
        let Some((_, Pending::Write { len, .. })) = self.remove(at) else { return };
        let result = match outcome {
            Ok(count) if part == 0 && count as usize != len => Err(Errno::IO),
            other => other.map(|_| len as u32),
        };
        self.done.push_back(Completion { token, result, payload: Payload::None, more: false });
    }

    fn read(&mut self, at: u32, outcome: Result<u32, Errno>) {
        let Some(Slot { pending: Some(Pending::Read { want, got, .. }), .. }) =
            self.slots.get_mut(at as usize)
        else {
            return;
        };
        if let Ok(count) = outcome {
            *got += count as usize;
            // A direct read that ends off a page ended at the end of the file.
            let whole = got.is_multiple_of(ringmill_types::limits::PAGE_BYTES);
            if count > 0 && *got < *want && whole && !self.ending {
                return self.push_read(at);
            }
        }
        if let Some((token, Pending::Read { mut buf, got, .. })) = self.remove(at) {
            buf.set_len(got);
            let result = outcome.map(|_| got as u32);
            self.done.push_back(Completion { token, result, payload: Payload::BufMut(buf), more: false });
        }
    }

    fn sent(&mut self, at: u32, token: Token, outcome: Result<u32, Errno>, flags: u32) {
        let Some(Slot { pending: Some(Pending::Send(sending)), .. }) = self.slots.get_mut(at as usize) else {
            return;
        };
        if cqueue::notif(flags) {
            sending.notices -= 1;
        } else {
            // A zero-copy send keeps the memory until its notice; the caller need not wait for that.
            sending.notices += u32::from(cqueue::more(flags));
            if let Ok(count) = outcome {
                sending.sent += count;
                if count > 0 && sending.sent < sending.total && !self.ending {
                    return self.push_send(at);
                }
            }
            sending.told = true;
            let result = outcome.map(|_| sending.sent);
            self.done.push_back(Completion { token, result, payload: Payload::None, more: false });
        }
        if sending.told && sending.notices == 0 {
            self.remove(at);
        }
    }

    fn accepted(&mut self, at: u32, token: Token, outcome: Result<u32, Errno>, more: bool) {
        if !more {
            self.remove(at);
        }
        match outcome {
            Ok(fd) => {
                // SAFETY: the kernel just gave this descriptor to us, nobody else has it.
                let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
                let stream = std::net::TcpStream::from(fd);
                // Both can fail only when the peer is gone again, which the first receive will say.
                let _ = stream.set_nodelay(true);
                let peer = stream.peer_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
                let socket = self.add_socket(OwnedFd::from(stream));
                self.done.push_back(Completion {
                    token,
                    result: Ok(0),
                    payload: Payload::Accepted { socket, peer },
                    more,
                });
            }
            Err(errno) => {
                self.done.push_back(Completion { token, result: Err(errno), payload: Payload::None, more })
            }
        }
    }

    fn received(&mut self, at: u32, outcome: Result<u32, Errno>, flags: u32) {
        if outcome == Err(Errno(libc::ENOBUFS)) {
            self.starved.push(at);
            return;
        }
        let Some((token, Pending::Recv { .. })) = self.remove(at) else { return };
        let buffer = match (cqueue::buffer_select(flags), &self.provided) {
            (Some(id), Some(provided)) => {
                Some(ProvidedRing::lend(provided, id, outcome.unwrap_or(0) as usize))
            }
            _ => None,
        };
        let payload = match buffer {
            Some(buffer) => Payload::Received(Received(ReceivedInner::Ring(buffer))),
            None => Payload::None,
        };
        self.done.push_back(Completion { token, result: outcome, payload, more: false });
    }

    /// Without provided buffers: the socket is readable, so receive now, without waiting.
    fn readable(&mut self, at: u32, outcome: Result<u32, Errno>) {
        let Some((token, Pending::RecvPoll { socket })) = self.remove(at) else { return };
        let Some(fd) = self.socket_fd(socket) else {
            return self.fail(token, Errno::CANCELED, Payload::None);
        };
        if let Err(errno) = outcome {
            return self.fail(token, errno, Payload::None);
        }
        let mut bytes = vec![0u8; RECV_BYTES];
        // SAFETY: writes at most the length of the vector into it.
        let got = unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) };
        if got < 0 {
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
            if errno == libc::EAGAIN || errno == libc::EINTR {
                return self.start_recv(socket, token);
            }
            return self.fail(token, Errno(errno), Payload::None);
        }
        bytes.truncate(got as usize);
        let payload = Payload::Received(Received(ReceivedInner::Owned(bytes.into_boxed_slice())));
        self.done.push_back(Completion { token, result: Ok(got as u32), payload, more: false });
    }

    pub(super) fn take_job_results(&mut self) {
        while self.jobs_out > 0
            && let Ok((token, output)) = self.job_results.try_recv()
        {
            self.jobs_out -= 1;
            let output = match output.downcast::<Fresh>() {
                Ok(fresh) => {
                    self.populating -= 1;
                    self.pool.give(*fresh);
                    continue;
                }
                Err(output) => output,
            };
            self.done.push_back(Completion {
                token,
                result: Ok(0),
                payload: Payload::Job(output),
                more: false,
            });
        }
    }
}
