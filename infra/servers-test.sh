#!/bin/sh
# The long end-to-end tests on real servers, which `make test` runs in a smaller size:
#   infra/servers-test.sh load      100,000 events from a topic through to Redis (LOAD=… for another number)
#   infra/servers-test.sh faults    every fault under load, each with the same oracle
# SEED=… repeats a run; each prints its own.
set -u
cd "$(dirname "$0")/.." || exit 1
{ sh infra/servers.sh install kafka && sh infra/servers.sh install redis; } || exit 1
export NODE_COMPILE_CACHE="$PWD/node_modules/.cache/compile"
[ -z "${SEED:-}" ] || export THROUGHLINE_TEST_SEED="$SEED"
case "${1:-}" in
  load) export THROUGHLINE_TEST_LOAD="${LOAD:-100000}"; tests=test/e2e/servers/line.test.ts ;;
  faults) export THROUGHLINE_TEST_FAULTS=all; tests=test/chaos/servers.test.ts ;;
  *) echo 'usage: infra/servers-test.sh load | faults' >&2; exit 2 ;;
esac
exec sh infra/node.sh --experimental-vm-modules --disable-warning=ExperimentalWarning node_modules/jest/bin/jest.js --runInBand --verbose "$tests"
