//! A thread that looks through the names of topics for patterns of members, which may take long: control does not wait.
//!
//! Made when there is such a pattern, ends with the coordinator. One pattern is matched at a time, in the order in which
//! the machine gave them; it gives each one once at a time, so what waits is bounded by what members may say.

use ringmill_groups::{Matched, Matching};
use std::sync::mpsc;
use tokio::sync::mpsc as results;

pub(super) struct Matcher {
    work: Option<mpsc::Sender<Matching>>,
    done: results::UnboundedSender<Matched>,
    results: results::UnboundedReceiver<Matched>,
}

impl Default for Matcher {
    fn default() -> Matcher {
        let (done, results) = results::unbounded_channel();
        Matcher { work: None, done, results }
    }
}

impl Matcher {
    pub fn hand_out(&mut self, matching: Matching) {
        let work = match self.work.take() {
            Some(work) => work,
            None => match start(self.done.clone()) {
                Ok(work) => work,
                Err(error) => {
                    tracing::warn!(%error, "no thread for patterns of members: matched by control, which waits for it");
                    let _ = self.done.send(matching.run());
                    return;
                }
            },
        };
        // The thread ends when there is nobody left to tell, which is after this.
        let _ = work.send(matching);
        self.work = Some(work);
    }

    /// The next result; waits for ever when nothing is handed out.
    pub async fn next(&mut self) -> Option<Matched> {
        self.results.recv().await
    }

    /// The next result if there is one already, for tests without a runtime.
    #[cfg(test)]
    pub fn next_now(&mut self) -> Option<Matched> {
        self.results.try_recv().ok()
    }

    /// The next result, waited for by a test without a runtime.
    #[cfg(test)]
    pub fn next_soon(&mut self) -> Option<Matched> {
        self.results.blocking_recv()
    }
}

fn start(done: results::UnboundedSender<Matched>) -> std::io::Result<mpsc::Sender<Matching>> {
    let (work, from) = mpsc::channel::<Matching>();
    std::thread::Builder::new().name("patterns".into()).spawn(move || {
        for matching in from {
            if done.send(matching.run()).is_err() {
                return;
            }
        }
    })?;
    Ok(work)
}
