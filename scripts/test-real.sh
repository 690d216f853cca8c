#!/usr/bin/env bash
# scripts/test-real.sh [bolt] [kafka VERSION...] [nats VERSION...] [redis single|sentinel|cluster...]
# Runs the tests with build tag real: bolt against this machine's disk, processes and clock, the others
# against each version or kind of each server in turn. Each server is started, tested and stopped, also when a
# test fails or the run is interrupted. A failure does not stop the other parts. The failures are listed at the
# end, and the servers' logs are kept in .cache/failed. With KAFKA_BROKERS set, or NATS_URL, it starts no server of that kind and
# tests those. A server that this machine cannot run fails the run when CI=true and is listed at the end
# otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly kafka_packages=(./transport/kafka)
readonly nats_packages=(./transport/nats)
readonly redis_packages=(./store/redis ./cmd/dedup-relay)
readonly unavailable=69 # exit code of the scripts that start servers
running=()              # the command that stops it
missing=()
passed=() # names for the table of versions in docs/support.md
failed=()

readonly reports=.cache/failed
rm -rf $reports
mkdir -p $reports

end() { # prints the result, however the run ends
  local code=$? name
  [[ ${#running[@]} -eq 0 ]] || "${running[@]}" || true
  for name in "${passed[@]}"; do echo "test-real: passed: $name"; done
  for name in "${missing[@]}"; do echo "test-real: NOT TESTED: $name could not be started, see above"; done
  for name in "${failed[@]}"; do
    code=1
    echo "test-real: FAILED: $name"
    [[ ! -f $reports/$name.txt ]] || cat "$reports/$name.txt"
  done
  [[ ${#failed[@]} -lt 2 ]] || printf 'test-real: FAILED: %s\n' "${failed[@]}"
  exit "$code"
} >&2
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# go_test runs the tests of a part, and notes whether they pass.
go_test() { # go_test NAME [FLAG...] PACKAGE...
  local name=$1
  if FAILURES=$reports/$name.txt scripts/go-test.sh -race -count=1 -timeout 15m -tags real -run '^TestReal' -v "${@:2}"; then
    passed+=("$name")
  else
    failed+=("$name")
  fi
}

# start_server runs a script's start and sets address to the last word of its output. It returns an error if the
# server does not run. A machine that lacks a program for the server fails the run only when CI=true.
start_server() { # start_server NAME COMMAND...
  local name=$1 code=0
  shift
  address=$("$@") || code=$?
  [[ $code -ne 0 ]] || return 0
  running=()
  if [[ $code -eq $unavailable && ${CI:-} != true ]]; then
    missing+=("$name")
  else
    failed+=("$name, which did not start")
  fi
  return 1
}

# stop_server keeps the logs of one whose tests failed.
stop_server() { # stop_server NAME LOGS
  "${running[@]}"
  running=()
  if [[ ${failed[*]: -1} == "$1" ]]; then
    mv "$2" "$reports/$1"
  fi
}

# Members that come and go take a minute, for which other tests of Kafka need not wait: hence -parallel.
test_kafka() { # test_kafka VERSION
  local name="Kafka $1"
  echo "test-real: $name"
  running=(scripts/kafka.sh stop "$1")
  start_server "$name" scripts/kafka.sh start "$1" 3 || return 0
  KAFKA_BROKERS=$address KAFKA_NODE="$PWD/scripts/kafka.sh node $1" KAFKA_SECURITY=$PWD/.cache/kafka/run/$1/security \
    KAFKA_JARS=$PWD/.cache/kafka/$1 \
    go_test "$name" -parallel 4 "${kafka_packages[@]}"
  stop_server "$name" ".cache/kafka/run/$1"
}

# The tests for a cluster, which their names begin with, come after the others.
test_nats() { # test_nats VERSION
  local nodes only name
  for nodes in 1 3; do
    name="nats-server $1, $nodes of it"
    echo "test-real: $name"
    [[ $nodes -eq 1 ]] && only=(-skip '^TestRealCluster') || only=(-run '^TestRealCluster')
    running=(scripts/nats.sh stop)
    start_server "$name" scripts/nats.sh start "$1" $nodes || continue
    NATS_URL=$address NATS_CRASH="$PWD/scripts/nats.sh crash" go_test "$name" "${only[@]}" "${nats_packages[@]}"
    stop_server "$name" .cache/nats/run
  done
}

# Some tests of Redis are for one kind of servers only, which their names begin with. One package at a time:
# the memory of the server is measured.
test_redis() { # test_redis single|sentinel|cluster
  local name="Redis ($1)" script=scripts/redis.sh start=(scripts/redis.sh start "$1") logs=.cache/redis/run environment skip
  case $1 in
  single) environment="REDIS_URL=redis://%s/0" skip='^TestReal(Sentinel|Cluster)' ;;
  sentinel) environment="REDIS_SENTINELS=%s" skip='^TestReal(Single|Cluster|ACL|Footprint)' ;;
  cluster)
    script=scripts/redis-cluster.sh start=(scripts/redis-cluster.sh start) logs=.cache/redis/cluster
    environment="REDIS_CLUSTER=%s" skip='^TestReal(Single|Sentinel)'
    ;;
  *) echo "test-real: $1 is no kind of Redis: single, sentinel or cluster" >&2 && exit 2 ;;
  esac
  echo "test-real: $name"
  running=("$script" stop)
  start_server "$name" "${start[@]}" || return 0
  # shellcheck disable=SC2059 # the format is ours
  export "$(printf "$environment" "$address")" REDIS_SCRIPT="$PWD/$script"
  go_test "$name" -p 1 -skip "$skip" "${redis_packages[@]}"
  unset REDIS_URL REDIS_SENTINELS REDIS_CLUSTER REDIS_SCRIPT
  stop_server "$name" "$logs"
}

kind="" own=""
for word in "$@"; do
  case $word in
  bolt)
    kind=""
    echo "test-real: store/bolt"
    go_test bolt ./store/bolt
    ;;
  kafka)
    kind=kafka own=${KAFKA_BROKERS:-}
    [[ -z $own ]] || { echo "test-real: Kafka at $own" && go_test "Kafka at $own" "${kafka_packages[@]}"; }
    ;;
  nats)
    kind=nats own=${NATS_URL:-}
    [[ -z $own ]] || { echo "test-real: NATS at $own" && go_test "NATS at $own" -skip '^TestRealCluster' "${nats_packages[@]}"; }
    ;;
  redis) kind=redis own="" ;;
  *)
    [[ -n $kind ]] || { echo "test-real: version $word of what? kafka, nats or redis comes first" >&2 && exit 2; }
    [[ -n $own ]] || "test_$kind" "$word"
    ;;
  esac
done
