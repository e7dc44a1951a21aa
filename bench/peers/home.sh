# Sourced by the scripts beside it: `peers` is where they keep what they fetch and build. PEERS_DIR, or a folder under TMPDIR
# that belongs to whoever runs this: in another user's may lie what only that user can read, or what he wants others to run.
peers=${PEERS_DIR:-${TMPDIR:-/tmp}/ringmill-peers}
if [ -z "${PEERS_DIR:-}" ] && [ -e "$peers" ] && [ ! -O "$peers" ]; then
  peers=$peers-$(id -un)
  if [ -e "$peers" ] && [ ! -O "$peers" ]; then echo "$peers belongs to somebody else: set PEERS_DIR to a folder of yours" >&2; exit 1; fi
fi
