//! Configuration: one table of keys, and what is made from it.
//!
//! [`table`] holds every key; [`units`] reads sizes, durations and CPU lists; [`load`] turns a file and `--set` options
//! into checked [`Settings`]; [`docs`] writes CONFIG.md and the text of `--help`.

pub mod table;
pub mod units;

pub mod load;

pub mod docs;

pub use docs::help_text;
pub use load::{Config, ConfigErrors, Given};
pub use table::{FlushMethod, KEYS, Key, Kind, Origin, Section, Settings};
