//! Buffers: aligned, pooled, exclusive while written, immutable once shared.
//!
//! ```text
//! Pool ──take──▶ BufMut ──freeze──▶ Buf (cheap clones and slices)
//!      ──append──▶ AppendBuf ──split──▶ Buf over what was appended; the rest stays writable
//! ```
//! A region returns to its pool when the last `Buf` on it is dropped on the pool's thread; dropped elsewhere it is
//! unmapped and only the accounting returns. When the last free region of a large class is taken, the pool wants
//! another ([`Pool::take_order`]), so that the pages of the next one are there before they are written to. Reactor code holds a `Buf` or `BufMut` for as long as the kernel may
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

use crate::features::HostFeature;
use crate::past_cache;
use ringmill_types::limits::PAGE_BYTES;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A huge page. Mappings of at least this size are aligned to it, so that the kernel can use them.
const HUGE_BYTES: usize = 2 << 20;
/// Regions from this size on are cut from huge pages: pinning small pages costs a direct write of 1 MiB as much CPU as
/// all the rest of it (`examples/registered.rs`). Staging for the disk and blocks of cold reads are of such sizes.
const CUT_BYTES_MIN: usize = 256 << 10;

/// Memory from the kernel: page-aligned, zero-initialised, unmapped once, with the last region cut from it.
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    /// Where the accounting is; shared with the pool, wherever the mapping ends.
    counters: Arc<Counters>,
}

// SAFETY: a mapping is plain memory whose pointer is not tied to a thread, and the value itself gives no access to it.
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing of it can be read or written through a shared reference.
unsafe impl Sync for Mapping {}

/// A part of a mapping that nobody else has.
struct Region {
    start: NonNull<u8>,
    capacity: usize,
    mapping: Arc<Mapping>,
    pool: u64,
}

// SAFETY: a region is plain memory owned by whoever owns the value; the pointer is not tied to a thread.
unsafe impl Send for Region {}
// SAFETY: shared references to a region only read bytes that are never written again (see `Buf` and `AppendBuf`).
unsafe impl Sync for Region {}

#[derive(Default)]
struct Counters {
    mapped: AtomicU64,
    used: AtomicU64,
}

