//! The flush group: what one core-log write carries.
//!
//! ```text
//! page-aligned                                                                          page-aligned
//! | header 128 B | payload: batches one after another | 0–7 zeros | entry table 32 B each | zeros |
//!
//! header                                            entry
//!   0 magic u32        32 durable u64                  0 partition u64    24 epoch i32
//!   4 version u16      40 prev_header_crc u32          8 arg i64          28 kind u8
//!   6 header_bytes u16 44 entry_count u32             16 len u32          29 zeros
//!   8 incarnation u128 48 payload_bytes u32           20 crc u32
//!  24 sequence u64     52 table_crc u32
//!  56 zeros           124 header crc u32 (of 0..124)
//! ```
//! Header, table and payload are protected apart from each other: the header by its own CRC, the table by `table_crc`,
//! each entry's payload by the entry's `crc` over its first 21 bytes and by the batch's own CRC over the rest. So a
//! damaged group still names the partitions it damages, and a payload cannot pose as a header. `prev_header_crc` and
//! `incarnation` chain groups: a stale one from an earlier life never joins.

use super::{array, put, u16_at, u32_at, u64_at};
use crate::segment::check_batch;
use ringmill_types::limits::PAGE_BYTES;
use ringmill_types::{GroupSeq, LeaderEpoch, PartitionId};
use std::fmt;

pub const GROUP_HEADER_BYTES: usize = 128;
pub const ENTRY_BYTES: usize = 32;
/// "RMFG" in file order.
pub const GROUP_MAGIC: u32 = u32::from_le_bytes(*b"RMFG");
pub const GROUP_VERSION: u16 = 1;
/// How much of an entry's payload its `crc` covers: what a batch's own CRC leaves out.
pub const ENTRY_CRC_BYTES: usize = 21;

/// A header that claims more entries is damaged: 65,536 × 32 bytes is far beyond what a writer's overhead allows.
const ENTRIES_MAX: u32 = 1 << 16;
/// Bytes of payload in one group at most; a batch's length is an `i32`.
const PAYLOAD_BYTES_MAX: u32 = i32::MAX as u32;
const TABLE_ALIGN: usize = 8;
const CRC_AT: usize = GROUP_HEADER_BYTES - 4;

const _: () = assert!(ringmill_record::batch::CRC_FROM == ENTRY_CRC_BYTES);
const _: () = assert!(PAGE_BYTES.is_multiple_of(TABLE_ALIGN));
const _: () = assert!(ENTRY_BYTES.is_multiple_of(TABLE_ALIGN));

/// First bytes of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// Random, one per life of the log.
    pub incarnation: u128,
    pub sequence: GroupSeq,
    /// Highest group known durable when this one was sealed; `durable < sequence`.
    pub durable: GroupSeq,
    /// CRC of the header before this one in the chain, as stored there.
    pub prev_header_crc: u32,
    pub entry_count: u32,
    pub payload_bytes: u32,
    pub table_crc: u32,
}

/// Where the entry table of a group begins.
pub const fn table_at(payload_bytes: usize) -> usize {
    (GROUP_HEADER_BYTES + payload_bytes).next_multiple_of(TABLE_ALIGN)
}

/// Size of a group on disk, padding included. The one place that knows: writers must not compute it otherwise.
pub const fn total_bytes(payload_bytes: usize, entry_count: usize) -> usize {
    (table_at(payload_bytes) + entry_count * ENTRY_BYTES).next_multiple_of(PAGE_BYTES)
}

