#!/bin/sh
# `make up` and `make down`: Kafka, EventStoreDB and Redis for this checkout, and the environment that points Throughline at
# them, in .cache/servers/env (mode 0600: the master key is in it):  . .cache/servers/env && infra/throughline.cjs serve
#   infra/stack.sh up       with Docker Compose where an engine answers; else Kafka and Redis as processes of this machine,
#                           and no EventStoreDB (none can be installed by package): SQLite stands in for it
#   infra/stack.sh down     stops exactly what `up` started; data stays, unless CLEAN=1
# Either may be said twice.
set -u
cd "$(dirname "$0")/.." || exit 1
root=$PWD
state=$root/.cache/servers
topic=throughline.events
say() { echo "$*" >&2; }
fail() { say "up: $*"; exit 1; }

# ---- processes of ours -------------------------------------------------------------------------------------------------
# A process id alone may be somebody else's by now: with it stands the instant at which that process was started, and its
# command must name our folder.

started_at() {
  if [ -r "/proc/$1/stat" ]; then sed 's/.*) //' "/proc/$1/stat" | cut -d' ' -f20; else ps -o lstart= -p "$1" 2>/dev/null; fi
}

# Prints the process id of a server that `up` started and that still runs; fails when there is none.
running() {
  [ -s "$state/$1.pid" ] || return 1
  { read -r pid; read -r then; } <"$state/$1.pid"
  kill -0 "$pid" 2>/dev/null && [ "$(started_at "$pid")" = "$then" ] || return 1
  case "$(ps -o args= -p "$pid" 2>/dev/null)" in *"$state/$1"*) echo "$pid" ;; *) return 1 ;; esac
}

# start NAME COMMAND…: in the background, in a session of its own, so that Ctrl-C at the terminal is none of its business.
start() {
  name=$1; shift
  mkdir -p "$state/$name"
  if command -v setsid >/dev/null 2>&1; then setsid "$@" >>"$state/$name.log" 2>&1 </dev/null & else nohup "$@" >>"$state/$name.log" 2>&1 </dev/null & fi
  pid=$!
  printf '%s\n%s\n' "$pid" "$(started_at "$pid")" >"$state/$name.pid"
}

stop() {
  if pid=$(running "$1"); then
    kill "$pid"
    waited=0
    # A broker writes its logs out; a minute is its own limit for that.
    while running "$1" >/dev/null && [ "$waited" -lt 600 ]; do sleep 0.1; waited=$((waited + 1)); done
    if running "$1" >/dev/null; then kill -9 "$pid"; say "down: $1 ($pid) did not stop within a minute and was killed"; else say "down: $1 ($pid) stopped"; fi
  fi
  rm -f "$state/$1.pid"
}

# The wanted port where it is free on 127.0.0.1, else any that is.
free_port() {
  sh infra/node.sh -e '
    const { createServer } = require("node:net");
    const listen = (port, otherwise) => { const s = createServer(); s.once("error", otherwise); s.listen(port, "127.0.0.1", () => { const { port } = s.address(); s.close(() => console.log(port)); }); };
    listen(Number(process.argv[1]), () => listen(0, (fault) => { throw fault; }));' "$1"
}

# ---- as processes ------------------------------------------------------------------------------------------------------

# Ports are kept from one `up` to the next, so that what was pointed at them finds them again.
port_of() {
  kept=$(sed -n "s/^$1=//p" "$state/ports" 2>/dev/null)
  port=$(free_port "${kept:-$2}")
  { grep -v "^$1=" "$state/ports" 2>/dev/null; echo "$1=$port"; } >"$state/ports.new" && mv "$state/ports.new" "$state/ports"
  echo "$port"
}
kept_port() { sed -n "s/^$1=//p" "$state/ports" 2>/dev/null; }

start_kafka() {
  if pid=$(running kafka); then say "up: Kafka runs ($pid) on 127.0.0.1:$(kept_port kafka)"; return 0; fi
  sh infra/servers.sh install kafka || fail "Kafka cannot be run here"
  port=$(port_of kafka 9092); controller=$(port_of controller 9093)
  [ "$port" != "$controller" ] || controller=$(port_of controller 0)
  mkdir -p "$state/kafka"
  cat >"$state/kafka/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$state/kafka/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
PROPERTIES
  if [ ! -f "$state/kafka/data/meta.properties" ]; then
    java -cp ".cache/kafka/libs/*" kafka.tools.StorageTool format -t dGhyb3VnaGxpbmUtZGV2MQ -c "$state/kafka/server.properties" >>"$state/kafka.log" 2>&1 || fail "Kafka's storage could not be formatted: see $state/kafka.log"
  fi
  start kafka java -Xms256m -Xmx768m -cp "$root/.cache/kafka/libs/*" kafka.Kafka "$state/kafka/server.properties"
  say "up: Kafka started ($pid) on 127.0.0.1:$port"
}

