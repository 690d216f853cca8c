#!/usr/bin/env bash
# scripts/test-real.sh [bolt] [kafka VERSION...] [nats VERSION...]
# Runs the tests with build tag real: bolt against this machine's disk, processes and clock, the others
# against each version of each server in turn: start, test, stop, also when a test fails or the run is
# interrupted. With KAFKA_BROKERS set, or NATS_URL, it starts no server of that kind and tests those. A
# server that this machine cannot run fails the run when CI=true and is listed at the end otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly kafka_packages=(./transport/kafka)
readonly nats_packages=(./transport/nats)
readonly unavailable=69 # exit code of scripts/kafka.sh and scripts/nats.sh
running=()              # the command that stops it
missing=()

cleanup() {
  [[ ${#running[@]} -eq 0 ]] || "${running[@]}"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

go_test() { # go_test PACKAGE...
  go test -race -count=1 -timeout 8m -tags real -run '^TestReal' -v "$@"
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

test_kafka() { # test_kafka VERSION
  echo "test-real: Kafka $1"
  running=(scripts/kafka.sh stop "$1")
  start_server "Kafka $1" scripts/kafka.sh start "$1" || return 0
  KAFKA_BROKERS=$address KAFKA_SECURITY=$PWD/.cache/kafka/run/$1/security go_test "${kafka_packages[@]}" || failed $? "Kafka $1" ".cache/kafka/run/$1"
  "${running[@]}"
  running=()
}

test_nats() { # test_nats VERSION
  echo "test-real: nats-server $1"
  running=(scripts/nats.sh stop)
  start_server "nats-server $1" scripts/nats.sh start "$1" || return 0
  NATS_URL=$address NATS_CRASH="$PWD/scripts/nats.sh crash" go_test "${nats_packages[@]}" ||
    failed $? "nats-server $1" .cache/nats/run
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
    [[ -z $own ]] || { echo "test-real: NATS at $own" && go_test "${nats_packages[@]}"; }
    ;;
  *)
    [[ -n $kind ]] || { echo "test-real: version $word of what? kafka or nats comes first" >&2 && exit 2; }
    [[ -n $own ]] || "test_$kind" "$word"
    ;;
  esac
done

for server in "${missing[@]}"; do
  echo "test-real: NOT TESTED: $server could not be started, see above" >&2
done
