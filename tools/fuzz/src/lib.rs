//! What the fuzz targets do with their bytes. `fuzz_targets/` only names these; `tests/corpus.rs` runs them over the
//! kept corpora without a fuzzer.
//!
//! Every function takes any bytes, must return, and asserts what holds for all of them. Where a checksum would stop
//! nearly every input, the bytes are tried once as they are and once with the checksum put right.

mod disk;
mod groups;
mod wire;

pub use disk::{checkpoint, core_log_group, metadata_record, produced_batch, stored_batches};
pub use groups::group_records;
pub use wire::{
    api_versions, control_request, fetch_request, metadata_request, produce_request, request_header,
};

/// A target by name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them, for replaying and seeding.
pub const TARGETS: &[Target] = &[
    ("request_header", request_header),
    ("produce_request", produce_request),
    ("fetch_request", fetch_request),
    ("metadata_request", metadata_request),
    ("api_versions", api_versions),
    ("control_request", control_request),
    ("produced_batch", produced_batch),
    ("stored_batches", stored_batches),
    ("core_log_group", core_log_group),
    ("checkpoint", checkpoint),
    ("metadata_record", metadata_record),
    ("group_records", group_records),
];
