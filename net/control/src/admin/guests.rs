//! Who is connected to the admin port, and who of them makes way.
//!
//! Whoever connects and says nothing takes a place until its deadline; were all places taken so, nobody could ask for the
//! broker's health. So a newcomer gets the place of the guest that was silent for longest. One that is being answered is
//! never sent away; where all are, a place is waited for, and each answer has a deadline.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// While all guests are being answered: how often to look for one that is not any more.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The places; owned by the loop that accepts.
pub(super) struct Guests {
    room: Arc<Semaphore>,
    here: Vec<Weak<Guest>>,
}

/// One connection, owned by its task; its place is free when it is dropped.
pub(super) struct Guest {
    /// `None`: it is being answered.
    silent_since: Mutex<Option<Instant>>,
    leave: Notify,
    _place: OwnedSemaphorePermit,
}

/// A guest is being answered until this is dropped.
pub(super) struct Talk<'a>(&'a Guest);

impl Guests {
    pub fn new(places: usize) -> Guests {
        Guests { room: Arc::new(Semaphore::new(places)), here: Vec::new() }
    }

    /// A place for a newcomer, another's if need be.
    pub async fn welcome(&mut self) -> Arc<Guest> {
        self.here.retain(|guest| guest.strong_count() > 0);
        let place = match Arc::clone(&self.room).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => self.anothers_place().await,
        };
        let guest = Arc::new(Guest {
            silent_since: Mutex::new(Some(Instant::now())),
            leave: Notify::new(),
            _place: place,
        });
        self.here.push(Arc::downgrade(&guest));
        guest
    }

    async fn anothers_place(&self) -> OwnedSemaphorePermit {
        loop {
            let silent = self.here.iter().filter_map(Weak::upgrade);
            let longest = silent.filter_map(|guest| Some((guest.silent_since()?, guest))).min_by_key(|g| g.0);
            if let Some((_, guest)) = longest {
                guest.leave.notify_one();
            }
            if let Ok(place) = timeout(LOOK_AGAIN, Arc::clone(&self.room).acquire_owned()).await {
                return place.expect("the semaphore is never closed");
            }
        }
    }
}

impl Guest {
    pub fn talks(&self) -> Talk<'_> {
        self.set(None);
        Talk(self)
    }

    /// Ends when a newcomer needs the place.
    pub async fn sent_away(&self) {
        self.leave.notified().await;
    }

    fn silent_since(&self) -> Option<Instant> {
        *self.silent_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, silent_since: Option<Instant>) {
        *self.silent_since.lock().unwrap_or_else(PoisonError::into_inner) = silent_since;
    }
}

impl Drop for Talk<'_> {
    fn drop(&mut self) {
        self.0.set(Some(Instant::now()));
    }
}
