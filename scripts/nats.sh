#!/usr/bin/env bash
# nats-server with JetStream on loopback, for the tests against real servers. It syncs each message to disk
# before it confirms it.
#
#   scripts/nats.sh start VERSION   the last line of output is its URL, once it takes connections
#   scripts/nats.sh crash           kills it with SIGKILL and starts it again, with its port and its files
#   scripts/nats.sh stop            ends what start began and removes its data; the log stays
#
# The server is compiled once per version into .cache/bin, from the Go module; state and log live in
# .cache/nats/run. Needs Go, and the module proxy for a version not compiled before.
# Exit codes: 0 done, 1 failure, 2 usage, 69 this machine lacks what the server needs.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
readonly root run=$root/.cache/nats/run
readonly unavailable=69 # EX_UNAVAILABLE of sysexits.h

die() { # die CODE MESSAGE
  echo "nats.sh: $2" >&2
  exit "$1"
}

compile() { # compile VERSION: sets binary
  binary=$root/.cache/bin/nats-server-v$1
  [[ -x $binary ]] && return
  command -v go >/dev/null || die $unavailable "go not found: install Go to compile nats-server $1"
  echo "nats-server $1: compiling it" >&2
  GOBIN=$root/.cache/bin/new go install "github.com/nats-io/nats-server/v2@v$1" ||
    die $unavailable "go could not install nats-server $1: see above; check the version and the network"
  mv "$root/.cache/bin/new/nats-server" "$binary"
}

listening() { # listening PORT
  (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# choose_port sets port to the first free one from 14222 upward, which is below the range that the kernel
# gives to outgoing connections.
choose_port() {
  port=14222
  while listening $port; do
    port=$((port + 1))
    [[ $port -lt 15000 ]] || die 1 "no free port between 14222 and 14999"
  done
}

# running tells whether the server lives. A pid alone could be another process by now.
running() {
  [[ -f $run/pid ]] && ps -ww -o args= -p "$(cat "$run/pid")" 2>/dev/null | grep -qF "$run/nats.conf"
}

launch() { # starts what the file command says, and waits until it takes connections
  local command tries
  mapfile -t command <"$run/command"
  nohup "${command[@]}" >>"$run/server.log" 2>&1 </dev/null &
  echo $! >"$run/pid"
  for ((tries = 0; tries < 300; tries++)); do
    kill -0 "$(cat "$run/pid")" 2>/dev/null || break
    listening "$(cat "$run/port")" && return
    sleep 0.1
  done
  tail -n 20 "$run/server.log" >&2
  stop
  die 1 "nats-server ended while starting, or did not start within 30 s; its log is $run/server.log"
}

start() { # start VERSION
  running && die 1 "nats-server already runs: scripts/nats.sh stop"
  compile "$1"
  rm -rf "$run"
  mkdir -p "$run"
  choose_port
  echo "$port" >"$run/port"
  cat >"$run/nats.conf" <<END
listen: "127.0.0.1:$port"
jetstream { store_dir: "$run/data", sync_interval: always }
END
  printf '%s\n' "$binary" --config "$run/nats.conf" >"$run/command"
  launch
  echo "nats://127.0.0.1:$port"
}

end() { # end SIGNAL: and wait until it is gone
  local tries
  running || return 0
  kill "-$1" "$(cat "$run/pid")"
  for ((tries = 0; tries < 200; tries++)); do
    running || return 0
    sleep 0.1
  done
  kill -KILL "$(cat "$run/pid")"
}

crash() {
  running || die 1 "no nats-server runs: scripts/nats.sh start VERSION"
  end KILL
  launch
}

stop() {
  end TERM
  rm -rf "$run/data" "$run/pid" "$run/port" "$run/command" "$run/nats.conf"
}

case "$#-${1:-}" in
2-start)
  [[ $2 =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || die 2 "version \"$2\" is not like 2.15.2"
  start "$2"
  ;;
1-crash) crash ;;
1-stop) stop ;;
*) die 2 "usage: scripts/nats.sh start VERSION | crash | stop" ;;
esac
