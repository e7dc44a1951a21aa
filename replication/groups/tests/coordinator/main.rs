//! The coordinator's rules, one test each, and its invariants under random events.
#![allow(clippy::unwrap_used)]

mod consumer_story;
mod consumers;
mod invariants;
mod membership;
mod migration;
mod mixed;
mod offsets;
mod rig;
mod seat;
mod statics;
