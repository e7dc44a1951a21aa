//! Capacity planning: from what a machine was measured to give, to what a load needs.
//!
//! Owns the calibration file ([`calibration`]), the regression that turns measured runs into costs ([`regression`]), the
//! search for what the device takes ([`service`]), the model of one broker core with its clients and its device ([`sim`]),
//! and the sizing of a cluster ([`sizing`]). Pure:
//! nothing here measures, reads a clock or opens a file, and the same inputs give the same answers. Never guesses a cost:
//! what was not measured is marked as modelled where it is told.

pub mod calibration;
pub mod draw;
pub mod fit;
pub mod model;
pub mod regression;
pub mod service;
pub mod sim;
pub mod sizing;
pub mod units;

pub use calibration::{Calibration, CalibrationError, Stamp};
pub use draw::Quantiles;
pub use sim::{Load, NAP_US, Node, Simulated, simulate};
