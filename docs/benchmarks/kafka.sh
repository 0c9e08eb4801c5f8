#!/usr/bin/env bash
# Makes the Kafka data of a folder here again: docs/benchmarks/kafka.sh FOLDER
# Needs two CPUs with nothing else on them, Java, Maven, jq and curl. Gateway on 0, generator on 1, the broker wherever the kernel puts
# it: with two CPUs it is in everybody's way. Takes about ten minutes; ONLY=latency, goim, jobs, backlog or pressure makes one part.
set -eu
cd "$(dirname "$0")/../.."
cargo build --release --quiet --locked -p gateway -p bench -p xtask
out=${1:?usage: docs/benchmarks/kafka.sh FOLDER}
mkdir -p "$out"
work=$(mktemp -d)
bin=target/release broker_folder=target/kafka/broker
server='' broker=''
finish() {
  [ -z "$server" ] || kill "$server" 2> /dev/null || true
  "$bin/xtask" kafka down > /dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT
broker=$("$bin/xtask" kafka up)
"$bin/xtask" kafka topic bench 4 > /dev/null

# start [kafka [TOPIC START]]: the gateway on CPU 0, or on those in `cpus`, of which the first is the shard's
cpus=0
start() {
  {
    printf 'connections_max = 12000\nshards = 1\n'
    for transport in tcp ws; do
      printf '[[listener]]\nbind = "127.0.0.1:0"\ntransport = "%s"\nlogin = "open"\n' "$transport"
    done
    printf '[api]\nbind = "127.0.0.1:0"\nauth = "none"\n'
    [ "${1:-}" != kafka ] || printf '[kafka]\nbrokers = ["%s"]\ntopic = "%s"\nstart = "%s"\n' "$broker" "${2:-bench}" "${3:-latest}"
  } > "$work/halley.toml"
  taskset -c "$cpus" "$bin/halley" --config "$work/halley.toml" 2> "$work/halley.log" &
  server=$!
  until grep -q '"event":"ready"' "$work/halley.log"; do sleep 0.05; done
  [ "${1:-}${3:-}" != kafka ] || until grep -q '"state":"consuming"' "$work/halley.log"; do sleep 0.05; done
  ready=$(grep '"event":"ready"' "$work/halley.log")
  tcp=$(sed 's/.*"transport":"tcp","address":"\([^"]*\)".*/\1/; s/.*"address":"\([^"]*\)","transport":"tcp".*/\1/' <<< "$ready")
  ws=$(sed 's/.*"transport":"ws","address":"\([^"]*\)".*/\1/; s/.*"address":"\([^"]*\)","transport":"ws".*/\1/' <<< "$ready")
  api=$(sed 's/.*"api":"\([^"]*\)".*/\1/' <<< "$ready")
}
stop() { kill "$server"; wait "$server" || true; server=''; }

# bench SCENARIO NAME PUSH FLAGS…
bench() {
  local scenario=$1 name=$2 push=$3
  shift 3
  "$bin/halley-bench" "$scenario" --target "tcp://$tcp" --target "ws://$ws/sub" --push "$push" --cpus 1 \
    --metrics "http://$api" --server-pid "$server" --json "$out/$name.json" "$@" > "$work/$name.txt" 2>&1 || echo "$name: exit $?"
}
kafka="kafka://$broker/bench"
part() { [ "${ONLY:-$1}" = "$1" ]; }

# The same load straight and through Kafka: 10 rooms of 100 clients, 200 messages a second.
if part latency; then
  for n in 1 2 3; do
    start; bench rooms "direct-latency-$n" "http://$api" --connections 1000 --rate 20 --duration 4 --warmup 1; stop
    start kafka; bench rooms "kafka-latency-$n" "$kafka" --connections 1000 --rate 20 --duration 4 --warmup 1; stop
  done
fi

# goim's case: 40 messages a second into one room of 10,000.
if part goim; then
  start; bench broadcast direct-10000x40-1 "http://$api" --connections 10000 --rate 40 --duration 10 --warmup 2; stop
  start kafka; bench broadcast kafka-10000x40-1 "$kafka" --connections 10000 --rate 40 --duration 10 --warmup 2; stop
fi

# Jobs as fast as the generator makes them: a room for each of 1,000 clients.
if part jobs; then
  for rate in 20 60; do
    start kafka
    bench rooms "kafka-jobs-$((rate * 1000))-1" "$kafka" --connections 1000 --subscribers-per-room 1 --rate "$rate" --duration 5 --warmup 1
    awk -v t="$(getconf CLK_TCK)" '{ name = $2; print name, ($14 + $15) / t " s" }' /proc/"$server"/task/*/stat > "$out/kafka-jobs-$((rate * 1000))-threads.txt"
    stop
  done
fi

# Jobs a second of one source thread: a room for each of 100 clients, and a backlog of a million records to read. The
# broker is stopped until the clients are in; dispatched and sent are read four times a second.
if part backlog; then
  for n in 1 2 3; do
    topic=backlog-$n
    "$bin/xtask" kafka topic "$topic" 4 > /dev/null
    rooms=()
    for room in $(seq 0 99); do rooms+=("room:live://bench-$room"); done
    seq -w 10000 | "$bin/halley" push --lines --kafka "$broker/$topic" "${rooms[@]}"
    kill -STOP "$(cat "$broker_folder/pid")"
    start kafka "$topic" earliest
    bench rooms "backlog-clients-$n" "http://$api" --connections 100 --subscribers-per-room 1 --rate 1 --duration 25 --warmup 1 &
    clients=$!
    sleep 3
    kill -CONT "$(cat "$broker_folder/pid")"
    for _ in $(seq 80); do
      printf '%s ' "$(date +%s.%N)"
      awk -v t="$(getconf CLK_TCK)" '{ printf "%s=%s ", $2, ($14 + $15) / t }' /proc/"$server"/task/*/stat | tr -d '()'
      curl -s "http://$api/v1/stats" | jq -c '{dispatched: .kafka_source.dispatched, pauses: .kafka_source.pauses, sent: .shards[0].sent}'
      sleep 0.25
    done > "$out/backlog-$n.txt"
    # Between two readings within the backlog.
    awk '{ t = $1; sub(/.*"dispatched":/, ""); n = $0 + 0 } n > 10000 && n < 990000 { if (!first) { first = t; from = n } last = t; to = n }
      END { printf "{\"scenario\":\"backlog\",\"valid\":true,\"jobs_per_second\":%.0f}\n", (to - from) / (last - first) }' "$out/backlog-$n.txt" \
      > "$out/backlog-rate-$n.json"
    wait "$clients" || true
    stop
  done
fi

# Other rooms alone, and beside one that is flooded with records of a kilobyte:
# - slow: ten times what its clients take, 49 that read 20,480 bytes a second of 204,800;
# - jobs: 5,000 a second, for one client. What they cost Kafka, its clients and the machine, without the room;
# - busy: the same for 500 clients, which is more than they and the shard can do together.
# The shard has CPU 0 for itself, as it should; what else there is shares CPU 1, the flood's generator at idle priority.
if part pressure; then
  cpus=0,1
  taskset -acp 1 "$(cat "$broker_folder/pid")" > /dev/null
  others() {
    bench rooms "$1" "$kafka" --connections 500 --subscribers-per-room 50 --rate 10 --duration 8 --warmup 1
  }
  # beside NAME FLAGS…: the others while a flood with these flags is under way
  beside() {
    local name=$1
    shift
    chrt -i 0 "$bin/halley-bench" broadcast --target "tcp://$tcp" --push "$kafka" --cpus 1 --room flood --payload-bytes 1024 \
      --duration 18 --warmup 0 --grace 1 --json "$out/pressure-flood-$name.json" "$@" > "$work/flood-$name.txt" 2>&1 &
    local flood=$!
    sleep 7
    others "pressure-beside-$name"
    wait "$flood" || true
  }
  start kafka
  others warm-up
  rm "$out/warm-up.json"
  for n in 1 2 3; do
    others "pressure-alone-$n"
    beside "slow-$n" --connections 50 --rate 200 --slow-percent 98 --slow-bytes-per-second 20480
    beside "jobs-$n" --connections 1 --rate 5000
    beside "busy-$n" --connections 500 --rate 5000
  done
  stop
fi
