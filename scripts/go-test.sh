#!/usr/bin/env bash
# scripts/go-test.sh [FLAG...] PACKAGE...
# Runs go test. At the end it lists the tests that failed, each with its last lines, because these are hard to
# find in the whole output. With FAILURES=FILE it appends the list to the file instead.
set -uo pipefail

log=$(mktemp)
trap 'rm -f "$log"' EXIT

go test "$@" 2>&1 | tee "$log"
code=$?
[[ $code -ne 0 ]] || exit 0
[[ -z ${FAILURES:-} ]] || exec >>"$FAILURES"

# With -v, a test's lines come between "=== RUN" or "=== NAME" and "--- FAIL"; without -v, after "--- FAIL". A test
# without an end failed too, by a panic or the time limit. The last lines of a test and the first of a panic are kept.
awk -v most=100 -v panic="panic" -v nobody="outside of the tests" '
  function switch_to(name) {
    if (!(name in lines)) { lines[name] = 0; names[++n] = name }
    test = name
  }
  function package_ends(failed,  i, j) {
    for (i = 1; failed && i <= n; i++) {
      test = names[i]
      if (result[test] ~ /PASS|SKIP/ || test == nobody && !lines[test]) continue
      print "--- " (result[test] ? result[test] : "NO END:") " " test
      j = test != panic && lines[test] > most ? lines[test] - most : 0
      if (j) print "    (" j " lines before)"
      while (j < lines[test] && (j < most || test != panic)) print text[test, ++j]
    }
    if (failed) print
    split("", names); split("", lines); split("", result); split("", text)
    n = 0
    switch_to(nobody)
    result[test] = "FAIL:"
  }
  BEGIN { package_ends(0) }
  /^=== (RUN|CONT|NAME|PAUSE) / { switch_to($3); next }
  /^ *--- (PASS|SKIP|FAIL): / { switch_to($3); result[test] = $2; next }
  /^(ok|FAIL|\?) *\t/ { package_ends($1 == "FAIL"); next }
  /^(panic|fatal error): / { switch_to(panic); result[test] = "FAIL:" }
  /^(PASS|FAIL)$/ { switch_to(nobody); next }
  { text[test, ++lines[test]] = $0 }
' "$log"
exit "$code"
