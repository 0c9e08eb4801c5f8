#!/usr/bin/env bash
# Makes the data of data/2026-11-27-drain again: docs/benchmarks/drain.sh FOLDER
# A drain of 10,000 clients whose sockets the next process has too, with and without a window, and reloads under load.
# Needs python3, which plays the service manager, and two idle CPUs: gateways on 0, the generator on 1.
set -eu
cd "$(dirname "$0")/../.."
out=${1:?usage: docs/benchmarks/drain.sh FOLDER}
halley=${HALLEY:-target/release/halley} bench=${BENCH:-target/release/halley-bench}
mkdir -p "$out"
work=$(mktemp -d)
ws=14102 api=14111
holder=
trap '[ -z "$holder" ] || kill "$holder" 2> /dev/null || true; rm -r "$work"' EXIT

# configuration KEYS: the gateway's file, with these keys at its top
configuration() {
  cat > "$work/halley.toml" <<TOML
$1
connections_max = 15000
shards = 1
[api]
bind = "127.0.0.1:$api"
auth = "none"
[[listener]]
bind = "127.0.0.1:$ws"
transport = "ws"
login = "open"
TOML
}

# start KEYS: the holder of the sockets and a first gateway; the gateway's process id is the last line of $work/pids
start() {
  configuration "$1"
  taskset -c 0 docs/benchmarks/handover.py "$halley" "$work/halley.toml" "127.0.0.1:$ws" "127.0.0.1:$api" \
    > "$work/pids" 2> "$work/log" &
  holder=$!
  until [ -s "$work/pids" ] && curl -fs "http://127.0.0.1:$api/readyz" > /dev/null; do sleep 0.1; done
}
stop() { kill "$holder"; wait "$holder" || true; holder=; }

clients=(--target "ws://127.0.0.1:$ws/sub" --push "http://127.0.0.1:$api" --cpus 1)

# drain NAME KEYS: 10,000 clients, and what becomes of them when the first gateway drains
drain() {
  start "$2"
  local next="kill -USR1 $holder; until [ \$(wc -l < $work/pids) -ge 2 ]; do sleep 0.02; done"
  "$bench" storm "${clients[@]}" --connections 10000 --backoff 0.05 --restart-cmd "$next" --json "$out/$1.json"
  stop
}

drain at-once-1 'drain_window_ms = 0'
drain spread-1 'drain_window_ms = 20000'
drain told-1 'drain_window_ms = 20000
drain_ms_max = 3000'

# Twenty reloads while 5,000 clients get 10 messages a second.
start ''
(
  sleep 5
  for n in $(seq 20); do
    configuration "drain_window_ms = $n"
    echo "login_ms_max = $((5000 + n))" >> "$work/halley.toml"
    "$halley" reload --api "http://127.0.0.1:$api"
    sleep 0.4
  done > "$work/reloads"
) &
"$bench" broadcast "${clients[@]}" --connections 5000 --rate 10 --duration 15 --json "$out/reload-1.json"
wait $!
test "$(grep -c login_ms_max "$work/reloads")" -eq 20
stop
