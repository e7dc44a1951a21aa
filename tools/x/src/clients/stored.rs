//! What a partition's segments hold, read from their bytes and by nothing of the broker's: which codec each batch has
//! and how many records. A client that quietly drops a codec, or a broker that repacks a batch, is seen only here.

use std::fs;
use std::path::{Path, PathBuf};

/// As numbered in the attributes of a batch.
pub const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// Of the batch header (Kafka's message format, magic 2): the bytes before what `length` counts, and the whole header.
const LENGTH_END: usize = 12;
const HEADER_BYTES: usize = 61;
/// librdkafka sends a batch uncompressed where compression makes it larger, which it does to a record or two.
const RECORDS_TO_COMPRESS: i32 = 8;

pub struct Batch {
    pub codec: usize,
    pub records: i32,
}

/// All batches of a partition, in order.
pub fn batches(partition: &Path) -> Result<Vec<Batch>, String> {
    let mut found = Vec::new();
    for file in files(partition, "log")? {
        let bytes = fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        of_segment(&bytes, &mut found).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(found)
}

fn of_segment(bytes: &[u8], found: &mut Vec<Batch>) -> Result<(), String> {
    let mut at = 0;
    while at < bytes.len() {
        let header = bytes.get(at..at + HEADER_BYTES).ok_or(format!("byte {at}: half a batch header"))?;
        let field = |from: usize| -> Result<i32, String> {
            let field = header.get(from..from + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
            field.map(i32::from_be_bytes).ok_or(format!("byte {at}: half a field"))
        };
        let length = usize::try_from(field(8)?).map_err(|_| format!("byte {at}: a length below zero"))?;
        if header.get(16) != Some(&2) || length + LENGTH_END < HEADER_BYTES {
            return Err(format!("byte {at}: not a batch of magic 2"));
        }
        let codec = usize::from(header.get(22).copied().unwrap_or_default() & 7);
        found.push(Batch { codec, records: field(57)? });
        at += LENGTH_END + length;
    }
    if at == bytes.len() { Ok(()) } else { Err("the last batch is cut off".into()) }
}

/// That a partition holds exactly so many records, and that they are stored with the codec that was asked for.
pub fn check(partition: &Path, records: i64, codec: &str) -> Result<(), String> {
    let batches = batches(partition)?;
    let held: i64 = batches.iter().map(|b| i64::from(b.records)).sum();
    if held != records {
        return Err(format!("{}: {held} records on disk, {records} were sent", partition.display()));
    }
    let wanted = CODECS.iter().position(|name| *name == codec).ok_or(format!("{codec} is no codec"))?;
    if let Some(other) = batches.iter().find(|b| b.codec != wanted && b.records >= RECORDS_TO_COMPRESS) {
        let stored = CODECS.get(other.codec).unwrap_or(&"unknown");
        let count = other.records;
        return Err(format!(
            "{}: a batch of {count} is stored as {stored}, not {codec}",
            partition.display()
        ));
    }
    if !batches.iter().any(|b| b.codec == wanted) {
        return Err(format!("{}: no batch of {codec}", partition.display()));
    }
    Ok(())
}

/// The files of a folder with this ending, in order of name, which for segments is the order of offsets.
pub fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == ending));
    files.sort();
    if files.is_empty() { Err(format!("{}: no .{ending} file", folder.display())) } else { Ok(files) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(codec: u8, records: i32) -> Vec<u8> {
        let mut bytes = vec![0; 80];
        bytes[8..12].copy_from_slice(&68_i32.to_be_bytes());
        bytes[16] = 2;
        bytes[22] = codec;
        bytes[57..61].copy_from_slice(&records.to_be_bytes());
        bytes
    }

    #[test]
    fn a_segment_is_walked_to_its_last_byte() {
        let mut found = Vec::new();
        let two = [batch(3, 10), batch(0, 1)].concat();
        assert_eq!(of_segment(&two, &mut found), Ok(()));
        assert_eq!(found.iter().map(|b| (b.codec, b.records)).collect::<Vec<_>>(), [(3, 10), (0, 1)]);
        assert!(of_segment(&two[..two.len() - 1], &mut Vec::new()).is_err());
        assert!(of_segment(&[0; 80], &mut Vec::new()).is_err());
    }

    #[test]
    fn another_codec_and_a_missing_record_are_seen() -> Result<(), String> {
        let dir = std::env::temp_dir().join(format!("ringmill-stored-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
        let both = [batch(3, 10), batch(0, 1)].concat();
        fs::write(dir.join("0.log"), both).map_err(|e| e.to_string())?;
        let said = [check(&dir, 11, "lz4"), check(&dir, 12, "lz4"), check(&dir, 11, "zstd")];
        fs::remove_dir_all(&dir).map_err(|e| e.to_string())?;
        assert_eq!(said.map(|s| s.is_ok()), [true, false, false]);
        Ok(())
    }
}
