//! What this crate writes into a data folder, as bytes that are kept: `tests/golden`.
#![allow(clippy::unwrap_used)]

use std::path::Path;

/// The bytes of a file in `tests/golden`, after they were compared with `written`; `RINGMILL_BLESS=1` writes it instead, for
/// a new version of a format only.
pub fn check(name: &str, written: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("RINGMILL_BLESS").is_some() {
        std::fs::write(&path, written).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    let differs = golden.iter().zip(written).position(|(a, b)| a != b);
    assert!(
        golden == written,
        "{name}: {} bytes, now {}; first difference at {differs:?}",
        golden.len(),
        written.len()
    );
    golden
}
