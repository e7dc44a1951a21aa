#!/usr/bin/env bash
# franz-go 1.21.5's kgo tests: a client in Go, with newest versions, topic ids, fetch sessions and idempotence by default.
#   kgo.sh setup                build the tests once (about 1 minute; needs go 1.21 or newer, which fetches a newer one if it must)
#   kgo.sh list                 every test, also those that need no broker
#   kgo.sh run HOST:PORT TEST   one test in a process of its own; exit 0 passed, 77 it skipped itself, else failed
#   kgo.sh stress-setup         build bench/peers/stress: groups whose members come, go, crash and stall
#   kgo.sh stress FLAGS…        run it (-h: its flags); exit 1 when something was violated
# KGO_TEST_RECORDS: records in the larger tests (10,000).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$(dirname "${BASH_SOURCE[0]}")/home.sh"
home=$peers/kgo-1.21.5
setup() {
  [ -x "$home/kgo.test" ] && return
  command -v go >/dev/null || { echo 'kgo: install go first' >&2; exit 1; }
  mkdir -p "$home" && cd "$home"
  { [ -f go.mod ] || go mod init peer; go get -t github.com/twmb/franz-go/pkg/kgo@v1.21.5
    go test -c -o kgo.tmp github.com/twmb/franz-go/pkg/kgo; } >build.log 2>&1 || { tail -5 build.log >&2; exit 1; }
  mv kgo.tmp kgo.test
}
stress_setup() {
  command -v go >/dev/null || { echo 'kgo: install go first' >&2; exit 1; }
  mkdir -p "$home"
  (cd "$here/stress" && go build -o "$home/stress" .)
}
case "${1:-}" in
  setup) setup ;;
  stress-setup) stress_setup ;;
  stress) [ -x "$home/stress" ] || stress_setup; shift; exec "$home/stress" "$@" ;;
  list) setup; "$home/kgo.test" -test.list . | grep '^Test' ;;
  run)
    setup; cd "$home"
    out=$(KGO_SEEDS=$2 KGO_TEST_RF=1 KGO_TEST_RECORDS=${KGO_TEST_RECORDS:-10000} KGO_LOG_LEVEL=none \
      ./kgo.test -test.v -test.count 1 -test.timeout 100s -test.run "^$3\$" 2>&1) && rc=0 || rc=$?
    printf '%s\n' "$out"
    [ $rc -eq 0 ] || exit $rc
    ! grep -qE '^ *--- SKIP: ' <<<"$out" || exit 77
    grep -q "^--- PASS: $3 " <<<"$out" ;;
  *) sed -n '2,8p' "$0"; exit 2 ;;
esac
