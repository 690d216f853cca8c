#!/usr/bin/env bash
# scripts/soak.sh [PART...]
# Runs the long counts of the tests with build tag real, and make mutants, all parts or those named, one after the other. Each
# part prints its budget and its time, and is ended after twice its budget. A part that fails does not stop the
# others; the script fails at the end. A part that this machine cannot run is skipped with a line, unless
# CI=true. The power cuts need root, Linux, e2fsprogs and xfsprogs.
set -uo pipefail
cd "$(dirname "$0")/.."

chosen=("$@") known=() failed=()
trap 'exit 130' INT

part() { # part NAME MINUTES PACKAGE TESTS [VARIABLE=VALUE...]; with RACE= without the race detector
  local name=$1 minutes=$2 package=$3 tests=$4
  shift 4
  known+=("$name")
  [[ ${#chosen[@]} -eq 0 || " ${chosen[*]} " == *" $name "* ]] || return 0
  local race=(-race)
  [[ " $* " != *" RACE= "* ]] || race=()
  scripts/budget.sh "soak: $name" "$minutes" env "$@" \
    go test ${race[@]+"${race[@]}"} -count=1 -timeout "$((2 * minutes))m" -tags real -run "^($tests)\$" -v "$package" || failed+=("$name")
}

part bolt-power-cut-ext4 12 ./store/bolt 'TestRealPowerCut|TestRealPowerCutWithoutSync' BOLTSTORE_POWER_CUTS=1000
part bolt-power-cut-xfs 12 ./store/bolt 'TestRealPowerCut|TestRealPowerCutWithoutSync' BOLTSTORE_POWER_CUTS=1000 BOLTSTORE_FILE_SYSTEM=xfs
part bolt-kill 12 ./store/bolt TestRealKill BOLTSTORE_KILLS=2000
part bolt-stop 5 ./store/bolt TestRealStop BOLTSTORE_STOPS=300
part bolt-clock 8 ./store/bolt TestRealClockJumps BOLTSTORE_CLOCKS=500
part bolt-corruption 20 ./store/bolt TestRealCorruption BOLTSTORE_CORRUPTIONS=50000 RACE=

known+=(mutants)
if [[ ${#chosen[@]} -eq 0 || " ${chosen[*]} " == *" mutants "* ]]; then
  make mutants || failed+=(mutants)
fi

for name in "${chosen[@]}"; do
  [[ " ${known[*]} " == *" $name "* ]] || { echo "soak: no part $name: there are ${known[*]}" >&2 && exit 2; }
done
[[ ${#failed[@]} -eq 0 ]] || { echo "soak: FAILED: ${failed[*]}" >&2 && exit 1; }