impl GroupHeader {
    pub fn encode(&self) -> [u8; GROUP_HEADER_BYTES] {
        let mut out = [0; GROUP_HEADER_BYTES];
        put(&mut out, 0, GROUP_MAGIC.to_le_bytes());
        put(&mut out, 4, GROUP_VERSION.to_le_bytes());
        put(&mut out, 6, (GROUP_HEADER_BYTES as u16).to_le_bytes());
        put(&mut out, 8, self.incarnation.to_le_bytes());
        put(&mut out, 24, self.sequence.0.to_le_bytes());
        put(&mut out, 32, self.durable.0.to_le_bytes());
        put(&mut out, 40, self.prev_header_crc.to_le_bytes());
        put(&mut out, 44, self.entry_count.to_le_bytes());
        put(&mut out, 48, self.payload_bytes.to_le_bytes());
        put(&mut out, 52, self.table_crc.to_le_bytes());
        let crc = crc32c::crc32c(out.get(..CRC_AT).unwrap_or_default());
        put(&mut out, CRC_AT, crc.to_le_bytes());
        out
    }

    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// [`GroupError::NoHeader`], [`GroupError::Version`] or [`GroupError::Header`].
    pub fn decode(bytes: &[u8]) -> Result<GroupHeader, GroupError> {
        let head: [u8; GROUP_HEADER_BYTES] = array(bytes, 0).ok_or(GroupError::NoHeader)?;
        if u32_at(&head, 0) != Some(GROUP_MAGIC) {
            return Err(GroupError::NoHeader);
        }
        if crc32c::crc32c(head.get(..CRC_AT).unwrap_or_default()) != GroupHeader::own_crc(&head) {
            return Err(GroupError::Header("its CRC does not match"));
        }
        let version = u16_at(&head, 4).ok_or(GroupError::NoHeader)?;
        if version != GROUP_VERSION || u16_at(&head, 6) != Some(GROUP_HEADER_BYTES as u16) {
            return Err(GroupError::Version(version));
        }
        GroupHeader::fields(&head).ok_or(GroupError::Header("its fields contradict each other"))
    }

    fn fields(head: &[u8; GROUP_HEADER_BYTES]) -> Option<GroupHeader> {
        let header = GroupHeader {
            incarnation: u128::from_le_bytes(array(head, 8)?),
            sequence: GroupSeq(u64_at(head, 24)?),
            durable: GroupSeq(u64_at(head, 32)?),
            prev_header_crc: u32_at(head, 40)?,
            entry_count: u32_at(head, 44)?,
            payload_bytes: u32_at(head, 48)?,
            table_crc: u32_at(head, 52)?,
        };
        let sane = header.entry_count <= ENTRIES_MAX
            && header.payload_bytes <= PAYLOAD_BYTES_MAX
            && header.durable < header.sequence
            && head.get(56..CRC_AT)?.iter().all(|b| *b == 0);
        sane.then_some(header)
    }

    /// The CRC stored in an encoded header: what the next header's `prev_header_crc` repeats.
    pub fn own_crc(encoded: &[u8; GROUP_HEADER_BYTES]) -> u32 {
        u32_at(encoded, CRC_AT).unwrap_or(0)
    }

    /// Where the entry table begins, from the start of the group.
    pub fn table_at(&self) -> usize {
        table_at(self.payload_bytes as usize)
    }

    /// Size on disk, padding included.
    pub fn total_bytes(&self) -> usize {
        total_bytes(self.payload_bytes as usize, self.entry_count as usize)
    }
}

/// What an entry does. Numbers are on disk and never change their meaning.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// Payload: one record batch; `arg`: its base offset.
    Batch = 1,
    /// Batches from `arg` on are void.
    TruncateTo = 2,
    /// Nothing before `arg` is readable any more.
    LogStart = 3,
    /// `epoch` begins at `arg`.
    Epoch = 4,
    /// The partition is deleted.
    Tombstone = 5,
    /// Payload: a batch that an older group held and that could not be destaged; `arg`: its base offset.
    Carry = 6,
    /// Records the durable mark of its header, nothing else.
    NoOp = 7,
}

impl EntryKind {
    pub const ALL: [EntryKind; 7] = [
        EntryKind::Batch,
        EntryKind::TruncateTo,
        EntryKind::LogStart,
        EntryKind::Epoch,
        EntryKind::Tombstone,
        EntryKind::Carry,
        EntryKind::NoOp,
    ];

    pub fn from_byte(byte: u8) -> Option<EntryKind> {
        EntryKind::ALL.into_iter().find(|k| *k as u8 == byte)
    }

    /// Its payload is a record batch.
    pub fn holds_batch(self) -> bool {
        matches!(self, EntryKind::Batch | EntryKind::Carry)
    }

    pub fn name(self) -> &'static str {
        match self {
            EntryKind::Batch => "batch",
            EntryKind::TruncateTo => "truncate-to",
            EntryKind::LogStart => "log-start",
            EntryKind::Epoch => "epoch",
            EntryKind::Tombstone => "tombstone",
            EntryKind::Carry => "carry",
            EntryKind::NoOp => "no-op",
        }
    }
}

