# The functions that scripts/redis.sh and scripts/redis-cluster.sh share; sourced, not run. Each server has a directory
# of its own under $run: its data, redis.log, pid, and the command that starts it.
# Exit codes: 0 done, 1 failure, 2 usage, 69 this machine lacks a program that a server needs.
# shellcheck shell=bash

readonly unavailable=69 # EX_UNAVAILABLE of sysexits.h
readonly loopback=127.0.0.1

die() { # die CODE MESSAGE
  echo "${0##*/}: $2" >&2
  exit "$1"
}

need_redis() {
  local major
  command -v redis-server >/dev/null || die $unavailable "redis-server not found: install Redis 7 (Debian: redis-server)"
  command -v redis-cli >/dev/null || die $unavailable "redis-cli not found: install it (Debian: redis-tools)"
  major=$(redis-server --version | sed -n 's/.* v=\([0-9]*\)\..*/\1/p')
  [[ ${major:-0} -ge 7 ]] || die $unavailable "redis-server is version ${major:-unknown}: 7 or newer is needed"
}

listening() { # listening PORT
  (: <"/dev/tcp/$loopback/$1") 2>/dev/null
}

# choose_ports sets ports to free ones, COUNT of them from FROM upward, which is below the range that the
# kernel gives to outgoing connections.
choose_ports() { # choose_ports COUNT FROM
  local port=$2
  ports=()
  while [[ ${#ports[@]} -lt $1 ]]; do
    listening "$port" || ports+=("$port")
    port=$((port + 1))
    [[ $port -lt $(($2 + 1000)) ]] || die 1 "no $1 free ports from $2 upward"
  done
}

# running tells whether the server of a directory lives. A pid alone could be another process by now: a
# server shows its port in its title.
running() { # running DIR
  [[ -f $1/pid ]] && ps -ww -o args= -p "$(cat "$1/pid")" 2>/dev/null | grep -qF ":$(cat "$1/port")"
}

launch() { # launch DIR PORT ARGUMENT...: starts a server and waits until it answers
  local dir=$1 port=$2
  mkdir -p "$dir"
  echo "$port" >"$dir/port"
  printf '%s\n' "${@:3}" --port "$port" --bind $loopback --dir "$dir" --logfile "$dir/redis.log" >"$dir/command"
  resume "$dir"
}

resume() { # resume DIR: starts a server again, with its port and its files
  local dir=$1 command port tries
  mapfile -t command <"$dir/command"
  port=$(cat "$dir/port")
  # A Sentinel must have a file to write to, which comes before the options.
  nohup redis-server "${command[@]}" >>"$dir/redis.log" 2>&1 </dev/null &
  echo $! >"$dir/pid"
  for ((tries = 0; tries < 2400; tries++)); do
    [[ $(redis-cli -h $loopback -p "$port" ping 2>/dev/null) == PONG ]] && return
    kill -0 "$(cat "$dir/pid")" 2>/dev/null || break
    sleep 0.05
  done
  tail -n 20 "$dir/redis.log" >&2
  stop
  die 1 "redis-server at port $port did not start within 2 minutes; its log is $dir/redis.log"
}

end() { # end DIR SIGNAL: and waits until it is gone
  local tries
  running "$1" || return 0
  kill "-$2" "$(cat "$1/pid")"
  for ((tries = 0; tries < 200; tries++)); do
    running "$1" || return 0
    sleep 0.05
  done
  kill -KILL "$(cat "$1/pid")"
}

# of prints the directory of the server at PORT.
of() { # of PORT
  local dir
  for dir in "$run"/*/; do
    [[ $(cat "$dir/port") != "$1" ]] || { echo "$dir" && return; }
  done
  die 1 "no server of ours is at port $1"
}

stop() { # ends all servers and removes their data; the logs stay
  local dir
  for dir in "$run"/*/; do
    running "$dir" && kill -KILL "$(cat "$dir/pid")" # their data is removed anyway
  done
  for dir in "$run"/*/; do
    end "$dir" KILL
    find "$dir" -mindepth 1 ! -name redis.log -delete
  done
}

# begin prepares a start.
begin() {
  local dir
  for dir in "$run"/*/; do
    running "$dir" && die 1 "it already runs: scripts/${0##*/} stop"
  done
  need_redis
  rm -rf "$run"
  mkdir -p "$run"
}
