//! The hot codec against an independent one generated from Kafka's message definitions (kafka-wire): requests that it
//! encodes are read here field by field, answers encoded here are read by it; and bytes that are not requests at all.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod api_versions;
mod common;
mod fetch;
mod framing;
mod hostile;
mod metadata;
mod produce;
