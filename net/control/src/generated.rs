//! Documents that tables make: a test compares them, and writes them when told to.

/// Fails when `net/docs/NAME` is not `text`; with `UPDATE=1` in the environment, writes it.
pub(crate) fn check(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, text).expect("the documents' folder can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "net/docs/{name} is stale: run `UPDATE=1 cargo test -p ringmill-control`");
}
