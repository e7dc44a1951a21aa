//! Waking a thread that sleeps: an eventfd, rung only when the other side is asleep.
//!
//! Protocol. The sleeper calls [`Doorbell::arm`] before it sleeps; `false` means that someone rang since the last time,
//! and it must look at its queues instead. The ringer first pushes its message, then rings. Either the ringer sees the
//! sleeper armed and writes the eventfd, or the sleeper sees the ring in `arm`: both flags are sequentially consistent,
//! so a wake-up cannot be lost.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by the sleeper and everyone who may wake it.
#[derive(Clone, Debug)]
pub struct Doorbell {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fd: OwnedFd,
    asleep: AtomicBool,
    rung: AtomicBool,
}

impl Doorbell {
    /// # Errors
    /// `EMFILE`: raise nofile.
    pub fn new() -> io::Result<Doorbell> {
        // SAFETY: creates a descriptor or fails; no memory is involved.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Doorbell {
            inner: Arc::new(Inner { fd, asleep: AtomicBool::new(false), rung: AtomicBool::new(false) }),
        })
    }

    /// Wakes the sleeper, or makes its next `arm` say no. Call after the message is in its queue.
    pub fn ring(&self) {
        self.inner.rung.store(true, Ordering::SeqCst);
        if self.inner.asleep.swap(false, Ordering::SeqCst) {
            let one = 1u64.to_ne_bytes();
            // SAFETY: eight readable bytes; a full counter (EAGAIN) means that the sleeper wakes anyway.
            unsafe { libc::write(self.inner.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }

    /// Announces sleep. `false`: someone rang, do not sleep.
    #[must_use]
    pub fn arm(&self) -> bool {
        self.inner.asleep.store(true, Ordering::SeqCst);
        if self.inner.rung.swap(false, Ordering::SeqCst) {
            self.inner.asleep.store(false, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// Awake again: rings need no system call now.
    pub fn disarm(&self) {
        self.inner.asleep.store(false, Ordering::SeqCst);
        self.inner.rung.store(false, Ordering::SeqCst);
    }

    /// Empties the eventfd, so that it can be waited for again.
    pub fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight writable bytes; the descriptor does not block.
        unsafe { libc::read(self.inner.fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsRawFd for Doorbell {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.fd.as_raw_fd()
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }
}

impl crate::op::Wake for Doorbell {
    fn wake(&self) {
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    /// Two threads, a counter as the queue: the sleeper must see every count although it sleeps whenever it can.
    #[test]
    fn no_wake_up_is_lost() {
        const ROUNDS: u64 = 20_000;
        let bell = Doorbell::new().expect("eventfd");
        let (sent, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let sleeper = std::thread::spawn({
            let (bell, sent, seen) = (bell.clone(), sent.clone(), seen.clone());
            move || {
                loop {
                    let now = sent.load(Ordering::SeqCst);
                    seen.store(now, Ordering::SeqCst);
                    if now == ROUNDS {
                        return;
                    }
                    if bell.arm() {
                        let mut poll =
                            libc::pollfd { fd: bell.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                        // SAFETY: one pollfd of ours. A lost wake-up shows as the ten-second timeout.
                        let ready = unsafe { libc::poll(&raw mut poll, 1, 10_000) };
                        assert_eq!(ready, 1, "a ring after arming wakes");
                        bell.clear();
                        bell.disarm();
                    }
                }
            }
        });
        for _ in 0..ROUNDS {
            let count = sent.fetch_add(1, Ordering::SeqCst) + 1;
            bell.ring();
            while seen.load(Ordering::SeqCst) < count {
                std::thread::yield_now();
            }
        }
        sleeper.join().expect("the sleeper saw every count");
    }
}
