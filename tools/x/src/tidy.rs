//! Style kept by a test: what rustfmt and clippy do not see.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a source file without its tests.
const LINES_MAX: usize = 1000;
const UNSAFE_HOME: &str = "engine/reactor";
const MARKS: [&str; 4] = ["TO\u{44}O", "FIX\u{4d}E", "todo\u{21}", "unimplemented\u{21}"];
const TOP_LEVEL: [&str; 20] = [
    "Cargo.toml",
    "Cargo.lock",
    "engine",
    "net",
    "replication",
    "bench",
    "tools",
    "kernel-notes",
    "README.md",
    "LICENSE",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "rustfmt.toml",
    "clippy.toml",
    "deny.toml",
    ".ci",
    ".cargo",
    ".gitignore",
    ".git",
];

/// Reports everything that is untidy, or that there is nothing.
pub fn check() -> Result<(), String> {
    let mut found = Vec::new();
    let mut files = Vec::new();
    collect(Path::new("."), &mut files);
    for path in files.iter().filter(|p| p.extension().is_some_and(|e| e == "rs")) {
        let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        source(path, &text, &mut found);
    }
    for entry in fs::read_dir(".").map_err(|e| e.to_string())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !TOP_LEVEL.contains(&name.as_str()) && name != "target" && name != "ringmill-data" {
            found.push(format!("{name}: not one of the names at the top level"));
        }
    }
    for page in files.iter().filter(|p| p.extension().is_some_and(|e| e == "md")) {
        let text = fs::read_to_string(page).map_err(|e| format!("{}: {e}", page.display()))?;
        links(page, &text, &mut found);
    }
    rivals(&names(Path::new("bench/runs")), &fs::read_to_string("README.md").unwrap_or_default(), &mut found);
    if found.is_empty() {
        println!("tidy: {} files, nothing to say", files.len());
        return Ok(());
    }
    Err(found.join("\n"))
}

fn collect(dir: &Path, out: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && name != ".git" && name != "ringmill-data" {
                collect(&path, out);
            }
        } else {
            out.push(path);
        }
    }
}

fn source(path: &Path, text: &str, found: &mut Vec<String>) {
    let shown = path.strip_prefix(".").unwrap_or(path).display().to_string();
    let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text);
    let is_test = shown.contains("/tests/") || shown.ends_with("tests.rs") || shown.contains("/benches/");
    let lines = code.lines().count();
    if lines > LINES_MAX && !is_test {
        found.push(format!("{shown}: {lines} lines; split it"));
    }
    if !shown.starts_with(UNSAFE_HOME) && !shown.starts_with("tools/x/") {
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.contains("unsafe {") || line.starts_with("unsafe ") || line.contains("allow(unsafe_code)")
            {
                found.push(format!("{shown}:{}: unsafe outside {UNSAFE_HOME}", at + 1));
            }
        }
    }
    for (at, line) in text.lines().enumerate() {
        if let Some(mark) = MARKS.iter().find(|m| line.contains(**m)) {
            found.push(format!("{shown}:{}: {mark}: finish it, or say in a decision note why not", at + 1));
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The README's table of rivals comes from the newest of their runs; folders begin with their date.
fn rivals(runs: &[String], readme: &str, found: &mut Vec<String>) {
    if let Some(newest) = runs.iter().filter(|run| run.contains("-rivals")).max()
        && !readme.contains(&format!("bench/runs/{newest}/summary.md"))
    {
        found.push(format!(
            "README.md: its table of rivals is not of bench/runs/{newest}: bench/rivals/run --readme puts it there"
        ));
    }
}

/// Relative links of a page must lead somewhere, from the folder it lies in.
fn links(page: &Path, text: &str, found: &mut Vec<String>) {
    let folder = page.parent().unwrap_or(Path::new("."));
    for piece in text.split("](").skip(1) {
        let target = piece.split([')', '#', ' ']).next().unwrap_or("");
        if !target.is_empty() && !target.contains("://") && !folder.join(target).exists() {
            found.push(format!("{}: link to {target}, which is not there", page.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_shows_the_newest_run_of_rivals() {
        let runs = ["2026-01-01-a-rivals", "2026-02-01-a-rivals", "2026-03-01-a"].map(String::from);
        let said = |readme: &str| {
            let mut found = Vec::new();
            rivals(&runs, readme, &mut found);
            found.len()
        };
        assert_eq!(said("[x](bench/runs/2026-02-01-a-rivals/summary.md)"), 0);
        assert_eq!(said("[x](bench/runs/2026-01-01-a-rivals/summary.md)"), 1);
        let mut found = Vec::new();
        rivals(&[], "", &mut found);
        assert!(found.is_empty(), "no run, no table: {found:?}");
    }

    #[test]
    fn links_lead_from_the_folder_of_their_page() {
        let said = |page: &str, text: &str| {
            let mut found = Vec::new();
            links(Path::new(page), text, &mut found);
            found.len()
        };
        let text = "[a](Cargo.toml), [b](Cargo.toml#part), [c](#part), [d](https://Cargo.toml/x), [e](src)";
        assert_eq!(said("page.md", text), 0);
        assert_eq!(said("src/page.md", "[a](../Cargo.toml)"), 0);
        assert_eq!(said("src/page.md", text), 3);
    }
}
