//! Waking another core's ring: a doorbell (eventfd read by the ring) against MSG_RING, pinned or not.

use crate::Scene;
use crate::tools::{Spinner, alternate, heading, pin, repeat, ring, succeed};
use io_uring::{IoUring, opcode, squeue, types};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::mpsc;

/// The largest value that an eventfd takes.
const STOP: u64 = u64::MAX - 1;

#[derive(Clone, Copy, PartialEq)]
enum Means {
    Eventfd,
    MsgRing,
}

struct Side {
    ring: IoUring,
    /// Rung by the other side.
    mine: OwnedFd,
    theirs: RawFd,
    their_ring: RawFd,
    means: Means,
}

impl Side {
    fn ring_other(&mut self, value: u64) {
        match self.means {
            Means::Eventfd => {
                // SAFETY: eight bytes on the stack.
                let wrote = unsafe { libc::write(self.theirs, (&raw const value).cast(), 8) };
                assert_eq!(wrote, 8);
            }
            Means::MsgRing => {
                let tell = opcode::MsgRingData::new(types::Fd(self.their_ring), 0, value, None).build();
                // Only the target gets a completion: ours could not be told from the answer.
                let tell = tell.flags(squeue::Flags::SKIP_SUCCESS);
                // SAFETY: the entry points to no memory.
                unsafe { self.ring.submission().push(&tell).unwrap() };
                self.ring.submit().unwrap();
            }
        }
    }

    fn wait(&mut self) -> u64 {
        match self.means {
            Means::Eventfd => {
                let mut value = 0_u64;
                let read = opcode::Read::new(types::Fd(self.mine.as_raw_fd()), (&raw mut value).cast(), 8);
                succeed(&mut self.ring, &[read.build()]);
                value
            }
            Means::MsgRing => loop {
                if let Some(told) = self.ring.completion().next() {
                    return told.user_data();
                }
                self.ring.submit_and_wait(1).unwrap();
            },
        }
    }
}

fn doorbell() -> OwnedFd {
    // SAFETY: a new descriptor, checked.
    unsafe {
        let fd = libc::eventfd(0, libc::EFD_CLOEXEC);
        assert!(fd >= 0);
        OwnedFd::from_raw_fd(fd)
    }
}

/// A round trip: ring the other side, which rings back.
fn round_trips(scene: &Scene, means: Means, pinned: bool) -> Vec<std::time::Duration> {
    let (here, there) = (doorbell(), doorbell());
    let (here_fd, there_fd) = (here.as_raw_fd(), there.as_raw_fd());
    let (give, take) = mpsc::channel();
    let (hand, handed) = mpsc::channel();
    let other = std::thread::spawn(move || {
        if pinned {
            pin(1);
        }
        let ring = ring();
        give.send(ring.as_raw_fd()).unwrap();
        let their_ring = handed.recv().unwrap();
        let mut side = Side { ring, mine: there, theirs: here_fd, their_ring, means };
        while side.wait() != STOP {
            side.ring_other(1);
        }
    });
    let span = scene.span;
    let driver = std::thread::spawn(move || {
        if pinned {
            pin(0);
        }
        let ring = ring();
        hand.send(ring.as_raw_fd()).unwrap();
        let their_ring = take.recv().unwrap();
        let mut side = Side { ring, mine: here, theirs: there_fd, their_ring, means };
        let times = repeat(span, || {
            side.ring_other(1);
            side.wait();
        });
        side.ring_other(STOP);
        // The side goes along: its ring must outlive what the other one still sends.
        (times, side)
    });
    let (times, _side) = driver.join().unwrap();
    other.join().unwrap();
    times
}

pub fn wake(scene: &Scene) {
    heading();
    for spinning in [false, true] {
        let spinner = spinning.then(Spinner::start);
        let beside = if spinning { ", 1 spinning" } else { "" };
        let ways = vec![
            (format!("eventfd{beside}"), (Means::Eventfd, false)),
            (format!("MSG_RING{beside}"), (Means::MsgRing, false)),
            (format!("eventfd, pinned{beside}"), (Means::Eventfd, true)),
            (format!("MSG_RING, pinned{beside}"), (Means::MsgRing, true)),
        ];
        alternate(ways, |(means, pinned)| round_trips(scene, *means, *pinned));
        drop(spinner);
    }
}
