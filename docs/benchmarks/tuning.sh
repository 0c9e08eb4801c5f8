#!/usr/bin/env bash
# What the settings of halley-tune bring: [RUNS=3] [PROGRAMS=target/release] docs/benchmarks/tuning.sh FOLDER [buffers|backlog|pinning]
# Makes the data of data/2026-11-27-tuning again: before and after in turn, in a network namespace of its own, the gateway on
# CPU 0 and the generator on CPU 1 unless the case is about that. Needs two idle CPUs, unshare, curl and ss. About 8 minutes.
set -eu
if [ "${IN_NAMESPACE:-}" != 1 ]; then
  IN_NAMESPACE=1 exec unshare --user --map-root-user --net --fork --kill-child -- "$0" "$@"
fi
here=$(cd "$(dirname "$0")/../.." && pwd)
programs=${PROGRAMS:-$here/target/release}
out=${1:?usage: docs/benchmarks/tuning.sh FOLDER [buffers|backlog|pinning]}
only=${2:-}
mkdir -p "$out"
out=$(cd "$out" && pwd)
ip link set lo up
server=

# start SHARDS [CPUS]: the gateway, on CPU 0 unless it is free; its process id in $server
start() {
  cat > "$out/halley.toml" <<TOML
connections_max = 20000
shards = $1
[[listener]]
bind = "127.0.0.1:3101"
login = "open"
[api]
bind = "127.0.0.1:3111"
auth = "none"
TOML
  taskset -c "${2:-0}" "$programs/halley" --config "$out/halley.toml" 2> "$out/halley.log" &
  server=$!
  until curl -fs http://127.0.0.1:3111/readyz > /dev/null; do
    kill -0 "$server" || { cat "$out/halley.log"; exit 1; }
    sleep 0.1
  done
}
stop() { kill "$server"; wait "$server" || true; server=; }
trap '[ -z "$server" ] || kill "$server" 2> /dev/null || true' EXIT
bench() { "$programs/halley-bench" "$@" --target tcp://127.0.0.1:3101 > /dev/null 2> "$out/bench.log" || cat "$out/bench.log"; }
overflows() { awk '/^TcpExt:/ { if (n) { for (i in names) if (names[i] == "ListenOverflows") print $i } else n = split($0, names) }' /proc/net/netstat; }
# With a field more in the JSON that the bench wrote.
note() { sed -i "1s/{/{\n  \"$2\": $3,/" "$1"; }

# Memory of an idle client, and what 500 clients make the kernel hold that talk while nobody reads.
buffers() {
  echo "$2" > /proc/sys/net/ipv4/tcp_rmem
  echo "$2" > /proc/sys/net/ipv4/tcp_wmem
  start 1
  bench idle --connections 15000 --from 5000 --idle 2 --settle 20 --steady 1 --cpus 1 --server-pid "$server" --json "$out/buffers-$1.json"
  stop
  start 1
  python3 - "$server" > "$out/held" <<'PY'
import os, signal, socket, subprocess, sys, time
clients = [socket.create_connection(("127.0.0.1", 3101)) for _ in range(500)]
time.sleep(0.5)
os.kill(int(sys.argv[1]), signal.SIGSTOP)
time.sleep(0.5)
for client in clients:
    client.setblocking(False)
for _ in range(20):
    for client in clients:
        try:
            client.send(b"\0" * 65536)
        except (BlockingIOError, ConnectionResetError):
            pass
    time.sleep(0.05)
lines = subprocess.run(["ss", "-Htmn", "src", "127.0.0.1:3101"], capture_output=True, text=True).stdout
held = [int(part.split("(r")[1].split(",")[0]) for part in lines.split("skmem:")[1:] if "(r" in "x" + part]
print(sum(held) // 500)
PY
  kill -CONT "$server"
  note "$out/buffers-$1.json" unread_bytes_per_client "$(cat "$out/held")"
  stop
}

# Everybody comes back at once: seconds until all are in, and clients that a full queue turned away.
backlog() {
  echo "$2" > /proc/sys/net/core/somaxconn
  start 2
  local before; before=$(overflows)
  bench storm --push http://127.0.0.1:3111 --connections 20000 --threads 8 --cpus 1 --server-pid "$server" --json "$out/backlog-$1.json"
  note "$out/backlog-$1.json" listen_overflows $(($(overflows) - before))
  stop
}

# Latency of messages when others run on the shard's CPU, and when they do not.
pinning() {
  start 1 "$2"
  bench broadcast --connections 1000 --rate 20 --duration 8 --server-pid "$server" --push http://127.0.0.1:3111 ${3:+--cpus "$3"} --json "$out/pinning-$1.json"
  stop
}

for run in $(seq "${RUNS:-3}"); do
  if [ -z "$only" ] || [ "$only" = buffers ]; then
    buffers "before-$run" "4096 131072 6291456"
    buffers "after-$run" "4096 16384 262144"
  fi
  if [ -z "$only" ] || [ "$only" = backlog ]; then
    backlog "128-$run" 128
    backlog "4096-$run" 4096
    backlog "32768-$run" 32768
  fi
  if [ -z "$only" ] || [ "$only" = pinning ]; then
    pinning "before-$run" 0-1 ""
    pinning "after-$run" 0 1
  fi
done
rm -f "$out/halley.toml" "$out/halley.log" "$out/bench.log" "$out/held"
