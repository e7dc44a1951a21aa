//! `cargo x clients`: the broker against clients that nobody here wrote. Every suite gets a broker of its own on free
//! ports and a temporary folder, and ends with a clean stop, after which what lies on disk is looked at. A client that
//! is missing is installed from its registry by a script in bench/peers where that is possible.

mod adoption;
pub mod broker;
mod groups;
mod kafka;
mod kcat;
mod librdkafka;
mod outside;
mod protocols;
mod stored;
mod stress;
pub mod tool;

use std::time::Instant;

/// What a suite found, printed as it goes.
pub struct Report {
    suite: &'static str,
    passed: usize,
    failed: Vec<String>,
}

impl Report {
    /// Runs one check under its name; says whether it passed.
    fn check(&mut self, name: &str, check: impl FnOnce() -> Result<(), String>) -> bool {
        let begun = Instant::now();
        let result = check();
        let seconds = begun.elapsed().as_secs_f64();
        match &result {
            Ok(()) => {
                self.passed += 1;
                println!("PASS {} {name} {seconds:.1}", self.suite);
            }
            Err(reason) => {
                println!("FAIL {} {name} {seconds:.1}\n     {}", self.suite, reason.trim_end());
                self.failed.push(format!("{} {name}", self.suite));
            }
        }
        result.is_ok()
    }
}

struct Suite {
    name: &'static str,
    about: &'static str,
    /// An error means that the suite could not be run, which fails it as a whole.
    run: fn(&mut Report) -> Result<(), String>,
}

const SUITES: [Suite; 9] = [
    Suite { name: "kcat", about: "librdkafka as Debian has it: codecs, acks, stored codec", run: kcat::run },
    Suite {
        name: "librdkafka",
        about: "rdkafka_performance 2.12: codecs, acks, idempotence",
        run: librdkafka::run,
    },
    Suite { name: "groups", about: "consumer groups of librdkafka, over a kill -9 too", run: groups::run },
    Suite {
        name: "protocols",
        about: "KIP-848 with librdkafka 2.12 and Java, static members, groups that change their protocol",
        run: protocols::run,
    },
    Suite {
        name: "stress",
        about: "1,000 groups whose members come, go, crash and stall for ten minutes, kill -9 ten times",
        run: stress::run,
    },
    Suite { name: "kafka", about: "Kafka 4.3.1's own tools, DumpLogSegments at the end", run: kafka::run },
    Suite {
        name: "adoption",
        about: "partition folders that Kafka 4.3.1 wrote, put in place",
        run: adoption::run,
    },
    Suite { name: "rskafka", about: "rskafka 0.6.0's integration tests", run: outside::rskafka },
    Suite { name: "kgo", about: "franz-go 1.21.5's kgo tests", run: outside::kgo },
];

/// One line per suite, for the usage text.
pub fn list() -> String {
    SUITES.iter().map(|s| format!("              {:<11} {}\n", s.name, s.about)).collect()
}

/// Runs the named suites; `all`, or no name, runs every one.
pub fn run(names: &[&str]) -> Result<(), String> {
    let all = names.is_empty() || names == ["all"];
    if let Some(unknown) = names.iter().find(|n| !all && !SUITES.iter().any(|s| s.name == **n)) {
        return Err(format!("no suite is called {unknown}; there are\n{}", list()));
    }
    broker::build()?;
    let (mut totals, mut failed) = (Vec::new(), Vec::new());
    for suite in SUITES.iter().filter(|s| all || names.contains(&s.name)) {
        let begun = Instant::now();
        let mut report = Report { suite: suite.name, passed: 0, failed: Vec::new() };
        if let Err(reason) = (suite.run)(&mut report) {
            report.check("runs", || Err(reason));
        }
        totals.push(format!(
            "clients {}: {} passed, {} failed, {:.0} s",
            suite.name,
            report.passed,
            report.failed.len(),
            begun.elapsed().as_secs_f64()
        ));
        failed.append(&mut report.failed);
    }
    println!("{}", totals.join("\n"));
    if failed.is_empty() { Ok(()) } else { Err(format!("failed:\n  {}", failed.join("\n  "))) }
}
