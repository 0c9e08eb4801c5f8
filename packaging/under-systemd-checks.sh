# What under-systemd.sh tries inside: each line that is printed is a thing that works; the first that does not ends it.
set -euo pipefail
trap 'echo "WRONG: line $LINENO"; systemctl status halley --no-pager; journalctl -u halley --no-pager | tail -20' ERR
main() { systemctl show -P MainPID halley; }
ok() { echo "ok    $*"; }

systemd-analyze verify /lib/systemd/system/halley.service /lib/systemd/system/halley.socket /lib/systemd/system/halley-tune.service
ok "systemd-analyze verify: nothing to say"
systemctl start halley
ok "started, which under Type=notify means that it serves: $(systemctl show -P StatusText halley)"
ok "exposure: $(systemd-analyze security halley --no-pager | grep -o 'Overall.*[0-9] [A-Z]*')"
status=/proc/$(main)/status
test "$(awk '/^Uid/ { print $2 }' "$status")" = "$(id -u halley)"
test "$(awk '/^CapEff|^CapBnd/ { print $2 }' "$status" | sort -u)" = 0000000000000000
test "$(awk '/^NoNewPrivs/ { print $2 }' "$status")$(awk '/^Seccomp:/ { print $2 }' "$status")" = 12
ok "user halley, no capabilities, no new privileges, a filter of system calls"
token=$(sed "s/.*\['\(.*\)'\]/\1/" /etc/halley/secrets.env)
test "$(stat -c %a /etc/halley/secrets.env)" = 600
halley-bench broadcast --connections 500 --rate 5 --duration 2 --push http://127.0.0.1:3111 --token "$token" --max-loss 0 \
  --target tcp://127.0.0.1:3101 --target ws://127.0.0.1:3102/sub > /tmp/bench 2>&1 || test $? -eq 3
grep -q '^lost  *0$' /tmp/bench
ok "500 clients over TCP and WebSocket, pushes with the token of the installation, none lost"
systemctl reload halley
test "$(systemctl is-active halley)" = active
ok "reload"
before=$(main)
systemctl stop halley
systemctl enable --now halley.socket 2> /dev/null
systemctl start halley
for _ in $(seq 150); do (exec 3<> /dev/tcp/127.0.0.1/3101) && echo ok || echo refused; sleep 0.01; done > /tmp/connects 2>&1 &
sleep 0.3
systemctl restart halley
wait $!
test "$(sort -u /tmp/connects)" = ok
ok "halley.socket: of 150 connections during a restart none was refused"
before=$(main)
kill -STOP "$before"
for _ in $(seq 30); do sleep 1; [ "$(main)" = "$before" ] || [ "$(main)" = 0 ] || break; done
journalctl -u halley --no-pager | grep -q 'Watchdog timeout'
test "$(systemctl is-active halley)" = active
ok "the watchdog ends a gateway that stands still, and systemd starts it again"
apt-get install -y --reinstall /halley.deb > /tmp/apt 2>&1
test "$(systemctl is-active halley)" = active
ok "upgraded by apt; the new one serves"
apt-get purge -y halley > /tmp/apt 2>&1
test ! -e /etc/halley && test ! -e /var/lib/halley && test "$(systemctl is-active halley || true)" = inactive
ok "purged: nothing is left"
