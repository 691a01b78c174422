#!/bin/sh
# The servers that tests and `make up` run as local processes where there is no container engine, and what else tests run.
#   infra/servers.sh install kafka|redis|schemathesis|all    quick and silent when it is there already
#   infra/servers.sh have    kafka|redis|schemathesis        one line why not, and exit 1, when it is not
#   infra/servers.sh engine                                  exit 0 where Docker Compose and an engine answer; else one line why not
# Kafka: the broker's jars from Maven Central in .cache/kafka/libs (43 MB). Redis: the distribution's package. Schemathesis: from
# PyPI, in an environment of its own in .cache/schemathesis. What cannot be had here is said in one line, and exit is 1; nothing
# else on the machine is touched.
set -u
cd "$(dirname "$0")/.." || exit 1

KAFKA_VERSION=4.1.1
KAFKA_LIBS=.cache/kafka/libs
# Kafka 4 brokers need Java 17; Redis 7 brought what the view store's script calls rest on.
JAVA_MIN=17
REDIS_MIN=7
# Given up after so many seconds, so that a machine without the registries is told of it, not kept waiting.
INSTALL_SECONDS=240

say() { echo "servers: $*" >&2; }
within() { if command -v timeout >/dev/null 2>&1; then timeout "$INSTALL_SECONDS" "$@"; else "$@"; fi; }

java_major() { java -version 2>&1 | sed -n '1s/.*"\(1\.\)\{0,1\}\([0-9][0-9]*\).*/\2/p'; }
redis_major() { redis-server --version 2>/dev/null | sed -n 's/.*v=\([0-9][0-9]*\)\..*/\1/p'; }

java_lacks() {
  command -v java >/dev/null 2>&1 || { echo "kafka: no java on the PATH (Java $JAVA_MIN or later is needed)"; return 0; }
  major=$(java_major)
  [ "${major:-0}" -ge "$JAVA_MIN" ] || { echo "kafka: Java ${major:-of an unknown version} is too old ($JAVA_MIN or later is needed)"; return 0; }
  return 1
}

have_kafka() {
  if why=$(java_lacks); then echo "$why"; return 1; fi
  [ "$(cat "$KAFKA_LIBS/.version" 2>/dev/null)" = "$KAFKA_VERSION" ] || { echo "kafka: the broker's jars are not installed (infra/servers.sh install kafka)"; return 1; }
}

have_redis() {
  command -v redis-server >/dev/null 2>&1 || { echo "redis: no redis-server on the PATH (infra/servers.sh install redis)"; return 1; }
  major=$(redis_major)
  [ "${major:-0}" -ge "$REDIS_MIN" ] || { echo "redis: redis-server ${major:-of an unknown version} is too old ($REDIS_MIN or later is needed)"; return 1; }
}

engine() {
  command -v docker >/dev/null 2>&1 || { echo "no docker on the PATH"; return 1; }
  docker compose version >/dev/null 2>&1 || { echo "docker has no compose plugin"; return 1; }
  docker info >/dev/null 2>&1 || { echo "docker's engine does not answer"; return 1; }
}

# The jars go to a folder of their own first, and take their place in one step: an install cut short leaves nothing behind.
install_kafka() {
  have_kafka >/dev/null && return 0
  if why=$(java_lacks); then say "$why"; return 1; fi
  command -v mvn >/dev/null 2>&1 || { say "kafka: no mvn on the PATH to fetch the broker's jars with"; return 1; }
  mkdir -p .cache/kafka
  fresh=$(mktemp -d .cache/kafka/fresh.XXXXXX)
  cat >"$fresh/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>throughline</groupId><artifactId>broker</artifactId><version>1</version>
  <dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$KAFKA_VERSION</version></dependency></dependencies>
</project>
POM
  if ! within mvn -q -B -f "$fresh/pom.xml" dependency:copy-dependencies -DoutputDirectory="$PWD/$fresh/libs" -DincludeScope=runtime >"$fresh/log" 2>&1 </dev/null; then
    say "kafka: Maven could not fetch the broker's jars: $(grep -m1 ERROR "$fresh/log" || tail -n1 "$fresh/log")"
    rm -rf "$fresh"
    return 1
  fi
  echo "$KAFKA_VERSION" >"$fresh/libs/.version"
  # Two installs at once fetch the same jars; whoever comes second leaves those in place that are there.
  if ! have_kafka >/dev/null; then rm -rf "$KAFKA_LIBS"; mv "$fresh/libs" "$KAFKA_LIBS"; fi
  rm -rf "$fresh"
  have_kafka >/dev/null
}

install_redis() {
  have_redis >/dev/null && return 0
  command -v apt-get >/dev/null 2>&1 || { say "$(have_redis); no apt-get here: install Redis $REDIS_MIN or later"; return 1; }
  [ "$(id -u)" = 0 ] || { say "$(have_redis); not root: install it by hand (apt-get install redis-server)"; return 1; }
  log=$(mktemp)
  # The package would start a server of its own; policy-rc.d is left as it is, since none starts without an init.
  if ! { within apt-get update && DEBIAN_FRONTEND=noninteractive within apt-get install -y --no-install-recommends redis-server; } >"$log" 2>&1 </dev/null; then
    say "redis: apt-get could not install redis-server: $(grep -m1 '^E:' "$log" || tail -n1 "$log")"
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
  have_redis || return 1
}

SCHEMATHESIS=.cache/schemathesis

have_schemathesis() {
  [ -f "$SCHEMATHESIS/.installed" ] && cmp -s "$SCHEMATHESIS/.installed" infra/schemathesis.txt || { echo "schemathesis: not installed (infra/servers.sh install schemathesis)"; return 1; }
}

# Made beside its place under another name it would not run: scripts of an environment hold its path. The mark is written last.
install_schemathesis() {
  have_schemathesis >/dev/null && return 0
  python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 || { say "schemathesis: no python3 of version 3.10 or later with venv on the PATH"; return 1; }
  rm -rf "$SCHEMATHESIS"
  log=$(mktemp)
  if ! { within python3 -m venv "$SCHEMATHESIS" && within "$SCHEMATHESIS/bin/pip" install --quiet --disable-pip-version-check --no-deps -r infra/schemathesis.txt; } >"$log" 2>&1 </dev/null; then
    say "schemathesis: pip could not install it: $(grep -m1 ERROR "$log" || tail -n1 "$log")"
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
  cp infra/schemathesis.txt "$SCHEMATHESIS/.installed"
}

case "${1:-} ${2:-}" in
  'install kafka') install_kafka ;;
  'install redis') install_redis ;;
  'install schemathesis') install_schemathesis ;;
  'install all') missing=0; for one in kafka redis schemathesis; do "install_$one" || missing=1; done; [ "$missing" = 0 ] ;;
  'have kafka') have_kafka ;;
  'have redis') have_redis ;;
  'have schemathesis') have_schemathesis ;;
  'engine ') engine ;;
  *) echo "usage: infra/servers.sh install kafka|redis|schemathesis|all | have kafka|redis|schemathesis | engine" >&2; exit 2 ;;
esac
