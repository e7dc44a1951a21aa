//! CONFIG.md, ERRORS.md and the help text, made from the tables.

use super::table::{KEYS, Key, Origin, Section};
use crate::exit::{Reason, Restart};
use ringmill_types::ErrorCode;
use std::fmt::Write as _;

/// The whole of net/docs/CONFIG.md.
pub fn config_md() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         <!-- Generated from net/broker/src/config/table.rs by `UPDATE=1 cargo test -p ringmill-broker`; do not edit. -->\n\n\
         A TOML file (`ringmill serve --config FILE`) and any number of `--set KEY=VALUE`, which go before the file; options of\n\
         their own (`--data`, `--listen`, …) go before both. In the file, `log.segment.bytes = 1048576`,\n\
         `\"log.segment.bytes\" = 1048576` and `[log]` with `segment.bytes = 1048576` mean the same. An unknown key, a value out of\n\
         its range or a contradiction stops the start before anything is touched, and all of them are reported at once.\n\n\
         Keys have Kafka's names, units and defaults where Kafka has them (K), and ours where it has no word (R). Everywhere a\n\
         plain number is in the unit of the key; sizes may also be written as `64MiB`, times as `10s` or `7d`.\n",
    );
    for section in Section::ALL {
        let _ = write!(
            out,
            "\n## {}\n\n| key | | type, unit | default | range | effect |\n| --- | --- | --- | --- | --- | --- |\n",
            section.title()
        );
        for key in KEYS.iter().filter(|key| key.section == *section) {
            let _ = writeln!(
                out,
                "| `{}` | {} | {} | {} | {} | {} |",
                key.name,
                origin_mark(key),
                key.kind_text(),
                key.default_text(),
                key.range_text(),
                key.effect.replace('|', "\\|"),
            );
        }
        let _ = writeln!(out, "\n```toml");
        for key in KEYS.iter().filter(|key| key.section == *section) {
            let _ = writeln!(out, "{} = {}", key.name, toml_value(key.example));
        }
        let _ = writeln!(out, "```");
    }
    out
}

fn origin_mark(key: &Key) -> &'static str {
    match key.origin {
        Origin::Kafka => "K",
        Origin::Ringmill => "R",
    }
}

fn toml_value(text: &str) -> String {
    if text.parse::<i64>().is_ok() || text == "true" || text == "false" {
        text.to_string()
    } else {
        format!("\"{text}\"")
    }
}

/// Every key with default and effect, for `ringmill serve --help`: wrapped to `width` columns.
pub fn help_text(width: usize) -> String {
    let mut out = String::from("Configuration keys (--set KEY=VALUE, or a TOML file with --config):\n");
    for section in Section::ALL {
        let _ = writeln!(out, "\n{}:", section.title());
        for key in KEYS.iter().filter(|key| key.section == *section) {
            let _ = writeln!(out, "  {} = {} ({})", key.name, key.default_text(), key.kind_text());
            wrap(key.effect, "      ", width.max(40), &mut out);
        }
    }
    out
}

fn wrap(text: &str, indent: &str, width: usize, out: &mut String) {
    let mut line = String::from(indent);
    for word in text.split(' ') {
        if line.len() > indent.len() && line.chars().count() + 1 + word.chars().count() > width {
            out.push_str(line.trim_end());
            out.push('\n');
            line = String::from(indent);
        }
        if line.len() > indent.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

/// The whole of net/docs/ERRORS.md.
pub fn errors_md() -> String {
    let mut out = String::from(
        "# Exit codes and error codes\n\n\
         <!-- Generated from net/broker/src/exit.rs and engine/types/src/error_code.rs by `UPDATE=1 cargo test -p ringmill-broker`; do not edit. -->\n\n\
         ## Exit codes of `ringmill serve`\n\n\
         0 is an orderly stop: everything flushed, destaged and checkpointed. 134 (SIGABRT) is a broken invariant: the broker stops\n\
         rather than break a promise; report it with the log. The last column says whether a service manager should start it again.\n\n\
         | code | reason | what happened | what to do | start again |\n| --- | --- | --- | --- | --- |\n",
    );
    for reason in Reason::ALL {
        let again = match reason.restart() {
            Restart::Futile => "no",
            Restart::Sensible => "yes",
        };
        let _ = writeln!(
            out,
            "| {} | {reason:?} | {} | {} | {again} |",
            reason.code(),
            reason.text(),
            reason.action()
        );
    }
    out.push_str(
        "\n## Kafka error codes given to clients\n\nNumbers and meanings are Kafka's (`org.apache.kafka.common.protocol.Errors`).\n\n\
         | code | name | meaning |\n| --- | --- | --- |\n",
    );
    for code in ErrorCode::ALL {
        let _ = writeln!(out, "| {} | {} | {} |", code.code(), code.name(), code.text());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::Given;
    use std::path::Path;

    /// Fails when a generated file is not what the tables say; with UPDATE=1 in the environment, writes it.
    fn check_generated(name: &str, text: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, text).expect("net/docs is writable");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "net/docs/{name} is stale: run `UPDATE=1 cargo test -p ringmill-broker`");
    }

    #[test]
    fn config_md_is_fresh() {
        check_generated("CONFIG.md", &config_md());
    }

    #[test]
    fn errors_md_is_fresh() {
        check_generated("ERRORS.md", &errors_md());
    }

    #[test]
    fn the_examples_of_config_md_load() {
        let md = config_md();
        for block in md.split("```toml\n").skip(1) {
            let toml = block.split("```").next().expect("split gives one");
            let mut given = Given::default();
            given.read_toml(toml, "CONFIG.md");
            let checked = given.check();
            assert!(checked.is_ok(), "{toml}\n{checked:?}");
        }
    }

    #[test]
    fn help_stays_within_its_width() {
        let help = help_text(80);
        assert!(KEYS.iter().all(|key| help.contains(key.name)));
        let long: Vec<_> =
            help.lines().filter(|line| line.starts_with("      ") && line.chars().count() > 80).collect();
        assert!(long.is_empty(), "{long:#?}");
    }
}
