#!/bin/sh
# What `make test` runs a little of, at length, one part after the other; ends with a line for each part of what it found.
#   infra/chaos.sh [simulation | kills | fuzz | overload]     without a word: all of them
#     simulation  SIM_SEEDS=200000 schedules of the real programs' parts over memory
#     kills       CHAOS_ROUNDS=100 kills and freezes of every process under load, on each set-up: `serve` on a folder; and Kafka,
#                 Redis, `ingest`, `project` and `api` (half over SQLite, half over the double of an EventStoreDB). None begins
#                 later than CHAOS_SECONDS=1200 after the first of its set-up. On two cores a round took 2.5 s embedded and 5 s
#                 on servers where nothing else ran, and 10 and 13 s beside ten other busy processes
#     overload    ten times what `serve` can take, OVERLOAD_SECONDS=30
#     fuzz        200,000 records and 20,000 requests at random, times FUZZ_FACTOR=1
# SEED=… repeats the kills and the fuzz; each part prints its own.
set -u
cd "$(dirname "$0")/.." || exit 1
export NODE_COMPILE_CACHE="$PWD/node_modules/.cache/compile"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# Written by the tests themselves.
export THROUGHLINE_TEST_SUMMARY="$out/summary"
: >"$out/summary"
SEED=${SEED:-$(($(date +%s) % 1000000))}
failed=0

# PART TESTS: what fails is said, and what comes after runs all the same.
part() {
  echo "chaos: $1 (SEED=$SEED) ..."
  began=$(date +%s)
  if sh infra/node.sh --experimental-vm-modules --disable-warning=ExperimentalWarning node_modules/jest/bin/jest.js --runInBand --verbose "$2"; then verdict=passed
  else verdict=FAILED; failed=$((failed + 1)); fi
  echo "$1: $verdict in $(($(date +%s) - began)) s" >>"$out/summary"
}

simulation() {
  echo 'chaos: simulation ...'
  { SIM_SEEDS="${SIM_SEEDS:-200000}" SIM_JOBS="${SIM_JOBS:-2}" sh infra/node.sh test/simulation/run.ts; echo $? >"$out/rc"; } | tee "$out/simulation"
  if [ "$(cat "$out/rc")" = 0 ]; then verdict=passed
  else verdict=FAILED; failed=$((failed + 1)); fi
  { tail -1 "$out/simulation"; echo "simulation: $verdict"; } >>"$out/summary"
}

kills() {
  export THROUGHLINE_TEST_KILLS="${CHAOS_ROUNDS:-100}" CHAOS_SECONDS="${CHAOS_SECONDS:-1200}" THROUGHLINE_TEST_SEED="$SEED"
  part 'kills, embedded' test/chaos/embedded.test.ts
  if sh infra/servers.sh install kafka && sh infra/servers.sh install redis; then part 'kills, servers' test/chaos/servers.test.ts
  else failed=$((failed + 1)); echo 'kills, servers: NOT RUN, Kafka or Redis cannot be had here' >>"$out/summary"; fi
}

fuzz() {
  export FUZZ_SEED="$SEED" FUZZ_FACTOR="${FUZZ_FACTOR:-1}"
  part fuzz test/fuzz
}

overload() {
  echo 'chaos: overload ...'
  if sh infra/node.sh test/chaos/overload.ts; then verdict=passed
  else verdict=FAILED; failed=$((failed + 1)); fi
  echo "overload: $verdict" >>"$out/summary"
}

case "${1:-all}" in
  simulation | kills | fuzz | overload) "$1" ;;
  all) simulation; kills; fuzz; overload ;;
  *) echo 'usage: infra/chaos.sh [simulation | kills | fuzz | overload]' >&2; exit 2 ;;
esac
echo
cat "$out/summary"
[ "$failed" = 0 ]
