#!/usr/bin/env bash
# Apache Kafka on loopback, for the tests against real servers.
#
#   scripts/kafka.sh start VERSION [NODES]   1 node (default) or 3; the last line of output is the
#                                            broker list, once every node takes requests
#   scripts/kafka.sh stop  VERSION           ends the brokers and removes their data; logs stay
#   scripts/kafka.sh node  VERSION down|up|pause|resume N
#                                            kills node N, or starts it again with its data; stops its
#                                            process where it is (SIGSTOP), or lets it go on
#
# Beside those plaintext listeners each node has three that are secured. .cache/kafka/run/VERSION/security
# has the first node's addresses in the file listeners, and certificates and keys for a client, in PEM:
#
#   SASL_SSL   TLS, and the user billing by SCRAM-SHA-256, SCRAM-SHA-512 or PLAIN; file password
#   MTLS       TLS that wants a client's certificate
#   EXPIRED    TLS with a certificate that was valid until yesterday
#
# The jars come from Maven Central once per version into .cache/kafka/VERSION; state and logs live in
# .cache/kafka/run/VERSION. Needs Go, Java 17, and Maven for a version not fetched before.
# Exit codes: 0 done, 1 failure, 2 usage, 69 this machine lacks a program that a broker needs.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
readonly maven_plugin=org.apache.maven.plugins:maven-dependency-plugin:3.8.1
readonly cluster_id=b25jZXF1ZXVlLXRlc3RzMQ # any base64 UUID: all nodes of a cluster share it
readonly unavailable=69                    # EX_UNAVAILABLE of sysexits.h

die() { # die CODE MESSAGE
  echo "kafka.sh: $2" >&2
  exit "$1"
}

need_java() {
  local major
  command -v java >/dev/null ||
    die $unavailable "java not found: install Java 17 (Debian: openjdk-17-jre-headless)"
  major=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
  [[ ${major:-0} -ge 17 ]] || die $unavailable "java is version ${major:-unknown}: Kafka 4 needs 17 or newer"
}

fetch_jars() {
  [[ -d $jars ]] && return
  command -v mvn >/dev/null ||
    die $unavailable "mvn not found: install Maven (Debian: maven) to fetch Kafka $version"
  echo "kafka $version: fetching its jars, about 45 MB" >&2
  rm -rf "$jars.part"
  # noreset: else Maven ends with a terminal escape, terminal or not.
  MAVEN_OPTS="${MAVEN_OPTS:-} -Djansi.noreset=true" \
    mvn --batch-mode --quiet --no-transfer-progress --file "$root/scripts/kafka/pom.xml" \
    -Dkafka.version="$version" "$maven_plugin:copy-dependencies" \
    -DoutputDirectory="$jars.part" -DincludeScope=runtime >&2 ||
    die $unavailable "Maven could not fetch Kafka $version: see above; check the version and the network"
  mv "$jars.part" "$jars"
}

