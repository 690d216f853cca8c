#!/usr/bin/env bash
# scripts/budget.sh NAME MINUTES COMMAND...
# Runs the command, prints the time it took beside its budget, and ends with its exit code. Going over
# is said, not failed: a slow machine is no defect.
set -uo pipefail

name=$1 minutes=$2
shift 2

echo "$name: budget ${minutes}m"
SECONDS=0
"$@"
code=$?
took=$SECONDS

over=""
[[ $took -le $((minutes * 60)) ]] || over=", OVER BUDGET"
result="passed"
[[ $code -eq 0 ]] || result="FAILED with exit code $code"
echo "$name: $result in $((took / 60))m$((took % 60))s of ${minutes}m$over"
exit $code
