# Two commands: `make demo` shows the whole line working, `make test` proves it. Both set up what they need.
.PHONY: setup demo demo-servers up down test test-servers faults chaos mutants lint bench bench-search bench-servers clean

setup: node_modules/.setup

node_modules/.setup: package.json package-lock.json
	@sh infra/setup.sh

# The example day and the real captures through a fresh `serve`; DEMO_EXIT=1 ends it after printing.
demo: setup
	@node infra/throughline.cjs demo

# Kafka, EventStoreDB and Redis: by Docker Compose where an engine is there, else Kafka and Redis as processes of this machine.
# Said twice, it finds them running. `make down` stops exactly what it started; CLEAN=1 removes their data too.
up: setup
	@sh infra/stack.sh up
down:
	@sh infra/stack.sh down

# `make demo` on those servers: the example day and the real captures from a topic of Kafka. DEMO_EXIT=1 ends it after printing.
demo-servers: setup
	@sh infra/demo-servers.sh

# Types, lint, architecture, unit, contract and end-to-end tests, on every server that can be started here; ends with
# `N passed, N failed`. REQUIRE=kafka,redis,schemathesis fails where one is absent.
test: setup
	@sh infra/test.sh

# The end-to-end tests on real servers with 100,000 events (make test takes fewer); SEED=… repeats a run.
test-servers: setup
	@sh infra/servers-test.sh load
# Every fault: kill -9, freezes and a bad network, each under load; make test takes two of them by seed. SEED=… repeats a run.
faults: setup
	@sh infra/servers-test.sh faults

# What make test runs a little of, at length: 200,000 simulated schedules, 100 kill rounds on each set-up under load (none begun later
# than CHAOS_SECONDS), the whole fuzz, ten times the load that it can take. One summary line each; SEED=… repeats.
chaos: setup
	@sh infra/chaos.sh
# Faults planted in copies of the code, one after the other: the simulation has to find each.
mutants: setup
	@sh infra/node.sh infra/mutants.mjs

lint: setup
	@sh infra/node.sh infra/check.mjs

# Our figures beside the raw parts they stand on, in one run; writes bench.json.
bench: setup
	@sh infra/node.sh test/bench/bench.ts
# Searches over a million journeys on SQLite and on Redis beside PostgreSQL, where it is installed; writes bench-search.json.
bench-search: setup
	@sh infra/node.sh test/bench/search-peer.ts
# The line on Kafka, EventStoreDB (a double) and Redis beside the raw parts it stands on, in one run; writes bench-servers.json.
bench-servers: setup
	@sh infra/node.sh test/bench/servers.ts

clean: down
	rm -rf node_modules bench.json bench-search.json bench-servers.json
