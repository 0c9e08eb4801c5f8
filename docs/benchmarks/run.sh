#!/usr/bin/env bash
# Makes the data of a folder here again: [RUNS=3] [LENGTH=60] docs/benchmarks/run.sh FOLDER
# RUNS is how often each case is measured, LENGTH its seconds. Needs two idle CPUs: the gateway on 0, the
# generator on 1. Takes about half an hour.
set -eu
cd "$(dirname "$0")/../.."
out=${1:?usage: docs/benchmarks/run.sh FOLDER}
length=${LENGTH:-60}
mkdir -p "$out"
cargo build --release --locked -p gateway -p bench
tcp=13101 ws=13102 api=13111
server=

# start SHARDS: the gateway on CPU 0; its process id in $server
start() {
  cat > "$out/halley.toml" <<TOML
connections_max = 19000
shards = $1
[[listener]]
bind = "127.0.0.1:$tcp"
transport = "tcp"
login = "open"
[[listener]]
bind = "127.0.0.1:$ws"
transport = "ws"
login = "open"
[api]
bind = "127.0.0.1:$api"
auth = "none"
TOML
  taskset -c 0 target/release/halley --config "$out/halley.toml" 2> "$out/halley.log" &
  server=$!
  until curl -fs "http://127.0.0.1:$api/readyz" > /dev/null; do sleep 0.1; done
}
stop() { kill "$server"; wait "$server" || true; }
trap '[ -z "$server" ] || kill "$server" 2> /dev/null || true' EXIT

clients=(--target "tcp://127.0.0.1:$tcp" --target "ws://127.0.0.1:$ws/sub" --cpus 1)

# broadcast NAME ARGUMENTS: one run against a fresh gateway of $shards shards
shards=1
broadcast() {
  local name=$1
  shift
  start "$shards"
  target/release/halley-bench broadcast "${clients[@]}" --push "http://127.0.0.1:$api" \
    --metrics "http://127.0.0.1:$api" --server-pid "$server" --server-cpus 0 --json "$out/$name.json" "$@" || true
  stop
}

for run in $(seq "${RUNS:-3}"); do
  broadcast "10000x10-$run" --connections 10000 --rate 10 --duration $((length / 3)) --with-floor
  broadcast "10000x40-$run" --connections 10000 --rate 40 --duration "$length"
  broadcast "100x1-$run" --connections 100 --rate 1 --duration $((length / 2))
  broadcast "slow-none-$run" --connections 2000 --rate 50 --duration $((length / 4)) --payload-bytes 500
  broadcast "slow-1-percent-$run" --connections 2000 --rate 50 --duration $((length / 4)) --payload-bytes 500 --slow-percent 1
  for shards in 1 2 8 51; do
    broadcast "shards-$shards-$run" --connections 10000 --rate 8 --duration $((length / 5))
  done
  shards=1
  start 1
  target/release/halley-bench idle "${clients[@]}" --connections 15000 --from 5000 --server-pid "$server" \
    --json "$out/idle-$run.json" || true
  stop
done
rm -f "$out/halley.toml" "$out/halley.log"
