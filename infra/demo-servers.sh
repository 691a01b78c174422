#!/bin/sh
# `make demo-servers`: `make demo` on the servers that `make up` starts. The example day and the real captures are published on a
# topic, `serve` reads it, and the same questions are answered from Redis. DEMO_EXIT=1 ends it after printing; the servers go
# on running (`make down`).
set -u
cd "$(dirname "$0")/.." || exit 1
sh infra/stack.sh up || exit 1
. .cache/servers/env
# A topic of the demo's own: what it publishes is nobody else's.
broker=${THROUGHLINE_SOURCE#kafka://}; broker=${broker%%/*}
sh infra/node.sh infra/topics.cjs "$broker" throughline.demo || exit 1
export THROUGHLINE_SOURCE="kafka://$broker/throughline.demo?group=demo"
prefix=
if [ -z "${THROUGHLINE_EVENTS:-}" ]; then
  # SQLite stands in, in a folder that lasts as long as the demo: its views are nobody's afterwards, and go with it.
  unset THROUGHLINE_DATA
  prefix=demo-$$-$(date +%s)
  redis=${THROUGHLINE_VIEWS#redis://}
  # Keys hold bytes that no shell passes on: they are found and dropped where they are.
  forget() {
    redis-cli -h "${redis%%:*}" -p "${redis##*:}" eval "
      local at = '0'
      repeat
        local found = redis.call('SCAN', at, 'MATCH', ARGV[1], 'COUNT', 1000)
        at = found[1]
        for _, key in ipairs(found[2]) do redis.call('UNLINK', key) end
      until at == '0'" 0 "*$prefix*" >/dev/null
  }
  export THROUGHLINE_VIEWS="$THROUGHLINE_VIEWS/0?prefix=$prefix&shards=1"
fi
# Ctrl-C is the demo's to end on; this script waits for it and then tidies up.
trap : INT
node infra/throughline.cjs demo
code=$?
[ -z "$prefix" ] || forget
[ -z "$prefix" ] || echo "(EventStoreDB was ABSENT: the events of this demo stood in SQLite; Kafka and Redis were real.)" >&2
exit "$code"
