#!/usr/bin/env bash
# What scraping once a second does to deliveries: docs/benchmarks/scrape.sh FOLDER
# Needs curl, jq, and two idle CPUs: gateway on 0, generator on 1; takes about three minutes.
set -eu
cd "$(dirname "$0")/../.."
out=${1:?usage: docs/benchmarks/scrape.sh FOLDER}
halley=${HALLEY:-target/release/halley} bench=${BENCH:-target/release/halley-bench}
mkdir -p "$out"
work=$(mktemp -d)
server='' scraper=''
trap 'kill $server $scraper 2> /dev/null || true; rm -r "$work"' EXIT

HALLEY__DEV__TCP=127.0.0.1:0 HALLEY__DEV__WS=127.0.0.1:0 HALLEY__API__BIND=127.0.0.1:0 HALLEY__SHARDS=1 HALLEY__CONNECTIONS_MAX=19000 \
  taskset -c 0 "$halley" --dev 2> "$work/log" &
server=$!
until grep -q '"event":"ready"' "$work/log"; do sleep 0.05; done
ready=$(grep '"event":"ready"' "$work/log")
tcp=$(jq -r '.listeners[] | select(.transport == "tcp").address' <<< "$ready")
api=http://$(jq -r .api <<< "$ready")

# run NAME: 15,000 clients in one room
run() {
  "$bench" broadcast --cpus 1 --connections 15000 --rate 4 --duration 12 --warmup 2 --payload-bytes 128 --target "tcp://$tcp" \
    --push "$api" --metrics "$api" --server-pid "$server" --json "$out/$1.json" > "$work/$1.txt" 2>&1 || echo "$1: exit $?"
}
for n in 1 2 3; do
  run "unscraped-$n"
  (while :; do curl -s "$api/metrics" -o "$work/metrics"; sleep 1; done) &
  scraper=$!
  run "scraped-$n"
  kill "$scraper"
  wait "$scraper" 2> /dev/null || true
  scraper=
done
