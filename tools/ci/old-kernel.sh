#!/usr/bin/env bash
# Boots Linux 6.1, the oldest kernel supported, in software emulation, and serves, produces, reads back and recovers on it.
#   old-kernel.sh [BINARY]     needs qemu-system-x86_64, busybox (static), cpio, dpkg and mkfs.ext4
#   KERNEL_DEB=FILE            a Debian kernel package to use instead of the one that apt names
# Nothing is installed: the kernel package is unpacked in a temporary folder. What it showed: kernel-notes/old-kernel.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
binary=$(realpath "${1:-target/release/ringmill}")
for tool in qemu-system-x86_64 busybox cpio dpkg mkfs.ext4; do
  command -v "$tool" >/dev/null || {
    echo "$tool is missing: apt-get install --no-install-recommends qemu-system-x86 busybox-static cpio e2fsprogs"; exit 1; }
done
ldd "$(command -v busybox)" >/dev/null 2>&1 && { echo "busybox is not static: apt-get install busybox-static"; exit 1; }
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT

if [ -z "${KERNEL_DEB:-}" ]; then
  package=$(apt-cache depends linux-image-amd64 | awk '/Depends:/ && !found { print $2; found = 1 }')
  case $package in linux-image-6.1.*) ;; *)
    echo "this system's kernel package is '$package', not 6.1 (Debian 12 has it); give KERNEL_DEB=FILE"; exit 1 ;;
  esac
  chmod 755 "$dir"; (cd "$dir" && apt-get download -qq "$package" 2>/dev/null)
  KERNEL_DEB=$(echo "$dir"/linux-image-*.deb)
fi
dpkg -x "$KERNEL_DEB" "$dir/kernel"
modules=$(echo "$dir"/kernel/lib/modules/*)

root=$dir/root; mkdir -p "$root"/{bin,dev,proc,sys,tmp,data,modules}
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$binary" "$root/bin/ringmill"; strip "$root/bin/ringmill" 2>/dev/null || true
# Which needs which changes between releases of the package: they are loaded in as many rounds as there are of them.
load=(virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk crc16 mbcache crc32c_generic
  jbd2 ext4)
for name in "${load[@]}"; do
  found=$(find "$modules" -name "$name.ko")
  [ -z "$found" ] || cp "$found" "$root/modules/"
done
cat >"$root/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for round in ${load[*]}; do for name in ${load[*]}; do
  [ -e /modules/\$name.ko ] && insmod /modules/\$name.ko 2>/dev/null && rm /modules/\$name.ko
done; done
INIT
cat >>"$root/init" <<'INIT'
ifconfig lo 127.0.0.1 up
fail() { echo "OLD-KERNEL: failed: $1"; cat /tmp/log; poweroff -f; }
serve() {
  ringmill serve --data "$1" --cores 2 --memory 256MiB >/tmp/log 2>&1 &
  broker=$!
  for n in $(seq 600); do grep -q '^  ready' /tmp/log && return; kill -0 $broker || fail "start"; sleep 0.1; done
  fail "it was not ready after a minute"
}
try() {
  echo "=== on $2"
  serve "$1"; cat /tmp/log
  seq 1 20000 >/tmp/in
  ringmill topic create old --partitions 1 || fail "topic create"
  ringmill produce old </tmp/in || fail "produce"
  kill -9 $broker; wait $broker
  serve "$1"
  ringmill consume old --from beginning --count 20000 >/tmp/out || fail "consume"
  cmp /tmp/in /tmp/out || fail "what came back is not what was acknowledged"
  kill -TERM $broker; wait $broker || fail "an orderly stop"
  ringmill log verify "$1" | tail -n 1
}
mount -t ext4 /dev/vda /data || fail "ext4"
try /data/ringmill "ext4, a virtio disk"
mkdir /tmp/memory; mount -t tmpfs memory /tmp/memory
try /tmp/memory/ringmill "tmpfs"
echo "=== ringmill check"
ringmill check --data /data/ringmill | cat
echo "OLD-KERNEL: good"
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$dir/initramfs"
truncate -s 1G "$dir/disk"; mkfs.ext4 -q "$dir/disk"
timeout 900 qemu-system-x86_64 -accel tcg -cpu max -smp 2 -m 2048 -nographic -no-reboot -nic none \
  -kernel "$(echo "$dir"/kernel/boot/vmlinuz-*)" -initrd "$dir/initramfs" \
  -append "console=ttyS0 quiet panic=-1 mitigations=off" \
  -drive "file=$dir/disk,format=raw,if=virtio,cache=writeback" | tr -d '\r' | tee "$dir/said"
grep -q 'OLD-KERNEL: good' "$dir/said"