listening() { # listening PORT
  (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# choose_ports sets ports to two per node, broker then controller, and those of the secured listeners: free
# ones from 19092 upward, which is below the range that the kernel gives to outgoing connections.
choose_ports() {
  local port=19092
  ports=()
  while [[ ${#ports[@]} -lt $(((2 + ${#secured[@]}) * nodes)) ]]; do
    listening $port || ports+=("$port")
    port=$((port + 1))
    [[ $port -lt 20000 ]] || die 1 "no free port between 19092 and 19999"
  done
}

# secured_listeners NODE lists them, name and address
secured_listeners() {
  local i n=${#secured[@]}
  for ((i = 0; i < n; i++)); do
    echo "${secured[i]} 127.0.0.1:${ports[2 * nodes + n * ($1 - 1) + i]}"
  done
}

# secure makes the certificates, and lists the secured listeners.
secure() {
  command -v go >/dev/null || die $unavailable "go not found: install Go to make certificates"
  mkdir -p "$security"
  (cd "$root" && go run ./scripts/kafka/certificates "$security")
  echo s3cret >"$security/password"
  secured_listeners 1 >"$security/listeners"
}

configure() { # configure NODE: writes its server.properties
  local node=$1 voters="" i copies=$nodes listeners="" name address
  for ((i = 1; i <= nodes; i++)); do
    voters+="${voters:+,}$i@127.0.0.1:${ports[2 * i - 1]}"
  done
  while read -r name address; do listeners+=",$name://$address"; done < <(secured_listeners "$node")
  mkdir -p "$run/node$node"
  cat >"$run/node$node/server.properties" <<EOF
process.roles=broker,controller
node.id=$node
controller.quorum.voters=$voters
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:${ports[2 * node - 2]},CONTROLLER://127.0.0.1:${ports[2 * node - 1]}$listeners
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,MTLS:SSL,EXPIRED:SSL
inter.broker.listener.name=PLAINTEXT
log.dirs=$run/node$node/data
default.replication.factor=$copies
min.insync.replicas=$(((copies + 1) / 2))
offsets.topic.replication.factor=$copies
transaction.state.log.replication.factor=$copies
transaction.state.log.min.isr=$(((copies + 1) / 2))
# The defaults, 50 partitions each and 128 MB for the cleaner, only slow a test's broker down.
offsets.topic.num.partitions=5
transaction.state.log.num.partitions=5
log.cleaner.dedupe.buffer.size=8388608
# A misspelt topic is an error in a test, and a group's first member does not wait for a second.
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
ssl.keystore.type=PEM
ssl.keystore.location=$security/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=$security/ca.pem
listener.name.mtls.ssl.client.auth=required
listener.name.expired.ssl.keystore.type=PEM
listener.name.expired.ssl.keystore.location=$security/expired.pem
sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_billing="$(cat "$security/password")";
EOF
}

format() { # format NODE: makes its storage
  local dir=$run/node$1 mechanism users=()
  for mechanism in SCRAM-SHA-256 SCRAM-SHA-512; do
    users+=(--add-scram "$mechanism=[name=billing,password=$(cat "$security/password")]")
  done
  java -Xmx64m -cp "$jars/*" kafka.tools.StorageTool format \
    --cluster-id "$cluster_id" --config "$dir/server.properties" "${users[@]}" >"$dir/format.log" 2>&1 ||
    fail "$dir/format.log" "node $1 could not format its storage"
}

launch() { # launch NODE
  local dir=$run/node$1
  nohup java -Xms128m -Xmx384m \
    -Dorg.slf4j.simpleLogger.showDateTime=true -Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS \
    -cp "$jars/*" kafka.Kafka "$dir/server.properties" >"$dir/server.log" 2>&1 </dev/null &
  echo $! >"$dir/pid"
}

# await waits for the line that a broker logs once it is unfenced and takes requests.
await() { # await NODE
  local log=$run/node$1/server.log tries
  for ((tries = 0; tries < 1800; tries++)); do
    grep -qs 'Kafka Server started' "$log" && return
    kill -0 "$(cat "$run/node$1/pid")" 2>/dev/null || fail "$log" "node $1 ended while starting"
    sleep 0.1
  done
  fail "$log" "node $1 did not start within 3 minutes"
}

fail() { # fail LOG MESSAGE: stops the nodes that were started
  tail -n 20 "$1" >&2
  stop
  die 1 "Kafka $version: $2; its log is $1"
}

# running tells whether the node of a directory lives. A pid alone could be another process by now.
running() { # running DIR
  [[ -f $1/pid ]] && ps -ww -o args= -p "$(cat "$1/pid")" 2>/dev/null | grep -qF "$1/server.properties"
}

start() {
  local dir list="" i
  for dir in "$run"/node*; do
    running "$dir" && die 1 "Kafka $version already runs: scripts/kafka.sh stop $version"
  done
  need_java
  fetch_jars
  rm -rf "$run"
  choose_ports
  secure
  for ((i = 1; i <= nodes; i++)); do configure $i; done
  for ((i = 1; i <= nodes; i++)); do format $i; done
  for ((i = 1; i <= nodes; i++)); do launch $i; done
  for ((i = 1; i <= nodes; i++)); do await $i; done
  for ((i = 1; i <= nodes; i++)); do list+="${list:+,}127.0.0.1:${ports[2 * i - 2]}"; done
  echo "$list"
}

stop() {
  local dir tries
  for dir in "$run"/node*; do
    running "$dir" && kill "$(cat "$dir/pid")" && kill -CONT "$(cat "$dir/pid")"
  done
  for dir in "$run"/node*; do
    for ((tries = 0; tries < 200; tries++)); do
      running "$dir" || break
      sleep 0.1
    done
    running "$dir" && kill -KILL "$(cat "$dir/pid")"
    rm -rf "$dir/data" "$dir/pid"
  done
}

down() { # down NODE
  local dir=$run/node$1
  running "$dir" || die 1 "node $1 of Kafka $version does not run"
  kill -KILL "$(cat "$dir/pid")"
  while running "$dir"; do sleep 0.1; done
}

up() { # up NODE
  local dir=$run/node$1
  [[ -d $dir/data ]] || die 1 "Kafka $version has no node $1"
  running "$dir" && die 1 "node $1 of Kafka $version runs already"
  mv "$dir/server.log" "$dir/server.$(date +%H%M%S).log"
  launch "$1"
}

pause() { # pause NODE
  kill -STOP "$(cat "$run/node$1/pid")"
}

resume() { # resume NODE
  kill -CONT "$(cat "$run/node$1/pid")"
}

usage() {
  die 2 "usage: scripts/kafka.sh start VERSION [1|3] | stop VERSION | node VERSION down|up|pause|resume N"
}

[[ $# -ge 2 ]] || usage
version=$2
nodes=1
case $1 in
start) [[ $# -le 3 ]] || usage && nodes=${3:-1} ;;
stop) [[ $# -eq 2 ]] || usage ;;
node) [[ $# -eq 4 && $3 =~ ^(down|up|pause|resume)$ ]] || usage ;;
*) usage ;;
esac
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || die 2 "version \"$version\" is not like 4.0.0"
[[ $nodes == 1 || $nodes == 3 ]] || die 2 "$nodes nodes: start 1 or 3"
jars=$root/.cache/kafka/$version
run=$root/.cache/kafka/run/$version
security=$run/security
secured=(SASL_SSL MTLS EXPIRED)
shopt -s nullglob
mkdir -p "$root/.cache/kafka"

case $1 in
node) "$3" "$4" ;;
*) "$1" ;;
esac
