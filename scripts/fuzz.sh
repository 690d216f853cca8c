#!/usr/bin/env bash
# scripts/fuzz.sh FUZZTIME: runs every fuzz target for that long. go test takes one target at a time.
set -euo pipefail
cd "$(dirname "$0")/.."

grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort | while IFS=: read -r file match; do
  echo "fuzz: ${match#func } in $(dirname "$file")"
  go test -run '^$' -fuzz "^${match#func }\$" -fuzztime "$1" "$(dirname "$file")" </dev/null
done
