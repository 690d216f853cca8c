#!/usr/bin/env bash
# scripts/test-real.sh [bolt] [kafka VERSION...] [nats VERSION...] [redis single|sentinel|cluster...]
# Runs the tests with build tag real: bolt against this machine's disk, processes and clock, the others
# against each version or kind of each server in turn: start, test, stop, also when a test fails or the run
# is interrupted. With KAFKA_BROKERS set, or NATS_URL, it starts no server of that kind and tests those. A
# server that this machine cannot run fails the run when CI=true and is listed at the end otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly kafka_packages=(./transport/kafka)
readonly nats_packages=(./transport/nats)
readonly redis_packages=(./store/redis ./cmd/dedup-relay)
readonly unavailable=69 # exit code of the scripts that start servers
running=()              # the command that stops it
missing=()
passed=() # what the README's table of versions says

cleanup() {
  [[ ${#running[@]} -eq 0 ]] || "${running[@]}"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

go_test() { # go_test [FLAG...] PACKAGE...
  go test -race -count=1 -timeout 15m -tags real -run '^TestReal' -v "$@"
}

# start_server runs a script's start and sets address to the last word of it; it fails if the machine lacks
# what the server needs, and that may be.
start_server() { # start_server NAME COMMAND...
  local name=$1 code=0
  shift
  address=$("$@") || code=$?
  if [[ $code -eq $unavailable && ${CI:-} != true ]]; then
    missing+=("$name")
    running=()
    return 1
  fi
  [[ $code -eq 0 ]] || exit "$code"
}

failed() { # failed CODE NAME LOGS
  echo "test-real: FAILED on $2; logs in $3" >&2
  exit "$1"
}

# Members that come and go take a minute, for which other tests of Kafka need not wait: hence -parallel.
test_kafka() { # test_kafka VERSION
  echo "test-real: Kafka $1"
  running=(scripts/kafka.sh stop "$1")
  start_server "Kafka $1" scripts/kafka.sh start "$1" 3 || return 0
  KAFKA_BROKERS=$address KAFKA_NODE="$PWD/scripts/kafka.sh node $1" KAFKA_SECURITY=$PWD/.cache/kafka/run/$1/security go_test -parallel 4 "${kafka_packages[@]}" || failed $? "Kafka $1" ".cache/kafka/run/$1"
  passed+=("Kafka $1")
  "${running[@]}"
  running=()
}

# The tests for a cluster, which their names begin with, come after the others.
test_nats() { # test_nats VERSION
  local nodes only
  for nodes in 1 3; do
    echo "test-real: nats-server $1, $nodes of it"
    [[ $nodes -eq 1 ]] && only=(-skip '^TestRealCluster') || only=(-run '^TestRealCluster')
    running=(scripts/nats.sh stop)
    start_server "nats-server $1" scripts/nats.sh start "$1" $nodes || return 0
    NATS_URL=$address NATS_CRASH="$PWD/scripts/nats.sh crash" go_test "${only[@]}" "${nats_packages[@]}" ||
      failed $? "nats-server $1" .cache/nats/run
    "${running[@]}"
    running=()
  done
  passed+=("nats-server $1")
}

# Some tests of Redis are for one kind of servers only, which their names begin with. One package at a time:
# the memory of the server is measured.
test_redis() { # test_redis single|sentinel|cluster
  local name="Redis ($1)" script=scripts/redis.sh start=(scripts/redis.sh start "$1") environment skip
  case $1 in
  single) environment="REDIS_URL=redis://%s/0" skip='^TestReal(Sentinel|Cluster)' ;;
  sentinel) environment="REDIS_SENTINELS=%s" skip='^TestReal(Single|Cluster|ACL|Footprint)' ;;
  cluster)
    script=scripts/redis-cluster.sh start=(scripts/redis-cluster.sh start)
    environment="REDIS_CLUSTER=%s" skip='^TestReal(Single|Sentinel)'
    ;;
  *) echo "test-real: $1 is no kind of Redis: single, sentinel or cluster" >&2 && exit 2 ;;
  esac
  echo "test-real: $name"
  running=("$script" stop)
  start_server "$name" "${start[@]}" || return 0
  # shellcheck disable=SC2059 # the format is ours
  env "$(printf "$environment" "$address")" REDIS_SCRIPT="$PWD/$script" \
    go test -p 1 -race -count=1 -timeout 8m -tags real -run '^TestReal' -skip "$skip" -v "${redis_packages[@]}" ||
    failed $? "$name" .cache/redis
  "${running[@]}"
  running=()
}

kind="" own=""
for word in "$@"; do
  case $word in
  bolt)
    kind=""
    echo "test-real: store/bolt"
    go_test ./store/bolt
    ;;
  kafka)
    kind=kafka own=${KAFKA_BROKERS:-}
    [[ -z $own ]] || { echo "test-real: Kafka at $own" && go_test "${kafka_packages[@]}"; }
    ;;
  nats)
    kind=nats own=${NATS_URL:-}
    [[ -z $own ]] || { echo "test-real: NATS at $own" && go_test -skip '^TestRealCluster' "${nats_packages[@]}"; }
    ;;
  redis) kind=redis own="" ;;
  *)
    [[ -n $kind ]] || { echo "test-real: version $word of what? kafka, nats or redis comes first" >&2 && exit 2; }
    [[ -n $own ]] || "test_$kind" "$word"
    ;;
  esac
done

for server in "${passed[@]}"; do
  echo "test-real: passed: $server" >&2
done
for server in "${missing[@]}"; do
  echo "test-real: NOT TESTED: $server could not be started, see above" >&2
done
