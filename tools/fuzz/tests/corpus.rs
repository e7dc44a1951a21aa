//! Replays every kept input through its target: what the fuzzer once found stays found, without the fuzzer.

use std::path::Path;

#[test]
fn every_kept_input_passes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in ringmill_fuzz::TARGETS {
        let inputs = std::fs::read_dir(corpus.join(name)).unwrap_or_else(|e| panic!("corpus/{name}: {e}"));
        let mut seen = 0;
        for input in inputs {
            let path = input.expect("a readable folder").path();
            let bytes = std::fs::read(&path).expect("a readable file");
            println!("{}", path.display());
            target(&bytes);
            for end in 0..bytes.len().min(512) {
                target(&bytes[..end]);
            }
            seen += 1;
        }
        assert!(seen > 0, "corpus/{name} is empty");
    }
}
