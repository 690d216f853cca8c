#!/usr/bin/env bash
# Redis on loopback, for the tests against real servers.
#
#   scripts/redis.sh start single     one server; the last line of output is its HOST:PORT
#   scripts/redis.sh start sentinel   a master, a replica and three Sentinels, quorum 2, which call the master
#                                     "main"; the last line is the Sentinels' HOST:PORT,HOST:PORT,HOST:PORT.
#                                     They wait for a minute before they fail over, so that a machine that
#                                     stands still moves no master; a test that wants it tells them otherwise
#   scripts/redis.sh crash PORT       kills the server at PORT with SIGKILL
#   scripts/redis.sh resume PORT      starts it again, with its files
#   scripts/redis.sh stop             ends the servers and removes their data; the logs stay
#
# The servers sync their append-only file at every write. Needs Redis 7. State and logs: .cache/redis/run.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
readonly root run=$root/.cache/redis/run
shopt -s nullglob
source "$root/scripts/redis-common.sh"

readonly durable=(--appendonly yes --appendfsync always --save "" --maxmemory-policy noeviction --repl-diskless-sync-delay 0)

start_single() {
  choose_ports 1 16379
  launch "$run/single" "${ports[0]}" "${durable[@]}"
  echo "$loopback:${ports[0]}"
}

start_sentinel() {
  local i config
  choose_ports 5 16379
  launch "$run/master" "${ports[0]}" "${durable[@]}"
  launch "$run/replica" "${ports[1]}" "${durable[@]}" --replicaof $loopback "${ports[0]}"
  for i in 2 3 4; do
    config=$run/sentinel$((i - 1))/sentinel.conf
    mkdir -p "${config%/*}"
    cat >"$config" <<CONF
sentinel monitor main $loopback ${ports[0]} 2
sentinel down-after-milliseconds main 60000
sentinel failover-timeout main 5000
CONF
    launch "${config%/*}" "${ports[$i]}" "$config" --sentinel
  done
  await_sentinels "${ports[@]:2}"
  echo "$loopback:${ports[2]},$loopback:${ports[3]},$loopback:${ports[4]}"
}

# await_sentinels waits until each Sentinel knows the replica and the two others: before, they could not
# fail over.
await_sentinels() { # await_sentinels PORT...
  local port tries known
  for port in "$@"; do
    for ((tries = 0; tries < 1200; tries++)); do
      known=$(redis-cli -h $loopback -p "$port" sentinel master main | tr '\n' ' ')
      [[ $known == *"num-slaves 1 num-other-sentinels 2"* ]] && break
      sleep 0.1
    done
    [[ $tries -lt 1200 ]] || { stop && die 1 "the Sentinels did not find each other within 2 minutes"; }
  done
}

case "$#-${1:-}" in
2-start)
  [[ $2 == single || $2 == sentinel ]] || die 2 "start what? single or sentinel"
  begin
  "start_$2"
  ;;
2-crash)
  dir=$(of "$2")
  end "$dir" KILL
  ;;
2-resume)
  dir=$(of "$2")
  resume "$dir"
  ;;
1-stop) stop ;;
*) die 2 "usage: scripts/redis.sh start single|sentinel | crash PORT | resume PORT | stop" ;;
esac
