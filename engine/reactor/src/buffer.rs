//! Buffers: aligned, pooled, exclusive while written, immutable once shared.
//!
//! ```text
//! Pool ──take──▶ BufMut ──freeze──▶ Buf (cheap clones and slices)
//!      ──append──▶ AppendBuf ──split──▶ Buf over what was appended; the rest stays writable
//! ```
//! A region returns to its pool when the last `Buf` on it is dropped on the pool's thread; dropped elsewhere it is
//! unmapped and only the accounting returns. Reactor code holds a `Buf` or `BufMut` for as long as the kernel may
//! touch its memory, so neither reuse nor a free can race with a transfer.

/// Sizes that are pooled; larger requests are mapped for themselves and unmapped when dropped.
pub const CLASSES_BYTES: [usize; 5] = [16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20];

/// What a pool holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Mapped, in use or kept for reuse.
    pub mapped_bytes: u64,
    /// In use.
    pub used_bytes: u64,
    /// What `mapped_bytes` may reach.
    pub limit_bytes: u64,
    /// Of `mapped_bytes`, registered with the ring.
    pub registered_bytes: u64,
}