/// One row of the entry table. Payloads lie in table order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub partition: PartitionId,
    /// Base offset of a batch, or the offset of the event.
    pub arg: i64,
    /// Payload bytes; 0 for events.
    pub len: u32,
    /// CRC32C of the first `min(len, ENTRY_CRC_BYTES)` payload bytes.
    pub crc: u32,
    pub epoch: LeaderEpoch,
    pub kind: EntryKind,
}

impl Entry {
    pub fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        put(&mut out, 0, self.partition.0.to_le_bytes());
        put(&mut out, 8, self.arg.to_le_bytes());
        put(&mut out, 16, self.len.to_le_bytes());
        put(&mut out, 20, self.crc.to_le_bytes());
        put(&mut out, 24, self.epoch.0.to_le_bytes());
        put(&mut out, 28, [self.kind as u8]);
        out
    }

    /// Reads the row at the start of `bytes`.
    ///
    /// # Errors
    /// [`GroupError::Table`] for a short row, an unknown kind, or a payload where none may be.
    pub fn decode(bytes: &[u8]) -> Result<Entry, GroupError> {
        Entry::fields(bytes).ok_or(GroupError::Table("a row of it makes no sense"))
    }

    fn fields(bytes: &[u8]) -> Option<Entry> {
        let kind = EntryKind::from_byte(*bytes.get(28)?)?;
        let entry = Entry {
            partition: PartitionId(u64_at(bytes, 0)?),
            arg: i64::from_le_bytes(array(bytes, 8)?),
            len: u32_at(bytes, 16)?,
            crc: u32_at(bytes, 20)?,
            epoch: LeaderEpoch(i32::from_le_bytes(array(bytes, 24)?)),
            kind,
        };
        let zeros = bytes.get(29..ENTRY_BYTES)?.iter().all(|b| *b == 0);
        // An event's payload is covered by `crc` alone, so it may not be longer than that reaches.
        let len_fits = if kind.holds_batch() {
            entry.len as usize >= ringmill_record::HEADER_BYTES
        } else {
            entry.len as usize <= ENTRY_CRC_BYTES
        };
        (zeros && len_fits && entry.arg >= 0).then_some(entry)
    }
}

/// A group whose every part was checked.
#[derive(Clone, Debug)]
pub struct DecodedGroup<'a> {
    pub header: GroupHeader,
    pub entries: Vec<Entry>,
    /// The whole group as it lies on disk, padding included; the first payload begins at [`GROUP_HEADER_BYTES`].
    pub bytes: &'a [u8],
}

impl<'a> DecodedGroup<'a> {
    /// Every entry with its payload.
    pub fn payloads(&self) -> impl Iterator<Item = (Entry, &'a [u8])> + '_ {
        let mut at = GROUP_HEADER_BYTES;
        self.entries.iter().map(move |entry| {
            let from = at;
            at += entry.len as usize;
            (*entry, self.bytes.get(from..at).unwrap_or_default())
        })
    }
}

/// Which part of a group is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupError {
    /// No magic: zeros, or something else altogether.
    NoHeader,
    /// Written by another version.
    Version(u16),
    Header(&'static str),
    /// The bytes end before the group does. `table` holds its partitions when the table is inside.
    Short {
        need_bytes: u64,
        have_bytes: u64,
    },
    Table(&'static str),
    /// Table intact, payload not.
    Payload {
        damaged: Vec<PartitionId>,
        what: &'static str,
    },
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupError::NoHeader => f.write_str("no flush group begins here"),
            GroupError::Version(version) => {
                write!(f, "flush group of version {version}; this program reads {GROUP_VERSION}")
            }
            GroupError::Header(what) => write!(f, "group header damaged: {what}"),
            GroupError::Short { need_bytes, have_bytes } => {
                write!(f, "group of {need_bytes} bytes is cut off after {have_bytes}")
            }
            GroupError::Table(what) => write!(f, "entry table damaged: {what}"),
            GroupError::Payload { damaged, what } => {
                write!(f, "payload damaged ({what}) for {} partition(s), table intact", damaged.len())
            }
        }
    }
}

impl std::error::Error for GroupError {}

