#!/usr/bin/env bash
# scripts/test-real.sh KAFKA_VERSION...
# Runs the tests with build tag real against each version of Apache Kafka in turn: start, test, stop, also
# when a test fails or the run is interrupted. With KAFKA_BROKERS set it starts nothing and tests those.
# A server that this machine cannot run fails the run when CI=true and is listed at the end otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly kafka_packages=(./transport/kafka)
readonly unavailable=69 # exit code of scripts/kafka.sh
running=""
missing=()

cleanup() {
  [[ -z $running ]] || scripts/kafka.sh stop "$running"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

test_kafka() {
  go test -race -count=1 -timeout 5m -tags real -run '^TestReal' -v "${kafka_packages[@]}"
}

if [[ -n ${KAFKA_BROKERS:-} ]]; then
  echo "test-real: Kafka at $KAFKA_BROKERS"
  test_kafka
  exit
fi

for version in "$@"; do
  echo "test-real: Kafka $version"
  running=$version
  code=0
  brokers=$(scripts/kafka.sh start "$version") || code=$?
  if [[ $code -eq $unavailable && ${CI:-} != true ]]; then
    missing+=("Kafka $version")
    running=""
    continue
  fi
  [[ $code -eq 0 ]] || exit "$code"
  KAFKA_BROKERS=$brokers test_kafka || {
    code=$?
    echo "test-real: FAILED on Kafka $version; broker logs in .cache/kafka/run/$version" >&2
    exit "$code"
  }
  scripts/kafka.sh stop "$version"
  running=""
done

for server in "${missing[@]}"; do
  echo "test-real: NOT TESTED: $server could not be started, see above" >&2
done
