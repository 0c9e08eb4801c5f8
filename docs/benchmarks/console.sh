#!/usr/bin/env bash
# The console's calls on 200,000 connections, and what they do to deliveries: docs/benchmarks/console.sh FOLDER
# Every view is asked for once a second, as the page does while it is open. Needs curl, jq, and two idle CPUs: gateway on 0, generator
# and curl on 1; takes about six minutes, a third of it with RUNS=1.
set -eu
cd "$(dirname "$0")/../.."
out=${1:?usage: docs/benchmarks/console.sh FOLDER}
halley=${HALLEY:-target/release/halley} bench=${BENCH:-target/release/halley-bench}
mkdir -p "$out"
work=$(mktemp -d)
server='' asker=''
trap 'kill $server $asker 2> /dev/null || true; rm -r "$work"' EXIT
cat > "$work/halley.toml" <<'TOML'
connections_max = 220000
shards = 13
[[listener]]
bind = "127.0.0.1:0"
transport = "tcp"
login = "open"
[api]
bind = "127.0.0.1:0"
auth = "none"
TOML

# One line for each view: the view, seconds, status.
ask() {
  local key
  sleep 25 # the clients are in
  key=$(curl -s "$api/v1/members/7" | jq -r '.keys[0].key')
  while :; do
    taskset -c 1 curl -s -o /dev/null -w '%{url_effective} %{time_total} %{http_code}\n' "$api/console" -o /dev/null "$api/v1/stats" \
      -o /dev/null "$api/v1/rooms?limit=100" -o /dev/null "$api/v1/members/7" -o /dev/null "$api/v1/connections/$key" -o /dev/null "$api/v1/nodes"
    sleep 1
  done
}

for n in $(seq "${RUNS:-3}"); do
  for kind in alone asked; do
    taskset -c 0 "$halley" --config "$work/halley.toml" 2> "$work/log" &
    server=$!
    until grep -q '"event":"ready"' "$work/log"; do sleep 0.05; done
    ready=$(grep '"event":"ready"' "$work/log")
    tcp=$(jq -r '.listeners[0].address' <<< "$ready")
    api=http://$(jq -r .api <<< "$ready")
    if [ $kind = asked ]; then
      ask > "$out/views-$n.txt" &
      asker=$!
    fi
    "$bench" broadcast --cpus 1 --connections 200000 --rate 0.5 --duration 20 --warmup 1 --target "tcp://$tcp" --push "$api" \
      --metrics "$api" --server-pid "$server" --json "$out/$kind-$n.json" > "$work/$kind-$n.txt" 2>&1 || echo "$kind-$n: exit $?"
    [ -z "$asker" ] || kill "$asker"
    asker=
    kill "$server"
    wait "$server" || true
    server=
  done
done