/// Checks the group at the start of `bytes`, which may hold more: header, table CRC, lengths, entry CRCs, batch CRCs.
///
/// # Errors
/// [`GroupError`], naming the part; with an intact table also the damaged partitions, each once.
pub fn decode_group(bytes: &[u8]) -> Result<DecodedGroup<'_>, GroupError> {
    let group = decode_framing(bytes)?;
    let faults =
        || group.payloads().filter_map(|(entry, payload)| Some((entry, payload_fault(&entry, payload)?)));
    let Some((_, what)) = faults().next() else { return Ok(group) };
    let mut damaged: Vec<PartitionId> = faults().map(|(entry, _)| entry.partition).collect();
    damaged.sort_unstable();
    damaged.dedup();
    Err(GroupError::Payload { damaged, what })
}

/// What is good of a group whose payload may be damaged: entries that are not have become no-ops of the same length.
///
/// # Errors
/// [`GroupError`], where header or table are damaged too.
pub fn salvage_group(bytes: &[u8]) -> Result<DecodedGroup<'_>, GroupError> {
    let mut group = decode_framing(bytes)?;
    let is_good: Vec<bool> =
        group.payloads().map(|(entry, payload)| payload_fault(&entry, payload).is_none()).collect();
    for (entry, _) in group.entries.iter_mut().zip(is_good).filter(|(_, is_good)| !is_good) {
        entry.kind = EntryKind::NoOp;
    }
    Ok(group)
}

/// Header and table are good; nobody looked at the payload.
fn decode_framing(bytes: &[u8]) -> Result<DecodedGroup<'_>, GroupError> {
    let header = GroupHeader::decode(bytes)?;
    let total = header.total_bytes();
    let have_bytes = bytes.len() as u64;
    let bytes = bytes.get(..total).ok_or(GroupError::Short { need_bytes: total as u64, have_bytes })?;
    let entries = decode_table(&header, bytes)?;
    Ok(DecodedGroup { header, entries, bytes })
}

/// The entry table of a group, when header and table are intact: what a report can say of a damaged group.
///
/// # Errors
/// [`GroupError::Short`] or [`GroupError::Table`].
pub fn decode_table(header: &GroupHeader, group: &[u8]) -> Result<Vec<Entry>, GroupError> {
    let from = header.table_at();
    let to = from + header.entry_count as usize * ENTRY_BYTES;
    let table = group.get(from..to).ok_or(GroupError::Short {
        need_bytes: header.total_bytes() as u64,
        have_bytes: group.len() as u64,
    })?;
    if crc32c::crc32c(table) != header.table_crc {
        return Err(GroupError::Table("its CRC does not match"));
    }
    let entries = table.chunks_exact(ENTRY_BYTES).map(Entry::decode).collect::<Result<Vec<_>, _>>()?;
    if entries.iter().map(|e| u64::from(e.len)).sum::<u64>() != u64::from(header.payload_bytes) {
        return Err(GroupError::Table("its lengths do not add up to the payload"));
    }
    Ok(entries)
}

