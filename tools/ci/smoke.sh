#!/usr/bin/env bash
# Serves, produces and reads back with kcat, stops in order; and the binary has to be static.
#   smoke.sh BINARY [serve options…]          as whoever runs it
#   AS_NOBODY=1 smoke.sh BINARY …             as an ordinary user with 8 MiB memlock and nofile 1024 (needs root to become one)
#   LISTEN='[::1]:0' smoke.sh BINARY …        on another address of this machine
set -euo pipefail
listen=${LISTEN:-127.0.0.1:0}
binary=$(realpath "$1"); shift
said=$(ldd "$binary" 2>&1 || true)
[[ $said == *"statically linked"* || $said == *"not a dynamic executable"* ]] || { echo "$binary is not static: $said"; exit 1; }
dir=$(mktemp -d); chmod 755 "$dir"; cp "$binary" "$dir/ringmill"; touch "$dir/log"
run=(); if [ -n "${AS_NOBODY:-}" ]; then
  chown 65534:65534 "$dir"
  run=(prlimit --memlock=8388608:8388608 --nofile=1024:1024 setpriv --reuid 65534 --regid 65534 --clear-groups)
fi
"${run[@]}" "$dir/ringmill" serve --data "$dir/data" --listen "$listen" --admin "$listen" "$@" >"$dir/log" 2>&1 & pid=$!
trap 'kill -9 $pid 2>/dev/null || true; rm -rf "$dir"' EXIT
for _ in $(seq 100); do
  grep -q '^  ready' "$dir/log" && break
  kill -0 $pid 2>/dev/null || { cat "$dir/log"; exit 1; }; sleep 0.1
done
at=$(awk '$1 == "listens" { print $2 }' "$dir/log")
seq 1 5000 >"$dir/in"
kcat -q -P -b "$at" -t smoke -p 0 -z lz4 <"$dir/in"
kcat -q -C -b "$at" -t smoke -p 0 -o beginning -c 5000 >"$dir/out"
cmp "$dir/in" "$dir/out"
kill -TERM $pid; wait $pid
echo "smoke ${AS_NOBODY:+as an ordinary user }${LISTEN:+on $LISTEN }$*: good"
