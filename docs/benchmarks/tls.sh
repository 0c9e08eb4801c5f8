#!/usr/bin/env bash
# What TLS costs: docs/benchmarks/tls.sh FOLDER
# Memory of idle clients, CPU of deliveries and handshakes against plain, deliveries during a storm of handshakes, new
# certificates under 10,000 connections. Needs openssl, jq, and two idle CPUs: gateway on 0, generator on 1. About five minutes.
set -eu
cd "$(dirname "$0")/../.."
root=$(pwd)
out=$(realpath -m "${1:?usage: docs/benchmarks/tls.sh FOLDER}")
halley=$(realpath "${HALLEY:-target/release/halley}") bench=$(realpath "${BENCH:-target/release/halley-bench}")
mkdir -p "$out"
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2> /dev/null || true; rm -r "$work"' EXIT
cd "$work"

certificate() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout key.pem -out chain.pem 2> /dev/null
}
certificate
cat > halley.toml <<'TOML'
connections_max = 16000
shards = 1
[api]
bind = "127.0.0.1:0"
auth = "none"
TOML
for tls in '' 'tls = { certificates = [{ certificate = "chain.pem", key = "key.pem" }] }'; do
  for transport in tcp ws; do
    printf '[[listener]]\nbind = "127.0.0.1:0"\ntransport = "%s"\nlogin = "open"\n%s\n' "$transport" "$tls" >> halley.toml
  done
done

declare -A target
start() {
  taskset -c 0 "$halley" --config halley.toml 2> log &
  server=$!
  until grep -q '"event":"ready"' log; do sleep 0.05; done
  local ready
  ready=$(grep '"event":"ready"' log)
  address() { jq -r ".listeners[$1].address" <<< "$ready"; }
  target=([tcp]="tcp://$(address 0)" [ws]="ws://$(address 1)/sub" [tls]="tls://$(address 2)" [wss]="wss://$(address 3)/sub")
  api=http://$(jq -r .api <<< "$ready")
}
stop() { kill "$server"; wait "$server" || true; server=; }

# run SCENARIO NAME KIND FLAGS…
run() {
  local scenario=$1 name=$2 kind=$3
  shift 3
  "$bench" "$scenario" --cpus 1 --target "${target[$kind]}" --tls-insecure --server-pid "$server" --json "$out/$name.json" "$@" \
    > "$work/$name.txt" 2>&1 || echo "$name: exit $?"
}
with_pushes() { run "$@" --push "$api" --metrics "$api"; }
# The CPU time of the server so far, in seconds.
cpu() { awk -v t="$(getconf CLK_TCK)" '{ print ($14 + $15) / t }' "/proc/$server/stat"; }

for n in 1 2 3; do
  for kind in tcp tls ws wss; do
    start
    before=$(cpu)
    run idle "idle-$kind-$n" "$kind" --connections 10000 --from 5000 --idle 2
    awk -v a="$before" -v b="$(cpu)" 'BEGIN { printf "{\"scenario\":\"logins\",\"valid\":true,\"cpu_us_per_client\":%.1f}\n", (b - a) * 100 }' \
      > "$out/logins-$kind-$n.json"
    stop
  done
  start
  for kind in tcp tls; do
    with_pushes broadcast "broadcast-$kind-$n" "$kind" --connections 2000 --rate 10 --duration 6 --warmup 1
  done
  # Others' deliveries without and with full handshakes as fast as three clients can make them.
  with_pushes broadcast "calm-$n" tls --connections 300 --rate 20 --duration 6 --warmup 1
  address=${target[tls]#tls://}
  storm=()
  for _ in 1 2 3; do
    nice -n 10 taskset -c 1 openssl s_time -connect "$address" -new -time 10 > "s_time-${#storm[@]}" 2>&1 &
    storm+=($!)
  done
  sleep 0.5
  with_pushes broadcast "storm-$n" tls --connections 300 --rate 20 --duration 6 --warmup 1
  wait "${storm[@]}" || true
  awk '/real seconds/ { n += $1 / $4 } END { printf "{\"scenario\":\"handshakes\",\"valid\":true,\"per_second\":%.0f}\n", n }' s_time-* \
    > "$out/handshakes-$n.json"
  stop
done

# New certificates under 10,000 connections that get messages.
start
(
  sleep 13
  certificate
  kill -HUP "$server"
  sleep 2
  openssl s_client -connect "${target[tls]#tls://}" < /dev/null 2> /dev/null | openssl x509 -noout -fingerprint -sha256
  openssl x509 -in chain.pem -noout -fingerprint -sha256
) > "$out/new-certificate.txt" &
swap=$!
with_pushes broadcast new-certificate-1 tls --connections 10000 --rate 2 --duration 20 --warmup 1
wait "$swap"
grep -h '"event":"reload' log >> "$out/new-certificate.txt" || true
stop
# The runs were in another folder: their paths are told as from the root.
sed -i "s#$root/##g" "$out"/*.json