impl Mapping {
    fn new(bytes: usize, counters: &Arc<Counters>) -> Option<Mapping> {
        // Kernels before 6.7 align no anonymous mapping to huge pages: map one more, and give back what sticks out.
        let spare = if bytes >= HUGE_BYTES { HUGE_BYTES } else { 0 };
        let all = bytes.checked_add(spare)?;
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                all,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return None;
        }
        let mut start = NonNull::new(address.cast::<u8>())?;
        if spare > 0 {
            let head = start.as_ptr().align_offset(HUGE_BYTES);
            assert!(head <= spare, "an aligned address comes within one huge page");
            // SAFETY: head and tail lie within the mapping made above, outside the `bytes` that are kept, and are whole
            // pages: `head` because mappings begin at a page, the tail because it begins at the end of whole pages. The
            // advice is about what is kept; a refusal changes nothing.
            unsafe {
                start = start.add(head);
                if head > 0 {
                    libc::munmap(address, head);
                }
                if spare > head {
                    libc::munmap(start.add(bytes).as_ptr().cast(), spare - head);
                }
                if HostFeature::HugePages.is_on() {
                    libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE);
                }
            }
        }
        counters.mapped.fetch_add(bytes as u64, Ordering::Relaxed);
        Some(Mapping { start, bytes, counters: counters.clone() })
    }

    /// The whole of it in regions of `capacity` each.
    fn cut(self, capacity: usize, pool: u64) -> impl Iterator<Item = Region> {
        let mapping = Arc::new(self);
        (0..mapping.bytes / capacity).map(move |part| Region {
            // SAFETY: the offset is within the mapping, as `part` is below the number of whole parts.
            start: unsafe { mapping.start.add(part * capacity) },
            capacity,
            mapping: mapping.clone(),
            pool,
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.counters.mapped.fetch_sub(self.bytes as u64, Ordering::Relaxed);
        // SAFETY: made by `new` with this size; every region of it held it, so nobody can reach the memory any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// A region in use: goes back to its pool's free list when dropped on the pool's thread, is unmapped otherwise.
struct Lease {
    region: Option<Region>,
}

impl Lease {
    fn region(&self) -> &Region {
        self.region.as_ref().expect("taken only by drop")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(region) = self.region.take() else { return };
        region.mapping.counters.used.fetch_sub(region.capacity as u64, Ordering::Relaxed);
        // A thread that is ending has no free lists any more: the region is unmapped then.
        let _ = FREE.try_with(|free| {
            if let Ok(mut free) = free.try_borrow_mut()
                && let Some(lists) = free.get_mut(&region.pool)
                && let Some(list) = lists.get_mut(&region.capacity)
            {
                list.push(region);
            }
        });
    }
}

thread_local! {
    /// Free regions of the pools that live on this thread, by pool and capacity.
    static FREE: RefCell<HashMap<u64, HashMap<usize, Vec<Region>>>> = RefCell::new(HashMap::new());
}

static NEXT_POOL: AtomicU64 = AtomicU64::new(1);

struct PoolInner {
    id: u64,
    limit_bytes: u64,
    counters: Arc<Counters>,
    /// A large class that has no free region left.
    wanted: Cell<Option<usize>>,
}

/// A mapping that no region was cut from yet, on its way through the thread that touches its pages.
pub(crate) struct Fresh {
    mapping: Mapping,
    capacity: usize,
}

impl Fresh {
    /// Has the kernel put pages behind all of it, as if it were written to. In a virtual machine the first touch of a
    /// MiB can take milliseconds, which a core cannot spare. Huge page by huge page, as the address space is locked
    /// meanwhile against the mappings of others. A refusal (before Linux 5.14) leaves it to the first touch.
    pub fn populate(&self) {
        for from in (0..self.mapping.bytes).step_by(HUGE_BYTES) {
            let len = HUGE_BYTES.min(self.mapping.bytes - from);
            // SAFETY: the range lies within the mapping, which `self` owns alone; the advice does not change its bytes.
            unsafe {
                libc::madvise(self.mapping.start.add(from).as_ptr().cast(), len, libc::MADV_POPULATE_WRITE);
            }
        }
    }
}

impl Drop for PoolInner {
    fn drop(&mut self) {
        let lists = FREE.try_with(|free| free.borrow_mut().remove(&self.id));
        drop(lists);
    }
}

/// A core's buffers, bounded. Used on one thread; clones are the same pool.
#[derive(Clone)]
pub struct Pool {
    inner: Rc<PoolInner>,
}

impl Pool {
    pub fn new(limit_bytes: u64) -> Pool {
        let id = NEXT_POOL.fetch_add(1, Ordering::Relaxed);
        let lists = CLASSES_BYTES.iter().map(|class| (*class, Vec::new())).collect();
        FREE.with(|free| free.borrow_mut().insert(id, lists));
        let wanted = Cell::new(None);
        Pool { inner: Rc::new(PoolInner { id, limit_bytes, counters: Arc::default(), wanted }) }
    }

    fn lease(&self, min_bytes: usize) -> Option<Lease> {
        let capacity = CLASSES_BYTES
            .iter()
            .copied()
            .find(|class| *class >= min_bytes)
            .unwrap_or(min_bytes.checked_next_multiple_of(PAGE_BYTES)?);
        let inner = &self.inner;
        let kept = FREE.with(|free| free.borrow_mut().get_mut(&inner.id)?.get_mut(&capacity)?.pop());
        let region = match kept {
            Some(region) => region,
            None => self.map(capacity)?,
        };
        if capacity >= CUT_BYTES_MIN && self.idle(capacity) == Some(0) {
            inner.wanted.set(Some(capacity));
        }
        inner.counters.used.fetch_add(capacity as u64, Ordering::Relaxed);
        Some(Lease { region: Some(region) })
    }

    fn fits(&self, bytes: usize) -> bool {
        self.inner.counters.mapped.load(Ordering::Relaxed).saturating_add(bytes as u64)
            <= self.inner.limit_bytes
    }

    /// Free regions of a class; `None` for what is no class.
    fn idle(&self, capacity: usize) -> Option<usize> {
        FREE.with(|free| Some(free.borrow().get(&self.inner.id)?.get(&capacity)?.len()))
    }

    /// What a mapping for regions of `capacity` takes: small ones of the large classes share a huge page.
    fn mapping_bytes(capacity: usize) -> usize {
        let cut = (CUT_BYTES_MIN..HUGE_BYTES).contains(&capacity) && HUGE_BYTES.is_multiple_of(capacity);
        if cut { HUGE_BYTES } else { capacity }
    }

    /// Memory to populate and [`Pool::give`] back, when a large class has run out and there is room for more.
    pub(crate) fn take_order(&self) -> Option<Fresh> {
        let capacity = self.inner.wanted.take()?;
        let bytes = Pool::mapping_bytes(capacity);
        if !self.fits(bytes) || self.idle(capacity) != Some(0) {
            return None;
        }
        Some(Fresh { mapping: Mapping::new(bytes, &self.inner.counters)?, capacity })
    }

    /// Populated memory, for the next who asks.
    pub(crate) fn give(&self, fresh: Fresh) {
        let Fresh { mapping, capacity } = fresh;
        self.keep(capacity, mapping.cut(capacity, self.inner.id));
    }

    fn keep(&self, capacity: usize, regions: impl Iterator<Item = Region>) {
        FREE.with(|free| {
            if let Some(list) =
                free.borrow_mut().get_mut(&self.inner.id).and_then(|lists| lists.get_mut(&capacity))
            {
                list.extend(regions);
            }
        });
    }

    /// A new region within the limit, which idle memory makes room for.
    fn map(&self, capacity: usize) -> Option<Region> {
        let inner = &self.inner;
        let whole = Pool::mapping_bytes(capacity);
        let mut bytes = if self.fits(whole) { whole } else { capacity };
        if !self.fits(bytes) {
            bytes = capacity;
            self.make_room(bytes);
            if !self.fits(bytes) {
                return None;
            }
        }
        let mut regions = Mapping::new(bytes, &inner.counters)?.cut(capacity, inner.id);
        let first = regions.next();
        self.keep(capacity, regions);
        first
    }

    /// An empty buffer that can hold at least `min_bytes`; `None` at the limit. Its content is initialised, not zero.
    pub fn take(&self, min_bytes: usize) -> Option<BufMut> {
        Some(BufMut { lease: self.lease(min_bytes)?, len: 0, _thread: PhantomData })
    }

    /// A region to append to and split pieces off.
    pub fn append_buf(&self, chunk_bytes: usize) -> Option<AppendBuf> {
        Some(AppendBuf { lease: Arc::new(self.lease(chunk_bytes)?), start: 0, end: 0, _thread: PhantomData })
    }

    /// Unmaps idle regions, the largest first, until `bytes` fit or none is left. What is kept was touched, which is
    /// worth more than a tidy figure: in a virtual machine new pages come from the host, at its pace.
    fn make_room(&self, bytes: usize) {
        FREE.with(|free| {
            let mut free = free.borrow_mut();
            let Some(lists) = free.get_mut(&self.inner.id) else { return };
            for class in CLASSES_BYTES.iter().rev() {
                let Some(list) = lists.get_mut(class) else { continue };
                while !self.fits(bytes) && list.pop().is_some() {}
            }
        });
    }

    /// Gives idle memory back to the kernel.
    pub fn trim(&self) {
        FREE.with(|free| {
            if let Some(lists) = free.borrow_mut().get_mut(&self.inner.id) {
                lists.values_mut().for_each(Vec::clear);
            }
        });
    }

    pub fn stats(&self) -> PoolStats {
        PoolStats {
            mapped_bytes: self.inner.counters.mapped.load(Ordering::Relaxed),
            used_bytes: self.inner.counters.used.load(Ordering::Relaxed),
            limit_bytes: self.inner.limit_bytes,
            registered_bytes: 0,
        }
    }
}

/// An exclusive buffer. `len` bytes count; the rest of the capacity is spare, and initialised too.
pub struct BufMut {
    lease: Lease,
    len: usize,
    _thread: PhantomData<*const ()>,
}

impl BufMut {
    pub fn capacity(&self) -> usize {
        self.lease.region().capacity
    }

    /// Sets how many bytes count.
    ///
    /// # Panics
    /// Beyond the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "a length within the capacity");
        self.len = len;
    }

    /// All of the capacity.
    pub fn as_mut_full(&mut self) -> &mut [u8] {
        let region = self.lease.region();
        // SAFETY: the mapping has `capacity` initialised bytes, and `&mut self` is the only way to them.
        unsafe { std::slice::from_raw_parts_mut(region.start.as_ptr(), region.capacity) }
    }

    /// Appends bytes.
    ///
    /// # Panics
    /// Beyond the capacity.
    pub fn extend(&mut self, bytes: &[u8]) {
        let (at, end) = (self.len, self.len + bytes.len());
        self.as_mut_full()
            .get_mut(at..end)
            .expect("callers take buffers large enough")
            .copy_from_slice(bytes);
        self.len = end;
    }

    /// Makes it immutable and shareable.
    pub fn freeze(self) -> Buf {
        let len = self.len;
        Buf { memory: Memory::Pooled(Arc::new(self.lease)), start: 0, len }
    }
}

impl Deref for BufMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len <= capacity`, all of it initialised, and shared only for as long as `&self` lives.
        unsafe { std::slice::from_raw_parts(self.lease.region().start.as_ptr(), self.len) }
    }
}

#[derive(Clone)]
enum Memory {
    Pooled(Arc<Lease>),
    Heap(Arc<Vec<u8>>),
}

/// Immutable bytes; clones and slices share them. May be handed to other threads.
#[derive(Clone)]
pub struct Buf {
    memory: Memory,
    start: usize,
    len: usize,
}

impl Buf {
    /// Bytes from the heap: response headers and the like.
    pub fn from_vec(bytes: Vec<u8>) -> Buf {
        let len = bytes.len();
        Buf { memory: Memory::Heap(Arc::new(bytes)), start: 0, len }
    }

    /// The heap's bytes back, to be used again; `None` when others still hold them, or they are of a pool.
    pub fn into_vec(self) -> Option<Vec<u8>> {
        match self.memory {
            Memory::Heap(bytes) => Arc::try_unwrap(bytes).ok(),
            Memory::Pooled(_) => None,
        }
    }

    /// The part from `start` to `end`.
    ///
    /// # Panics
    /// Outside the buffer.
    pub fn slice(&self, start: usize, end: usize) -> Buf {
        assert!(start <= end, "a slice has a beginning before its end");
        assert!(end <= self.len, "a slice lies within its buffer");
        Buf { memory: self.memory.clone(), start: self.start + start, len: end - start }
    }

    /// Grows over `next` when that begins where this ends, in the same memory.
    pub fn try_join(&mut self, next: &Buf) -> bool {
        let same = match (&self.memory, &next.memory) {
            (Memory::Pooled(a), Memory::Pooled(b)) => Arc::ptr_eq(a, b),
            (Memory::Heap(a), Memory::Heap(b)) => Arc::ptr_eq(a, b),
            (Memory::Pooled(_), Memory::Heap(_)) | (Memory::Heap(_), Memory::Pooled(_)) => false,
        };
        let joins = same && self.start + self.len == next.start;
        if joins {
            self.len += next.len;
        }
        joins
    }

    /// Memory that this keeps from being reused.
    pub fn region_bytes(&self) -> usize {
        match &self.memory {
            Memory::Pooled(lease) => lease.region().capacity,
            Memory::Heap(bytes) => bytes.capacity(),
        }
    }
}

/// The memory of a buffer that was let go, read all the same: what a ring would transfer that keeps its buffers too
/// short. For the simulator's planted fault only.
pub(crate) struct Stale {
    start: NonNull<u8>,
    len: usize,
    /// Keeps the memory mapped, not its bytes as they were.
    _mapping: Arc<Mapping>,
    _thread: PhantomData<*const ()>,
}

impl Stale {
    /// `None` for memory that no pool reuses.
    pub fn of(buf: &Buf) -> Option<Stale> {
        let Memory::Pooled(lease) = &buf.memory else { return None };
        let region = lease.region();
        // SAFETY: the range was checked against the region when the `Buf` was made.
        let start = unsafe { region.start.add(buf.start) };
        Some(Stale { start, len: buf.len, _mapping: region.mapping.clone(), _thread: PhantomData })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// What is there now, whoever wrote it.
    pub fn bytes(&self) -> Vec<u8> {
        // SAFETY: mapped and initialised for as long as `_mapping` is held. Regions are written by the pool's thread
        // only, which in a simulation is this one, and no slice of a writer outlives the call that made it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }.to_vec()
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            // SAFETY: the range was within the region when the `Buf` was made, its bytes are initialised, and nothing
            // writes to them again: a frozen `BufMut` is gone, an `AppendBuf` only writes behind what it split off.
            Memory::Pooled(lease) => unsafe {
                std::slice::from_raw_parts(lease.region().start.as_ptr().add(self.start), self.len)
            },
            Memory::Heap(bytes) => {
                bytes.get(self.start..self.start + self.len).expect("slices lie within their buffer")
            }
        }
    }
}

/// A region written front to back; finished parts are split off as [`Buf`]s while the rest stays writable.
pub struct AppendBuf {
    lease: Arc<Lease>,
    /// The open part: `start..end`. Bytes before `start` belong to `Buf`s, bytes from `end` on to nobody.
    start: usize,
    end: usize,
    _thread: PhantomData<*const ()>,
}

impl AppendBuf {
    pub fn open_len(&self) -> usize {
        self.end - self.start
    }

    /// Bytes that can still be appended.
    pub fn room(&self) -> usize {
        self.lease.region().capacity - self.end
    }

    fn spare(&mut self, len: usize) -> &mut [u8] {
        assert!(len <= self.room(), "callers check the room");
        // SAFETY: from `end` on no `Buf` reaches (they end at `start` or before), `&mut self` is the only writer, and
        // the length was checked against the capacity.
        unsafe { std::slice::from_raw_parts_mut(self.lease.region().start.as_ptr().add(self.end), len) }
    }

    /// Appends and says where in the open part.
    ///
    /// # Panics
    /// Beyond [`AppendBuf::room`].
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        self.append_with(bytes, <[u8]>::copy_from_slice)
    }

    /// As [`AppendBuf::append`], for bytes that nobody reads soon: all but the first of a large piece go to memory without
    /// a place in the caches.
    ///
    /// # Panics
    /// Beyond [`AppendBuf::room`].
    pub fn append_past_cache(&mut self, bytes: &[u8]) -> usize {
        self.append_with(bytes, past_cache::copy)
    }

    fn append_with(&mut self, bytes: &[u8], copy: impl FnOnce(&mut [u8], &[u8])) -> usize {
        let at = self.open_len();
        copy(self.spare(bytes.len()), bytes);
        self.end += bytes.len();
        at
    }

    /// Appends zeros.
    ///
    /// # Panics
    /// Beyond [`AppendBuf::room`].
    pub fn append_zeros(&mut self, len: usize) {
        self.spare(len).fill(0);
        self.end += len;
    }

    /// The open part, for patches.
    pub fn open_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `spare`: no `Buf` reaches `start..end`.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.lease.region().start.as_ptr().add(self.start),
                self.end - self.start,
            )
        }
    }

    /// The first `len` bytes of the open part become immutable; the open part continues behind them.
    ///
    /// # Panics
    /// Beyond the open part.
    pub fn split(&mut self, len: usize) -> Buf {
        assert!(len <= self.open_len(), "only what was appended is split off");
        let buf = Buf { memory: Memory::Pooled(self.lease.clone()), start: self.start, len };
        self.start += len;
        buf
    }
}
