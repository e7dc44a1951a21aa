//! `ringmill completion`.

use crate::exit::Failed;
use crate::output::Out;
use clap::Args;
use std::io::Write;

/// Where the script goes: bash `~/.local/share/bash-completion/completions/ringmill`, zsh a folder of `$fpath` as
/// `_ringmill`, fish `~/.config/fish/completions/ringmill.fish`.
#[derive(Args)]
pub struct Completion {
    shell: clap_complete::Shell,
}

impl Completion {
    pub fn run(&self, command: &mut clap::Command) -> Result<(), Failed> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, command, "ringmill", &mut script);
        let mut out = Out::new();
        out.write_all(&script)?;
        Ok(out.finish()?)
    }
}
