//! What lies on disk, byte by byte; drawn in `FORMAT.md`, pinned by `tests/golden`.
//!
//! Little-endian, except inside Kafka's own formats. Decoders check before they compute and never allocate more than
//! the bytes they were given can justify.

pub mod checkpoint;
pub mod compacted_to;
pub mod given_up;
pub mod group;
pub(crate) mod sealed_text;
pub mod swap;

/// Little-endian fields at fixed places; `None` past the end.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

pub(crate) fn put<const N: usize>(to: &mut [u8], at: usize, field: [u8; N]) {
    if let Some(place) = to.get_mut(at..at + N) {
        place.copy_from_slice(&field);
    }
}
