//! Running other people's programs: with a deadline, and with all that they said when they fail.

use std::io::Write;
use std::process::{Command, Stdio};

/// A command that is ended when it takes longer than `seconds`. A client that waits for ever is a finding, not a hang.
pub fn timed(seconds: u32, program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", &seconds.to_string(), program]);
    command
}

/// Runs a command with `input`, and gives what it printed on stdout.
pub fn talk(command: &mut Command, input: &str) -> Result<String, String> {
    let (out, err) = both(command, input)?;
    drop(err);
    Ok(out)
}

/// Runs a command with `input`, and gives stdout and stderr.
pub fn both(command: &mut Command, input: &str) -> Result<(String, String), String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{command:?}: {e}"))?;
    // Fed from a thread of its own: a program that prints before it has read everything would stop us both.
    let feeder = child.stdin.take().map(|mut stdin| {
        let input = input.to_string();
        std::thread::spawn(move || stdin.write_all(input.as_bytes()))
    });
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    if output.status.code() == Some(124) {
        return Err(format!("{command:?} did not end in time\n{}{}", tail(&out), tail(&err)));
    }
    if !output.status.success() {
        return Err(format!("{command:?}: {}\n{}{}", output.status, tail(&out), tail(&err)));
    }
    match feeder.map(std::thread::JoinHandle::join) {
        Some(Ok(Err(e))) => Err(format!("{command:?} did not take its input: {e}")),
        _ => Ok((out, err)),
    }
}

/// Makes sure that programs are there, each named with the Debian package that has it: installed when apt-get may.
pub fn need(programs: &[(&str, &'static str)]) -> Result<(), String> {
    let missing: Vec<&str> =
        programs.iter().filter(|(program, _)| !installed(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    let install = format!("apt-get update -qq && apt-get install -y -qq --no-install-recommends {packages}");
    if crate::run::command(&format!("{install} >/dev/null")).is_ok() {
        return Ok(());
    }
    Err(format!("install these first (Debian's names; as root this would do it): {packages}"))
}

fn installed(program: &str) -> bool {
    // A header file is looked for by its path below the system's include folder.
    let look = if program.ends_with(".h") {
        format!("echo '#include <{program}>' | cc -E - 2>/dev/null")
    } else {
        format!("command -v {program}")
    };
    let found = Command::new("sh").args(["-c", &look]).stdout(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The last lines of an output: where programs say why.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].iter().map(|line| format!("{line}\n")).collect()
}
