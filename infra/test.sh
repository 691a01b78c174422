#!/bin/sh
# Types and lint beside the tests; ends with one line, `N passed, N failed`. Types and lint count as one test each.
cd "$(dirname "$0")/.." || exit 1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# What Node compiled is kept: every worker and every program that a test starts begins the sooner.
export NODE_COMPILE_CACHE="$PWD/node_modules/.cache/compile"
node24() { sh infra/node.sh "$@"; }

{ node24 node_modules/typescript/bin/tsc -p . >"$out/types" 2>&1; echo $? >"$out/types.rc"; node24 node_modules/eslint/bin/eslint.js . >"$out/lint" 2>&1; echo $? >"$out/lint.rc"; } &
node24 --experimental-vm-modules --disable-warning=ExperimentalWarning node_modules/jest/bin/jest.js --maxWorkers=2 --json --outputFile="$out/jest.json" "$@"
wait

passed=0; failed=0
for check in types lint; do
  if [ "$(cat "$out/$check.rc")" = 0 ]; then passed=$((passed + 1)); echo "$check: ok"; else failed=$((failed + 1)); echo "$check: FAILED"; cat "$out/$check"; fi
done
if [ -s "$out/jest.json" ]; then
  counts=$(node24 -p "const r = JSON.parse(require('fs').readFileSync('$out/jest.json')); const broken = r.testResults.filter((t) => t.status === 'failed' && t.assertionResults.length === 0).length; [r.numPassedTests, r.numFailedTests + broken, r.numPendingTests].join(' ')")
  set -- $counts
  passed=$((passed + $1)); failed=$((failed + $2))
  [ "$3" = 0 ] || echo "$3 skipped (each says why in its name)"
else
  failed=$((failed + 1)); echo "the tests did not finish"
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
