#!/usr/bin/env bash
# A Redis Cluster of six nodes on loopback, three masters and three replicas, for the tests against real
# servers.
#
#   scripts/redis-cluster.sh start         the last line of output is HOST:PORT,... of all nodes
#   scripts/redis-cluster.sh crash PORT    kills the node at PORT with SIGKILL; if it is a master, its
#                                          replica takes over after cluster-node-timeout, a minute here, so
#                                          that a machine that stands still moves no master; a test that
#                                          wants it shortens that
#   scripts/redis-cluster.sh resume PORT   starts it again, with its files
#   scripts/redis-cluster.sh move FROM TO SLOTS   moves so many slots from one node's port to another's
#   scripts/redis-cluster.sh stop          ends the servers and removes their data; the logs stay
#
# Needs Redis 7. State and logs: .cache/redis/cluster.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
readonly root run=$root/.cache/redis/cluster
readonly masters=3
shopt -s nullglob
source "$root/scripts/redis-common.sh"

start() {
  local i nodes=()
  begin
  choose_ports $((2 * masters)) 17379 # and each 10,000 higher, for the cluster's bus
  for i in "${!ports[@]}"; do
    launch "$run/node$((i + 1))" "${ports[$i]}" --cluster-enabled yes --cluster-node-timeout 60000 \
      --appendonly yes --appendfsync everysec --save "" --maxmemory-policy noeviction --repl-diskless-sync-delay 0
    nodes+=("$loopback:${ports[$i]}")
  done
  redis-cli --cluster create "${nodes[@]}" --cluster-replicas 1 --cluster-yes >"$run/create.log" 2>&1 ||
    { tail -n 20 "$run/create.log" >&2 && stop && die 1 "the cluster could not be made"; }
  await
  (IFS=, && echo "${nodes[*]}")
}

# await waits until every node takes commands and every master has a replica in step. A failover before that
# would lose writes, or not happen.
await() {
  local dir port tries state replicas
  for ((tries = 0; tries < 1200; tries++)); do
    replicas=0
    for dir in "$run"/node*; do
      port=$(cat "$dir/port")
      state=$(redis-cli -h $loopback -p "$port" cluster info | tr -d '\r' | sed -n 's/^cluster_state://p')
      [[ $state == ok ]] || break
      [[ $(redis-cli -h $loopback -p "$port" info replication) != *master_link_status:up* ]] || replicas=$((replicas + 1))
    done
    [[ $state == ok && $replicas -eq $masters ]] && return
    sleep 0.1
  done
  stop
  die 1 "the cluster did not get ready within 2 minutes"
}

id_of() { # id_of PORT
  redis-cli -h $loopback -p "$1" cluster myid
}

# move tries again, since on a busy machine the cluster can be down for a moment, and then a slot is left
# half way.
move() { # move FROM TO SLOTS
  local tries
  for ((tries = 0; tries < 3; tries++)); do
    redis-cli --cluster reshard "$loopback:$1" --cluster-from "$(id_of "$1")" --cluster-to "$(id_of "$2")" \
      --cluster-slots "$3" --cluster-yes >"$run/move.log" 2>&1 && return
    await
    redis-cli --cluster fix "$loopback:$1" >"$run/fix.log" 2>&1 || true
  done
  tail -n 20 "$run/move.log" >&2
  die 1 "$3 slots could not be moved from $1 to $2"
}

case "$#-${1:-}" in
1-start) start ;;
2-crash)
  dir=$(of "$2")
  end "$dir" KILL
  ;;
2-resume)
  dir=$(of "$2")
  resume "$dir"
  ;;
4-move) move "$2" "$3" "$4" ;;
1-stop) stop ;;
*) die 2 "usage: scripts/redis-cluster.sh start | crash PORT | resume PORT | move FROM TO SLOTS | stop" ;;
esac
