#!/usr/bin/env bash
# Makes the data of messages from clients here again: docs/benchmarks/upstream.sh FOLDER
# Needs two CPUs with nothing else on them, Java and Maven. Gateway on 0, generator and endpoint on 1, the broker wherever the
# kernel puts it: with two CPUs it is in everybody's way. Takes about two minutes.
set -eu
cd "$(dirname "$0")/../.."
cargo build --release --quiet --locked -p gateway -p bench -p xtask
out=${1:?usage: docs/benchmarks/upstream.sh FOLDER}
mkdir -p "$out"
work=$(mktemp -d)
bin=target/release
server=''
finish() {
  [ -z "$server" ] || kill "$server" 2> /dev/null || true
  "$bin/xtask" kafka down > /dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT
broker=$("$bin/xtask" kafka up)
"$bin/xtask" kafka topic jobs 1 > /dev/null
"$bin/xtask" kafka topic upstream 4 > /dev/null
endpoint=127.0.0.1:$((20000 + RANDOM % 10000))

# start kafka|http: the gateway on CPU 0
start() {
  {
    echo 'connections_max = 2000'
    printf '[[listener]]\nbind = "127.0.0.1:0"\ntransport = "tcp"\nlogin = "open"\n'
    printf '[api]\nbind = "127.0.0.1:0"\nauth = "none"\n[upstream]\nmessages_per_second_max = 0\n'
    if [ "$1" = kafka ]; then
      printf 'kafka_topic = "upstream"\n[kafka]\nbrokers = ["%s"]\ntopic = "jobs"\n' "$broker"
    else
      printf 'url = "http://%s/"\n' "$endpoint"
    fi
  } > "$work/halley.toml"
  taskset -c 0 "$bin/halley" --config "$work/halley.toml" 2> "$work/halley.log" &
  server=$!
  until grep -q '"event":"ready"' "$work/halley.log"; do sleep 0.05; done
  tcp=$(grep '"event":"ready"' "$work/halley.log" | sed 's/.*"transport":"tcp","address":"\([^"]*\)".*/\1/; s/.*"address":"\([^"]*\)","transport":"tcp".*/\1/')
}
stop() { kill "$server"; wait "$server" || true; server=''; }

# bench NAME FLAGS…: 1,000 clients, 100 messages each
bench() {
  local name=$1
  shift
  "$bin/halley-bench" upstream --target "tcp://$tcp" --connections 1000 --messages 100 --cpus 1 --server-pid "$server" \
    --json "$out/$name.json" "$@" > "$work/$name.txt" 2>&1 || { echo "$name: exit $?"; cat "$work/$name.txt"; }
}

for n in 1 2 3; do
  start kafka
  bench "kafka-$n" --kafka "$broker/upstream" --at-a-time 4
  bench "kafka-one-at-a-time-$n" --kafka "$broker/upstream" --at-a-time 1
  stop
  start http
  bench "http-$n" --endpoint "$endpoint" --at-a-time 4
  bench "http-one-at-a-time-$n" --endpoint "$endpoint" --at-a-time 1
  stop
done