fn payload_fault(entry: &Entry, payload: &[u8]) -> Option<&'static str> {
    let covered = payload.get(..payload.len().min(ENTRY_CRC_BYTES)).unwrap_or_default();
    if crc32c::crc32c(covered) != entry.crc {
        return Some("the first bytes do not match the entry");
    }
    if !entry.kind.holds_batch() {
        return None;
    }
    match check_batch(payload) {
        Ok(header) if header.size_bytes != payload.len() => Some("a batch's length is not its entry's"),
        Ok(header) if header.base_offset.0 != entry.arg || header.leader_epoch != entry.epoch => {
            Some("a batch's place is not its entry's")
        }
        Ok(_) => None,
        Err(_) => Some("a batch fails its CRC"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{BatchSpec, check_golden, golden, group_of};
    use proptest::prelude::*;

    fn header() -> GroupHeader {
        GroupHeader {
            incarnation: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
            sequence: GroupSeq(42),
            durable: GroupSeq(40),
            prev_header_crc: 0xdead_beef,
            entry_count: 0,
            payload_bytes: 0,
            table_crc: 0,
        }
    }

    fn sample() -> Vec<u8> {
        let batch = |base_offset, payload_bytes| {
            BatchSpec { base_offset, payload_bytes, ..BatchSpec::default() }.bytes()
        };
        group_of(
            header(),
            &[
                (7, EntryKind::Batch, batch(100, 30), 100),
                (8, EntryKind::Batch, batch(5, 333), 5),
                (7, EntryKind::LogStart, Vec::new(), 50),
                (9, EntryKind::Carry, batch(0, 1), 0),
            ],
        )
    }

    #[test]
    fn bytes_are_those_of_the_golden_file() {
        check_golden("group-v1.bin", &sample());
        let bytes = std::fs::read(golden("group-v1.bin")).unwrap();
        let group = decode_group(&bytes).unwrap();
        assert_eq!(group.header.sequence, GroupSeq(42));
        assert_eq!(group.entries.len(), 4);
        let sizes: Vec<usize> = group.payloads().map(|(_, bytes)| bytes.len()).collect();
        assert_eq!(sizes, [91, 394, 0, 62]);
    }

    /// The kinds that the file of before has none of, too: its numbers, and what stands in `arg` and `epoch`.
    #[test]
    fn entries_of_every_kind_are_those_of_the_golden_file() {
        let parts = EntryKind::ALL.map(|kind| {
            let base_offset = 100 + kind as i64;
            let batch = BatchSpec { base_offset, epoch: 3, ..BatchSpec::default() }.bytes();
            (7, kind, if kind.holds_batch() { batch } else { Vec::new() }, base_offset)
        });
        check_golden("group-kinds-v1.bin", &group_of(header(), &parts));
        let bytes = std::fs::read(golden("group-kinds-v1.bin")).unwrap();
        let group = decode_group(&bytes).unwrap();
        assert_eq!(group.header.durable, GroupSeq(40));
        let said: Vec<_> = group.entries.iter().map(|e| (e.partition.0, e.kind as u8, e.arg)).collect();
        assert_eq!(said, [1, 2, 3, 4, 5, 6, 7].map(|kind| (7, kind, 100 + i64::from(kind))));
        for (entry, payload) in group.payloads() {
            assert_eq!(entry.epoch.0, if entry.kind.holds_batch() { 3 } else { 0 });
            assert_eq!(payload.is_empty(), !entry.kind.holds_batch());
        }
    }

    /// Those that lose records by it.
    fn partitions(error: &GroupError) -> &[PartitionId] {
        let GroupError::Payload { damaged, .. } = error else { panic!("{error}") };
        damaged
    }

    #[test]
    fn damage_in_a_payload_names_its_partition_only() {
        let clean = sample();
        let second = GROUP_HEADER_BYTES + 91;
        for at in [second, second + 20, second + 21, second + 200, second + 393] {
            let mut bytes = clean.clone();
            bytes[at] ^= 1;
            let error = decode_group(&bytes).unwrap_err();
            assert_eq!(partitions(&error), [PartitionId(8)], "byte {at}");
            let good = salvage_group(&bytes).unwrap();
            let kinds: Vec<EntryKind> = good.entries.iter().map(|entry| entry.kind).collect();
            assert_eq!(kinds, [EntryKind::Batch, EntryKind::NoOp, EntryKind::LogStart, EntryKind::Carry]);
            assert_eq!(
                good.payloads().nth(3).unwrap().1,
                decode_group(&clean).unwrap().payloads().nth(3).unwrap().1
            );
        }
        assert_eq!(salvage_group(&clean).unwrap().entries, decode_group(&clean).unwrap().entries);
        let mut bytes = clean.clone();
        bytes[GroupHeader::decode(&clean).unwrap().table_at()] ^= 1;
        assert!(matches!(salvage_group(&bytes), Err(GroupError::Table(_))));
    }

    #[test]
    fn a_batch_moved_to_another_place_is_damage() {
        let batch = BatchSpec { base_offset: 3, ..BatchSpec::default() }.bytes();
        let error = decode_group(&group_of(header(), &[(1, EntryKind::Batch, batch, 4)])).unwrap_err();
        assert_eq!(partitions(&error), [PartitionId(1)]);
    }

    #[test]
    fn an_empty_group_is_one_page() {
        let bytes = group_of(header(), &[]);
        assert_eq!(bytes.len(), PAGE_BYTES);
        assert_eq!(decode_group(&bytes).unwrap().entries, []);
    }

    #[test]
    fn zeros_and_other_versions_are_no_groups() {
        assert_eq!(decode_group(&[0; PAGE_BYTES]).unwrap_err(), GroupError::NoHeader);
        let mut bytes = sample();
        bytes[4] = 2;
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..GROUP_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode_group(&bytes).unwrap_err(), GroupError::Version(2));
    }

    #[test]
    fn a_header_with_a_valid_crc_cannot_make_it_allocate() {
        // Counts as large as the header may say, over a page: refused before any table is read.
        let huge = GroupHeader { entry_count: ENTRIES_MAX, payload_bytes: PAYLOAD_BYTES_MAX, ..header() };
        let mut bytes = vec![0; PAGE_BYTES];
        bytes[..GROUP_HEADER_BYTES].copy_from_slice(&huge.encode());
        assert!(matches!(decode_group(&bytes), Err(GroupError::Short { .. })));
        let over = GroupHeader { entry_count: ENTRIES_MAX + 1, ..header() };
        assert!(matches!(GroupHeader::decode(&over.encode()), Err(GroupError::Header(_))));
    }

    proptest! {
        #[test]
        fn headers_come_back(
            incarnation: u128, sequence in 1u64.., back in 1u64.., prev_header_crc: u32,
            entry_count in 0..=ENTRIES_MAX, payload_bytes in 0..=PAYLOAD_BYTES_MAX, table_crc: u32,
        ) {
            let (sequence, durable) = (GroupSeq(sequence), GroupSeq(sequence.saturating_sub(back)));
            let header = GroupHeader {
                incarnation, sequence, durable, prev_header_crc, entry_count, payload_bytes, table_crc,
            };
            let encoded = header.encode();
            prop_assert_eq!(GroupHeader::decode(&encoded).unwrap(), header);
            prop_assert!(header.total_bytes().is_multiple_of(PAGE_BYTES));
            prop_assert!(header.table_at() - GROUP_HEADER_BYTES - payload_bytes as usize <= 7);
        }

        #[test]
        fn entries_come_back(partition: u64, arg in 0i64.., len: u32, crc: u32, epoch: i32, kind in 0usize..7) {
            let kind = EntryKind::ALL[kind];
            let len = if kind.holds_batch() { len.max(61) } else { len % 22 };
            let entry = Entry { partition: PartitionId(partition), arg, len, crc, epoch: LeaderEpoch(epoch), kind };
            prop_assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
        }

        #[test]
        fn any_flipped_bit_that_counts_is_found(at in 0usize..1000, bit in 0u8..8) {
            let mut bytes = sample();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let header = GroupHeader::decode(&sample()).unwrap();
            let payload_end = GROUP_HEADER_BYTES + header.payload_bytes as usize;
            let table_end = header.table_at() + header.entry_count as usize * ENTRY_BYTES;
            let counts = at < payload_end || (header.table_at()..table_end).contains(&at);
            prop_assert_eq!(decode_group(&bytes).is_err(), counts, "byte {}", at);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..9000), with_magic: bool) {
            let mut bytes = bytes;
            if with_magic && bytes.len() >= GROUP_HEADER_BYTES {
                bytes[..4].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
                let crc = crc32c::crc32c(&bytes[..CRC_AT]);
                bytes[CRC_AT..GROUP_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
            }
            let _ = decode_group(&bytes).map(|g| g.payloads().count());
            let _ = Entry::decode(&bytes);
        }

        #[test]
        fn arbitrary_tables_under_good_crcs_never_panic(
            table in proptest::collection::vec(any::<u8>(), 0..20 * ENTRY_BYTES), payload in 0usize..300,
        ) {
            let count = table.len() / ENTRY_BYTES;
            let table = &table[..count * ENTRY_BYTES];
            let mut bytes = vec![0; total_bytes(payload, count)];
            let header = GroupHeader {
                entry_count: count as u32, payload_bytes: payload as u32, table_crc: crc32c::crc32c(table), ..header()
            };
            bytes[..GROUP_HEADER_BYTES].copy_from_slice(&header.encode());
            let from = header.table_at();
            bytes[from..from + table.len()].copy_from_slice(table);
            let _ = decode_group(&bytes);
        }
    }
}
