#!/bin/sh
# Installs what the checkout needs, from the lock file; does nothing when it is there already. Any Node >= 18 with npm will
# do: where it is older than 24, the pinned Node 24 that npm installs runs everything (infra/throughline.cjs picks it).
set -eu
cd "$(dirname "$0")/.."
command -v node >/dev/null 2>&1 || { echo "setup: no node on the PATH; install Node 18 or later with npm" >&2; exit 1; }
command -v npm >/dev/null 2>&1 || { echo "setup: no npm on the PATH; it comes with Node" >&2; exit 1; }
major=$(node -p 'process.versions.node.split(".")[0]')
[ "$major" -ge 18 ] || { echo "setup: Node $(node -v) is too old to install with; 18 or later is needed" >&2; exit 1; }
echo "setup: npm ci (once) ..." >&2
log=$(mktemp)
# No dependency needs an install script; none is run.
if ! npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >"$log" 2>&1; then cat "$log" >&2; rm -f "$log"; exit 1; fi
rm -f "$log"
if [ "$major" -lt 24 ]; then
  pinned=node_modules/node-$(node -p 'process.platform + "-" + process.arch')/bin/node
  [ -x "$pinned" ] || { echo "setup: Node 24 is needed to run, this is $(node -v), and npm has none for this platform; install Node 24" >&2; exit 1; }
fi
touch node_modules/.setup
