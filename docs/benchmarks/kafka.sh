#!/usr/bin/env bash
# Makes the Kafka data of a folder here again: docs/benchmarks/kafka.sh FOLDER
# Needs two CPUs with nothing else on them, Java and Maven. Gateway on 0, generator on 1, the broker wherever the kernel puts
# it: with two CPUs it is in everybody's way. Takes about three minutes.
set -eu
cd "$(dirname "$0")/../.."
cargo build --release --quiet --locked -p gateway -p bench -p xtask
out=${1:?usage: docs/benchmarks/kafka.sh FOLDER}
mkdir -p "$out"
work=$(mktemp -d)
bin=target/release
server='' broker=''
finish() {
  [ -z "$server" ] || kill "$server" 2> /dev/null || true
  "$bin/xtask" kafka down > /dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT
broker=$("$bin/xtask" kafka up)
"$bin/xtask" kafka topic bench 4 > /dev/null

# start [kafka]: the gateway on CPU 0
start() {
  {
    echo 'connections_max = 12000'
    for transport in tcp ws; do
      printf '[[listener]]\nbind = "127.0.0.1:0"\ntransport = "%s"\nlogin = "open"\n' "$transport"
    done
    printf '[api]\nbind = "127.0.0.1:0"\nauth = "none"\n'
    [ "${1:-}" != kafka ] || printf '[kafka]\nbrokers = ["%s"]\ntopic = "bench"\n' "$broker"
  } > "$work/halley.toml"
  taskset -c 0 "$bin/halley" --config "$work/halley.toml" 2> "$work/halley.log" &
  server=$!
  until grep -q '"event":"ready"' "$work/halley.log"; do sleep 0.05; done
  [ "${1:-}" != kafka ] || until grep -q '"state":"consuming"' "$work/halley.log"; do sleep 0.05; done
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

# The same load straight and through Kafka: 10 rooms of 100 clients, 200 messages a second.
for n in 1 2 3; do
  start; bench rooms "direct-latency-$n" "http://$api" --connections 1000 --rate 20 --duration 4 --warmup 1; stop
  start kafka; bench rooms "kafka-latency-$n" "$kafka" --connections 1000 --rate 20 --duration 4 --warmup 1; stop
done

# goim's case: 40 messages a second into one room of 10,000.
start; bench broadcast direct-10000x40-1 "http://$api" --connections 10000 --rate 40 --duration 10 --warmup 2; stop
start kafka; bench broadcast kafka-10000x40-1 "$kafka" --connections 10000 --rate 40 --duration 10 --warmup 2; stop

# Jobs a second of one source thread: a room for each of 1,000 clients.
for rate in 20 60; do
  start kafka
  bench rooms "kafka-jobs-$((rate * 1000))-1" "$kafka" --connections 1000 --subscribers-per-room 1 --rate "$rate" --duration 5 --warmup 1
  awk -v t="$(getconf CLK_TCK)" '{ name = $2; print name, ($14 + $15) / t " s" }' /proc/"$server"/task/*/stat > "$out/kafka-jobs-$((rate * 1000))-threads.txt"
  stop
done

# Other rooms alone, and while a room of 500 gets ten times what it can take.
start kafka
bench rooms pressure-alone-1 "$kafka" --connections 500 --subscribers-per-room 50 --rate 10 --duration 8 --warmup 1
"$bin/halley-bench" broadcast --target "tcp://$tcp" --push "$kafka" --cpus 1 --connections 500 --room flood --rate "${FLOOD:-5000}" \
  --payload-bytes 1024 --duration 14 --warmup 0 --grace 1 --json "$out/pressure-flood-1.json" > "$work/flood.txt" 2>&1 &
flood=$!
sleep 4
bench rooms pressure-beside-1 "$kafka" --connections 500 --subscribers-per-room 50 --rate 10 --duration 8 --warmup 1
wait "$flood" || true
stop
