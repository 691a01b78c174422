#!/bin/sh
# Runs Node 24: the pinned one where it is installed, else the system's.
root=$(cd "$(dirname "$0")/.." && pwd)
pinned=$root/node_modules/node-$(node -p 'process.platform + "-" + process.arch')/bin/node
[ -x "$pinned" ] || pinned=node
exec "$pinned" "$@"
