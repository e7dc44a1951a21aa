//! A ring of buffers that the kernel picks from when data has arrived, so that an idle connection holds no memory
//! (`IORING_REGISTER_PBUF_RING`, Linux 5.19).

use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

/// Buffer group of receives.
pub(crate) const GROUP: u16 = 1;
pub(crate) const BUFFER_BYTES: usize = 16 << 10;
/// A power of two, as the kernel wants.
const BUFFERS: u16 = 256;
const MEMORY_BYTES: usize = BUFFERS as usize * BUFFER_BYTES;
const RING_BYTES: usize = BUFFERS as usize * size_of::<BufRingEntry>();

/// Entries and buffers, in one mapping each. Used on one thread.
pub(crate) struct ProvidedRing {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    tail: std::cell::Cell<u16>,
}

fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: an anonymous private mapping at an address of the kernel's choice.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

impl ProvidedRing {
    pub fn new(ring: &IoUring) -> io::Result<ProvidedRing> {
        let provided = ProvidedRing {
            entries: map(RING_BYTES)?.cast(),
            memory: map(MEMORY_BYTES)?,
            tail: std::cell::Cell::new(0),
        };
        // SAFETY: the mapping is page-aligned, large enough for the entries, and lives until the ring is gone: the
        // backend drops its ring first only after everything completed, and the mapping is never unmapped before.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                provided.entries.as_ptr() as u64,
                BUFFERS,
                GROUP,
                0,
            )?
        };
        for id in 0..BUFFERS {
            provided.give_back(id);
        }
        Ok(provided)
    }

    fn give_back(&self, id: u16) {
        let tail = self.tail.get();
        // SAFETY: the index is below the number of entries; the kernel reads an entry only after the tail passed it,
        // and the address is of a buffer within the mapping.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add((tail & (BUFFERS - 1)) as usize);
            entry.set_addr(self.memory.as_ptr().add(id as usize * BUFFER_BYTES) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(id);
            let shared = BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>();
            (*shared).store(tail.wrapping_add(1), Ordering::Release);
        }
        self.tail.set(tail.wrapping_add(1));
    }

    /// The buffer that the kernel filled.
    pub fn lend(this: &Rc<ProvidedRing>, id: u16, len: usize) -> ProvidedBuffer {
        assert!(id < BUFFERS, "the kernel names buffers it was given");
        assert!(len <= BUFFER_BYTES, "the kernel fills within a buffer");
        ProvidedBuffer { ring: this.clone(), id, len }
    }
}

impl Drop for ProvidedRing {
    fn drop(&mut self) {
        // SAFETY: both mappings were made by `new` with these sizes; no `ProvidedBuffer` is left, each holds an `Rc`.
        unsafe {
            libc::munmap(self.entries.as_ptr().cast(), RING_BYTES);
            libc::munmap(self.memory.as_ptr().cast(), MEMORY_BYTES);
        }
    }
}

/// Received bytes; the buffer goes back to the kernel when dropped.
pub struct ProvidedBuffer {
    ring: Rc<ProvidedRing>,
    id: u16,
    len: usize,
}

impl ProvidedBuffer {
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the kernel wrote `len` bytes and will not touch the buffer again until it is given back.
        unsafe {
            std::slice::from_raw_parts(
                self.ring.memory.as_ptr().add(self.id as usize * BUFFER_BYTES),
                self.len,
            )
        }
    }
}

impl Drop for ProvidedBuffer {
    fn drop(&mut self) {
        self.ring.give_back(self.id);
    }
}
