#!/usr/bin/env bash
# rskafka 0.6.0's own integration tests: a client in Rust that shares no protocol code with any other (low versions, Fetch 4).
#   rskafka.sh setup                      build the tests once (about 2 minutes; needs cargo, a C++ compiler, make, a JDK: they link libjvm)
#   rskafka.sh list                       every test as FILE::NAME
#   rskafka.sh run HOST:PORT FILE::NAME   one test in a process of its own; exit 0 passed, 77 it skipped itself, else failed
# The broker must not create topics by itself (auto.create.topics.enable=false), or test_non_existing_partition fails.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/home.sh"
home=$peers/rskafka-0.6.0
java=$(command -v javac) || { echo 'rskafka: install default-jdk-headless first (the tests link libjvm)' >&2; exit 1; }
JAVA_HOME=${JAVA_HOME:-$(dirname "$(dirname "$(realpath "$java")")")}; export JAVA_HOME
export LD_LIBRARY_PATH=$JAVA_HOME/lib/server
setup() {
  [ -s "$home/binaries" ] && return
  mkdir -p "$home" && cd "$home"
  [ -d fetch ] || cargo init -q --bin --name fetch fetch
  (cd fetch && { grep -q rskafka Cargo.toml || cargo add -q rskafka@=0.6.0; } && cargo fetch -q)
  rm -rf src && cp -r "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/rskafka-0.6.0 src && chmod -R u+w src && cd src
  # It pins an older compiler, and its lock file an rsasl that a current one does not take.
  rm -f rust-toolchain.toml && cargo update -q -p rsasl
  CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 cargo test --tests --no-run --message-format=json 2>../build.log |
    sed -n 's|.*"src_path":"[^"]*/tests/\([a-z_]*\)\.rs".*"executable":"\([^"]*\)".*|\1 \2|p' | sort -u >../binaries.tmp
  [ -s ../binaries.tmp ] || { tail -5 ../build.log >&2; exit 1; }
  mv ../binaries.tmp ../binaries
}
case "${1:-}" in
  setup) setup ;;
  list) setup; while read -r file binary; do "$binary" --list --format terse 2>/dev/null | sed -n "s|^\(.*\): test\$|$file::\1|p"; done <"$home/binaries" ;;
  run)
    setup; cd "$home/src"; binary=$(awk -v f="${3%%::*}" '$1 == f { print $2 }' "$home/binaries")
    [ -n "$binary" ] || { echo "rskafka: no test file is called ${3%%::*}" >&2; exit 1; }
    # It takes itself for one of the Java tests and returns at once, but needs nothing of Java.
    [[ $3 != *rdkafka_consume_rdkafka_nocompression ]] || export TEST_JAVA_INTEROPT=1
    out=$(TEST_INTEGRATION=1 TEST_BROKER_IMPL=kafka KAFKA_CONNECT=$2 "$binary" --exact "${3#*::}" --test-threads=1 --nocapture 2>&1) && rc=0 || rc=$?
    printf '%s\n' "$out"
    [ $rc -eq 0 ] || exit $rc
    ! grep -qiE ' 1 ignored|skipping (sasl|kafka|integration|due)' <<<"$out" || exit 77
    grep -q ' 1 passed' <<<"$out" ;;
  *) sed -n '2,6p' "$0"; exit 2 ;;
esac
