//! Every bound that more than one place relies on, with the relations between them proved at compile time.

/// Direct I/O unit: file offsets, lengths and addresses are multiples of this. The largest logical block in use.
pub const PAGE_BYTES: usize = 4096;

/// A flush group is sealed when it holds this much, by default; one batch larger than this travels alone. As much as a chunk of
/// the tail ring takes: what arrives during a flush shares the next one (`kernel-notes/large-writes.md`).
pub const GROUP_BYTES_DEFAULT: usize = GROUP_BYTES_MAX;

/// What a setting may ask for: a group and what it adds fit one chunk.
pub const GROUP_BYTES_MAX: usize = TAIL_CHUNK_BYTES - GROUP_OVERHEAD_BYTES_MAX;

/// Full groups that may be written ahead of the flushes under way, for groups of at most so many bytes: what comes next waits for
/// all of them.
pub const fn run_ahead_groups(group_bytes: usize) -> usize {
    const GROUPS_MAX: usize = 4;
    const BYTES_MAX: usize = 4 << 20;
    let groups = BYTES_MAX / group_bytes;
    if groups > GROUPS_MAX { GROUPS_MAX } else { groups }
}

/// Memory of the tail ring is carved from pieces of this size; a group never straddles two.
pub const TAIL_CHUNK_BYTES: usize = 4 << 20;

/// Kafka's default `message.max.bytes`: 1 MiB of records and the 12 bytes of log overhead.
pub const MESSAGE_MAX_BYTES_DEFAULT: usize = (1 << 20) + 12;

/// Kafka's `socket.request.max.bytes`: a larger frame closes the connection.
pub const REQUEST_MAX_BYTES_DEFAULT: usize = 100 << 20;

/// A request that control decides, or Metadata. A thread reads each as a whole before anybody else has a turn: a few
/// milliseconds for one this large. What carries records is none of these; ten thousand topics are named in less.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 4 << 20;

/// Items of one list in a request that asks or decides: as many as twice the partitions that one broker is made for, and few
/// enough to be gone through without keeping others waiting.
pub const REQUEST_ITEMS_MAX: usize = 20_000;

/// One core-log file, by default. The first file of a fresh folder is [`CORE_LOG_FIRST_FILE_BYTES`].
pub const CORE_LOG_FILE_BYTES_DEFAULT: u64 = 64 << 20;

/// Small, so that a first start answers before zero-filling a large file would have ended.
pub const CORE_LOG_FIRST_FILE_BYTES: u64 = 8 << 20;

/// Files in a core-log ring, by default.
pub const CORE_LOG_FILES_DEFAULT: usize = 8;

/// What a flush group adds to its payload: header, entry table rounded up, padding.
pub const GROUP_OVERHEAD_BYTES_MAX: usize = 64 << 10;

/// Cache block for cold reads, and the unit of read-ahead.
pub const CACHE_BLOCK_BYTES: usize = 256 << 10;

/// A partition is destaged when this much of it waits, in one write; in a larger one when far more waits.
pub const DESTAGE_BYTES: usize = 512 << 10;

/// Requests a connection may have waiting for answers before it is not read from.
pub const PIPELINE_MAX: usize = 64;

/// Bytes of Metadata that a core encodes in one turn: about a millisecond. A request may go beyond by itself; the next waits for the
/// next turn.
pub const METADATA_TURN_BYTES: usize = 256 << 10;

/// Of one connection: with so many bytes of Metadata that its peer has not taken the next request for it waits.
pub const METADATA_UNSENT_BYTES: usize = 1 << 20;

/// Of one connection: with so many answers that its peer has not taken every request waits, as each takes memory however short it
/// is.
pub const UNSENT_ANSWERS_MAX: usize = 4096;

/// Messages in a queue between two threads.
pub const MAILBOX_SLOTS: usize = 4096;

/// Topic name, from Kafka's `Topic.MAX_NAME_LENGTH`.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Open files (nofile) that a broker needs to serve as it should: with fewer it starts, for a handful of connections.
pub const OPEN_FILES_MIN: u64 = 1024;

/// Lockable memory (memlock) that rings and upkeep get along with, where no capability lifts the limit.
pub const LOCKED_BYTES_MIN: u64 = 8 << 20;

/// Partitions of one node, all topics together.
pub const PARTITIONS_MAX: usize = 200_000;

const _: () = assert!(CONTROL_REQUEST_BYTES_MAX <= REQUEST_MAX_BYTES_DEFAULT);
// An assignment that a record holds comes in.
const _: () = assert!(MESSAGE_MAX_BYTES_DEFAULT < CONTROL_REQUEST_BYTES_MAX);
const _: () = assert!(LOCKED_BYTES_MIN.is_multiple_of(1 << 20));
const _: () = assert!(GROUP_BYTES_DEFAULT + GROUP_OVERHEAD_BYTES_MAX <= TAIL_CHUNK_BYTES);
const _: () = assert!(MESSAGE_MAX_BYTES_DEFAULT + GROUP_OVERHEAD_BYTES_MAX <= TAIL_CHUNK_BYTES);
const _: () = assert!(TAIL_CHUNK_BYTES as u64 <= CORE_LOG_FIRST_FILE_BYTES);
const _: () = assert!(CORE_LOG_FIRST_FILE_BYTES <= CORE_LOG_FILE_BYTES_DEFAULT);
const _: () = assert!(CACHE_BLOCK_BYTES.is_multiple_of(PAGE_BYTES));
const _: () = assert!(DESTAGE_BYTES.is_multiple_of(PAGE_BYTES));
