#!/usr/bin/env bash
# Where io_uring is forbidden, as in many containers, a start says so in a sentence, exits 6 and touches nothing.
#   forbidden.sh BINARY
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cargo build --quiet -p ringmill-reactor --example no_uring
without=${CARGO_TARGET_DIR:-target}/debug/examples/no_uring
code=0
"$without" "$1" serve --data "$dir/data" --listen 127.0.0.1:0 --admin 127.0.0.1:0 >"$dir/out" 2>&1 || code=$?
[ "$code" = 6 ] || { cat "$dir/out"; echo "exit code $code, not 6"; exit 1; }
grep -q 'io_uring is not allowed here.*kernel.io_uring_disabled=0.*seccomp.*Nothing was touched' "$dir/out"
[ ! -e "$dir/data" ]
code=0; "$without" "$1" check >"$dir/out" 2>&1 || code=$?
[ "$code" != 0 ] && grep -q 'FAIL  io_uring' "$dir/out"
echo "io_uring forbidden: said, and nothing touched"
