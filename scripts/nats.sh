#!/usr/bin/env bash
# nats-server with JetStream on loopback, for the tests against real servers. It syncs each message to disk
# before it confirms it.
#
#   scripts/nats.sh start VERSION [NODES]  the last line of output is the URL, once it takes connections; with
#                                          NODES, of a cluster of so many, named n0, n1 and so on
#   scripts/nats.sh crash [NODE]           kills n0, or that one, with SIGKILL and starts it again, with its port and its files
#   scripts/nats.sh stop                   ends the servers and removes their data; the logs stay
#
# The server is compiled once per version into .cache/bin, from the Go module; state and log live in
# .cache/nats/run. Needs Go, and the module proxy for a version not compiled before.
# Exit codes: 0 done, 1 failure, 2 usage, 69 this machine lacks a program that the server needs.
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

# choose_port sets port to the next free one from 14222 upward, which is below the range that the kernel
# gives to outgoing connections.
port=14221
choose_port() {
  while ((++port < 15000)); do
    listening $port || return 0
  done
  die 1 "no free port between 14222 and 14999"
}

# running tells whether the node lives. A pid alone could be another process by now.
running() { # running NODE
  [[ -f $run/$1/pid ]] && ps -ww -o args= -p "$(cat "$run/$1/pid")" 2>/dev/null | grep -qF "$run/$1/nats.conf"
}

launch() { # launch NODE: runs the command in its file, and waits until the server takes connections
  local node=$run/$1 command tries
  mapfile -t command <"$node/command"
  nohup "${command[@]}" >>"$node/server.log" 2>&1 </dev/null &
  echo $! >"$node/pid"
  for ((tries = 0; tries < 1200; tries++)); do
    kill -0 "$(cat "$node/pid")" 2>/dev/null || break
    listening "$(cat "$node/port")" && return
    sleep 0.1
  done
  tail -n 20 "$node/server.log" >&2
  stop
  die 1 "nats-server ended while starting, or did not start within 2 minutes; its log is $node/server.log"
}

start() { # start VERSION NODES
  local i node routes="" urls=()
  for node in "$run"/n*; do
    running "${node##*/}" && die 1 "nats-server already runs: scripts/nats.sh stop"
  done
  compile "$1"
  rm -rf "$run"
  for ((i = 0; i < $2; i++)); do
    mkdir -p "$run/n$i"
    choose_port
    echo $port >"$run/n$i/port"
    urls+=("nats://127.0.0.1:$port")
    choose_port
    echo $port >"$run/n$i/route"
    routes+="${routes:+, }\"nats://127.0.0.1:$port\""
  done
  for ((i = 0; i < $2; i++)); do
    node=$run/n$i
    cat >"$node/nats.conf" <<END
server_name: n$i
listen: "127.0.0.1:$(cat "$node/port")"
jetstream { store_dir: "$node/data", sync_interval: always }
END
    [[ $2 -eq 1 ]] || echo "cluster { name: c, listen: \"127.0.0.1:$(cat "$node/route")\", routes: [$routes] }" >>"$node/nats.conf"
    printf '%s\n' "$binary" --config "$node/nats.conf" >"$node/command"
    launch "n$i"
  done
  (IFS=, && echo "${urls[*]}")
}

end() { # end NODE SIGNAL: and wait until it is gone
  local tries
  running "$1" || return 0
  kill "-$2" "$(cat "$run/$1/pid")"
  for ((tries = 0; tries < 200; tries++)); do
    running "$1" || return 0
    sleep 0.1
  done
  kill -KILL "$(cat "$run/$1/pid")"
}

crash() { # crash NODE
  running "$1" || die 1 "no nats-server $1 runs: scripts/nats.sh start VERSION"
  end "$1" KILL
  launch "$1"
}

stop() {
  local node
  for node in "$run"/n*; do
    end "${node##*/}" TERM
    rm -rf "$node"/{data,pid,port,route,command,nats.conf}
  done
}

case "$#-${1:-}" in
2-start | 3-start)
  [[ $2 =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || die 2 "version \"$2\" is not like 2.15.2"
  [[ ${3:-1} =~ ^[1-9]$ ]] || die 2 "$3 is no number of nodes from 1 to 9"
  start "$2" "${3:-1}"
  ;;
1-crash | 2-crash) crash "${2:-n0}" ;;
1-stop) stop ;;
*) die 2 "usage: scripts/nats.sh start VERSION [NODES] | crash [NODE] | stop" ;;
esac