start_redis() {
  if pid=$(running redis); then say "up: Redis runs ($pid) on 127.0.0.1:$(kept_port redis)"; return 0; fi
  sh infra/servers.sh install redis || fail "Redis cannot be run here"
  port=$(port_of redis 6379)
  mkdir -p "$state/redis"
  # Redis writes its title over its arguments; the configuration file stands in neither. The title keeps what is asked for.
  start redis redis-server --port "$port" --bind 127.0.0.1 --dir "$state/redis" --appendonly yes --appendfsync everysec --save '' --maxmemory-policy noeviction --proc-title-template "redis-server $state/redis {listen-addr}"
  waited=0
  until [ "$(redis-cli -h 127.0.0.1 -p "$port" ping 2>/dev/null)" = PONG ]; do
    running redis >/dev/null || [ "$waited" -lt 5 ] || fail "Redis ended at once: see $state/redis.log"
    [ "$waited" -lt 300 ] || fail "Redis does not answer on 127.0.0.1:$port: see $state/redis.log"
    sleep 0.1; waited=$((waited + 1))
  done
  say "up: Redis started ($pid) on 127.0.0.1:$port"
}

# ---- up and down -------------------------------------------------------------------------------------------------------

write_env() {
  kafka_port=$1; redis_port=$2; events=$3
  [ -s "$state/master-key" ] || (umask 077; sh infra/node.sh -p 'require("node:crypto").randomBytes(32).toString("hex")' >"$state/master-key")
  (umask 077; cat >"$state/env" <<ENV
export THROUGHLINE_SOURCE='kafka://127.0.0.1:$kafka_port/$topic'
$events
export THROUGHLINE_VIEWS='redis://127.0.0.1:$redis_port'
export THROUGHLINE_MASTER_KEY='$(cat "$state/master-key")'
ENV
  )
}

loudly_absent() {
  say ''
  say '  *************************************************************************************'
  say '  *  EventStoreDB is ABSENT: no container engine here, and none can be had by package. *'
  say '  *  SQLite stands in for it: one machine, one folder. Kafka and Redis are real.       *'
  say '  *************************************************************************************'
}

up() {
  mkdir -p "$state"
  # What runs as processes stays so until `down`, even if an engine has come up meanwhile.
  if ! running kafka >/dev/null && ! running redis >/dev/null && why=$(sh infra/servers.sh engine); then
    docker compose -f infra/compose.yaml up --detach --wait >&2 || fail "Docker Compose could not bring the servers up"
    touch "$state/compose"
    kafka_port=${KAFKA_PORT:-9092}; redis_port=${REDIS_PORT:-6379}
    write_env "$kafka_port" "$redis_port" "export THROUGHLINE_EVENTS='esdb://127.0.0.1:${EVENTSTOREDB_PORT:-2113}?tls=false'"
  else
    say "up: as processes of this machine (${why:-they run already})"
    start_kafka
    start_redis
    kafka_port=$(kept_port kafka); redis_port=$(kept_port redis)
    write_env "$kafka_port" "$redis_port" "export THROUGHLINE_DATA='$state/events'"
    loudly_absent
  fi
  sh infra/node.sh infra/topics.cjs "127.0.0.1:$kafka_port" "$topic" || fail "the topics could not be made"
  say ''
  say "up: ready. Topic $topic. To use them:  . .cache/servers/env && infra/throughline.cjs serve"
}

down() {
  if [ ! -e "$state/compose" ] && ! running kafka >/dev/null && ! running redis >/dev/null; then say 'down: nothing is up'; fi
  if [ -e "$state/compose" ]; then
    if [ "${CLEAN:-}" = 1 ]; then docker compose -f infra/compose.yaml down --volumes >&2 || exit 1; else docker compose -f infra/compose.yaml down >&2 || exit 1; fi
    rm -f "$state/compose"
  fi
  [ -d "$state" ] || return 0
  stop kafka
  stop redis
  if [ "${CLEAN:-}" = 1 ]; then rm -rf "$state"; say 'down: data removed'; fi
}

case "${1:-}" in
  up) up ;;
  down) down ;;
  *) say 'usage: infra/stack.sh up | down'; exit 2 ;;
esac
