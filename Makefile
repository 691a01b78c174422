# Two commands: `make demo` shows the whole line working, `make test` proves it. Both set up what they need.
.PHONY: setup demo test lint bench clean

setup: node_modules/.setup

node_modules/.setup: package.json package-lock.json
	@sh infra/setup.sh

# The example day and the real captures through a fresh `serve`; DEMO_EXIT=1 ends it after printing.
demo: setup
	@node infra/throughline.cjs demo

# Types, lint, architecture, unit, contract and end-to-end tests; ends with `N passed, N failed`.
test: setup
	@sh infra/test.sh

lint: setup
	@sh infra/node.sh node_modules/typescript/bin/tsc -p . && sh infra/node.sh node_modules/eslint/bin/eslint.js .

# Our figures beside the raw parts they stand on, in one run; writes bench.json.
bench: setup
	@sh infra/node.sh test/bench/bench.ts

clean:
	rm -rf node_modules bench.json
