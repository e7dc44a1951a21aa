#!/usr/bin/env bash
# Each file system that DESIGN and README name, under the real binary: smoke, then kill -9 under load again and again.
#   filesystems.sh BINARY [NAME…]     ext4 xfs btrfs on loop devices, tmpfs and overlay; all of them unless some are named
# PROFILE= (empty) runs the crash loop in a debug build. Needs root, mount and loop devices: as root it fails where one of them cannot
# be mounted; for an ordinary user that is skipped, and the last lines say so in capitals.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd); binary=$(realpath "$1"); shift
names=("$@"); [ ${#names[@]} -gt 0 ] || names=(ext4 xfs btrfs tmpfs overlay)
dir=$(mktemp -d); chmod 755 "$dir"; skipped=(); tried=()
trap 'umount -l "$dir"/*/at "$dir"/overlay/layers 2>/dev/null || true; rm -rf "$dir"' EXIT

mounted() { # NAME: mounts it at $dir/NAME/at, or says why not
  local at=$dir/$1/at image=$dir/$1/image; mkdir -p "$at"
  case $1 in
    ext4) truncate -s 1G "$image" && mkfs.ext4 -q "$image" && mount -o loop "$image" "$at" ;;
    xfs) truncate -s 1G "$image" && mkfs.xfs -q "$image" && mount -o loop "$image" "$at" ;;
    btrfs) truncate -s 1G "$image" && mkfs.btrfs -q "$image" && mount -o loop "$image" "$at" ;;
    tmpfs) mount -t tmpfs -o size=1g tmpfs "$at" ;;
    overlay)
      # Its layers on a tmpfs: overlay will not stack on every file system, and a container's root may be one itself.
      mkdir -p "$dir/overlay/layers" && mount -t tmpfs -o size=1g tmpfs "$dir/overlay/layers" &&
        mkdir -p "$dir"/overlay/layers/{lower,upper,work} &&
        mount -t overlay overlay -o "lowerdir=$dir/overlay/layers/lower,upperdir=$dir/overlay/layers/upper,workdir=$dir/overlay/layers/work" "$at" ;;
    *) echo "no such file system: $1"; return 1 ;;
  esac
}

buffered() { # NAME: the banner must own up to a weaker promise exactly where it is one
  local at=$dir/$1/at pid
  "$binary" serve --data "$at/banner" --listen 127.0.0.1:0 --admin 127.0.0.1:0 >"$dir/$1/log" 2>&1 & pid=$!
  for _ in $(seq 100); do grep -q '^  ready' "$dir/$1/log" && break; kill -0 $pid 2>/dev/null || break; sleep 0.1; done
  kill -TERM $pid 2>/dev/null || true; wait $pid || { cat "$dir/$1/log"; return 1; }
  grep -E '^  (data|an ack) ' "$dir/$1/log"
  rm -rf "$at/banner"
  grep -q '^  data .*, buffered' "$dir/$1/log"
}

for name in "${names[@]}"; do
  if ! why=$(mounted "$name" 2>&1); then
    skipped+=("$name (${why//$'\n'/; })"); continue
  fi
  echo "== $name"
  case $name in
    tmpfs | overlay) buffered "$name" || { echo "$name: the banner does not say 'buffered'"; exit 1; } ;;
    *) ! buffered "$name" || { echo "$name: the banner says 'buffered'"; exit 1; } ;;
  esac
  TMPDIR=$dir/$name/at "$here/smoke.sh" "$binary" --cores 2 --memory 256MiB
  (cd "$here/../.." && RINGMILL_CRASH_DATA=$dir/$name/at RINGMILL_CRASH_ROUNDS=4 \
    cargo test -q ${PROFILE---release} -p ringmill --test crash)
  [ "$name" != btrfs ] || TMPDIR=$dir/$name/at "$here/smoke.sh" "$binary" --cores 2 --memory 256MiB --set features.off=nocow
  tried+=("$name")
  umount "$dir/$name/at"
done
echo "file systems served from, with acked records kept through kill -9: ${tried[*]:-none}"
if [ ${#skipped[@]} -gt 0 ]; then
  printf '\n*** SKIPPED: file system %s ***\n' "${skipped[@]}"
  [ "$(id -u)" != 0 ] || { echo "as root that is a failure"; exit 1; }
fi
