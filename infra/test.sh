#!/bin/sh
# Types and lint beside the tests; ends with one line, `N passed, N failed`. Types and lint count as one test each.
#   infra/test.sh [jest arguments]      REQUIRE=kafka,redis,schemathesis fails where one of them cannot be run here
# The suites run on every server that can be started on this machine; what was absent, and why, is said at the end.
cd "$(dirname "$0")/.." || exit 1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# What Node compiled is kept: every worker and every program that a test starts begins the sooner.
export NODE_COMPILE_CACHE="$PWD/node_modules/.cache/compile"
node24() { sh infra/node.sh "$@"; }

# Quick and silent when they are there; why one cannot be had is said now, and again at the end.
sh infra/servers.sh install all

{ node24 --max-semi-space-size=64 infra/check.mjs >"$out/checks" 2>&1; echo $? >"$out/checks.rc"; } &
checks=$!
# The processors are what the suite waits for, and its workers spend a tenth less on them where garbage is collected seldom.
node24 --max-semi-space-size=64 --experimental-vm-modules --disable-warning=ExperimentalWarning node_modules/jest/bin/jest.js --maxWorkers=3 --json --outputFile="$out/jest.json" "$@"
wait "$checks"

passed=0; failed=0
case $(cat "$out/checks.rc") in 0) wrong= ;; 2) wrong=types ;; 4) wrong=lint ;; *) wrong='types lint' ;; esac
for check in types lint; do
  case " $wrong " in *" $check "*) failed=$((failed + 1)); echo "$check: FAILED" ;; *) passed=$((passed + 1)); echo "$check: ok" ;; esac
done
cat "$out/checks"
if [ -s "$out/jest.json" ]; then
  counts=$(node24 -p "const r = JSON.parse(require('fs').readFileSync('$out/jest.json')); const broken = r.testResults.filter((t) => t.status === 'failed' && t.assertionResults.length === 0).length; [r.numPassedTests, r.numFailedTests + broken, r.numPendingTests].join(' ')")
  set -- $counts
  passed=$((passed + $1)); failed=$((failed + $2))
  [ "$3" = 0 ] || echo "$3 skipped (each says why in its name)"
else
  failed=$((failed + 1)); echo "the tests did not finish"
fi

# ---- which servers ------------------------------------------------------------------------------------------------------
required() { case ",${REQUIRE:-}," in *",$1,"*) return 0 ;; *) return 1 ;; esac; }
absent() { # NAME WHY
  if required "$1"; then failed=$((failed + 1)); echo "  ABSENT and required: $2"; else echo "  ABSENT: $2"; fi
}
echo
echo "Servers that the tests ran on:"
echo "  embedded: SQLite, memory"
for server in kafka redis schemathesis; do
  if why=$(sh infra/servers.sh have "$server"); then
    case $server in kafka) echo "  kafka: a real broker ($(cat .cache/kafka/libs/.version)), as a local process" ;; schemathesis) echo "  schemathesis: $(sed -n "s/^schemathesis==//p" infra/schemathesis.txt), from PyPI" ;; redis) echo "  redis: a real server ($(redis-server --version | sed -n 's/.*v=\([0-9.]*\).*/\1/p')), as local processes" ;; esac
  else absent "$server" "$why"; fi
done
if [ -n "${THROUGHLINE_TEST_ESDB:-}" ]; then echo "  eventstoredb: the real server named by THROUGHLINE_TEST_ESDB"
else absent eventstoredb "eventstoredb: no server named by THROUGHLINE_TEST_ESDB; a double of the 22.10 line's protocol stood in for it"; fi
for server in $(echo "${REQUIRE:-}" | tr ',' ' '); do
  case $server in kafka | redis | schemathesis | eventstoredb) ;; *) failed=$((failed + 1)); echo "  REQUIRE names $server, which is none of kafka, redis, schemathesis, eventstoredb" ;; esac
done
# A suite that finds its server absent says so in the names of the tests that it skips: none may where the server is required.
if [ -n "${REQUIRE:-}" ] && [ -s "$out/jest.json" ]; then
  skipped=$(REQUIRE="$REQUIRE" node24 -p "const r = JSON.parse(require('fs').readFileSync('$out/jest.json')); const named = new RegExp(process.env.REQUIRE.split(',').join('|'), 'i'); r.testResults.flatMap((t) => t.assertionResults).filter((a) => (a.status === 'pending' || a.status === 'todo') && named.test(a.fullName)).length")
  [ "$skipped" = 0 ] || { failed=$((failed + skipped)); echo "  $skipped tests of a required server were skipped"; }
fi
echo
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
