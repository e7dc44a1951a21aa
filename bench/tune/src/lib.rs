//! Which flush policy serves a goal best: the space of policies, what is asked for, a search, and the frontier.
//!
//! Pure: it says which policy to measure next and is told what came of it; it starts no broker and knows no clock.
//! Guarantees that every policy it recommends was measured more than once, that a comparison is one of intervals and
//! not of single runs, and that what it says at any moment is the best of what it was told so far.

pub mod estimate;
pub mod frontier;
pub mod goal;
pub mod policy;
pub mod prior;
pub mod race;

pub use estimate::{Estimate, Sample, Spread};
pub use frontier::{Point, frontier};
pub use goal::{NotAGoal, Rate, Slo};
pub use policy::{Ack, Method, Policy, Space};
pub use prior::{DeviceRow, order};
pub use race::{Objective, Race, Standing};
