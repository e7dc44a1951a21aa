//! The threads beside a core: one for blocking file work, one for long computations. Apart, so that no file is synced late
//! because something is being compressed, and nothing is compressed late because a disk is slow.

use crate::mailbox::Doorbell;
use crate::op::{Job, JobOutput, Token};
use crate::stdfs::StdFs;
use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// Does jobs in their order and rings when one is done. Ends with [`Aside::end`].
pub(super) struct Aside {
    orders: mpsc::Sender<(Token, Job)>,
    thread: JoinHandle<()>,
}

impl Aside {
    /// `begin` runs on the thread before the first job.
    pub fn start(
        name: &str,
        results: mpsc::Sender<(Token, JobOutput)>,
        bell: Doorbell,
        begin: fn(),
    ) -> io::Result<Aside> {
        let (orders, taken) = mpsc::channel::<(Token, Job)>();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            begin();
            for (token, job) in taken {
                let output = job(&StdFs);
                if results.send((token, output)).is_err() {
                    return;
                }
                bell.ring();
            }
        })?;
        Ok(Aside { orders, thread })
    }

    pub fn order(&self, token: Token, job: Job) {
        let sent = self.orders.send((token, job)).is_ok();
        assert!(sent, "a thread beside a core lives as long as the backend");
    }

    /// Returns when everything ordered is done.
    pub fn end(self) {
        drop(self.orders);
        // A job that panicked was reported by its thread; there is nothing left to do about it here.
        let _ = self.thread.join();
    }
}
