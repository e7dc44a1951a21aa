#!/usr/bin/env bash
# NATS 2.15.2 with JetStream, from its Go module.
#   nats.sh setup             build the server once (about 2 minutes; needs go)
#   nats.sh serve PORT DIR    in the foreground; every message is synced to disk before its ack (sync_interval: always)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/home.sh"
home=$peers/nats-2.15.2
setup() {
  [ -x "$home/nats-server" ] && return
  command -v go >/dev/null || { echo 'nats: install go first' >&2; exit 1; }
  mkdir -p "$home" && cd "$home"
  { [ -f go.mod ] || go mod init peer; go get github.com/nats-io/nats-server/v2@v2.15.2
    go build -o nats-server.tmp github.com/nats-io/nats-server/v2; } >build.log 2>&1 || { tail -5 build.log >&2; exit 1; }
  mv nats-server.tmp nats-server
}
case "${1:-}" in
  setup) setup ;;
  serve)
    setup; mkdir -p "$3"
    printf 'host: 127.0.0.1\nport: %d\njetstream { store_dir: "%s", sync_interval: always }\n' "$2" "$3" >"$3/nats.conf"
    exec "$home/nats-server" -c "$3/nats.conf" ;;
  *) sed -n '2,4p' "$0"; exit 2 ;;
esac
