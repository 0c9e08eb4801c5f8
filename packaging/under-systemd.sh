#!/usr/bin/env bash
# Installs a .deb on a copy of this host and tries halley.service and halley.socket under a systemd of their own:
#   sudo packaging/under-systemd.sh target/dist/packages/halley_0.1.0_amd64.deb
# The copy is an overlay in memory, in namespaces of its own (mount, pid, net, cgroup); kernel settings of the host are
# read-only in it. Nothing of it stays. Needs root, systemd as a package (not as init), overlayfs. Ends with 0 if all is right.
set -eu

groups() { # mount point and path of each control group of this process
  while IFS=: read -r _ controllers path; do
    case $controllers in
      '') if [ -d /sys/fs/cgroup/unified ]; then mount=unified; else mount=.; fi ;;
      *) mount=${controllers#name=} ;;
    esac
    echo "$mount ${path%/}"
  done < /proc/self/cgroup
}

outside() {
  local deb work status=0
  deb=$(realpath "$1")
  work=$(mktemp -d)
  groups > "$work/groups"
  while read -r mount path; do
    local group=/sys/fs/cgroup/$mount$path/halley-box
    mkdir -p "$group"
    [ "$mount" != cpuset ] || for part in cpus mems; do cat "${group%/*}/cpuset.$part" > "$group/cpuset.$part"; done
    sh -c "echo $$ > $group/cgroup.procs"
  done < "$work/groups"
  unshare --mount --propagation private --pid --net --uts --ipc --cgroup --fork --kill-child "$0" --boot "$deb" "$work" > "$work/log" 2>&1 &
  local holder=$!
  for _ in $(seq 100); do
    init=$(pgrep -P "$holder" || true)
    [ -z "$init" ] || [ "$(cat "/proc/$init/comm")" != systemd ] || break
    sleep 0.2
  done
  sleep 3
  nsenter -t "$init" -m -p -n -u -i -C -- bash -s < "${0%/*}/under-systemd-checks.sh" || { status=$?; tail -5 "$work/log"; }
  kill -9 "$init"
  wait "$holder" || true
  sleep 1
  while read -r mount path; do
    sh -c "echo $$ > /sys/fs/cgroup/$mount$path/cgroup.procs"
    find "/sys/fs/cgroup/$mount$path/halley-box" -depth -type d -exec rmdir {} + 2> /dev/null || true
  done < "$work/groups"
  rm -rf "$work"
  return $status
}

boot() {
  local deb=$1 box=$2/box root
  mkdir "$box" && mount -t tmpfs tmpfs "$box"
  mkdir "$box/up" "$box/work" "$box/root"
  root=$box/root
  mount -t overlay overlay -o "lowerdir=/,upperdir=$box/up,workdir=$box/work" "$root"
  cp "$deb" "$root/halley.deb"
  mount -t proc proc "$root/proc"
  mount --bind "$root/proc/sys" "$root/proc/sys" && mount -o remount,bind,ro "$root/proc/sys"
  mount --bind "$root/proc/sys/net" "$root/proc/sys/net" && mount -o remount,bind,rw "$root/proc/sys/net"
  mount -t sysfs sysfs "$root/sys"
  if [ -d /sys/fs/cgroup/unified ]; then
    mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
    while IFS=: read -r _ controllers _; do
      local folder=$root/sys/fs/cgroup/${controllers#name=}
      case $controllers in
        '') mkdir "$folder/unified" && mount -t cgroup2 cgroup2 "$folder/unified" ;;
        name=*) mkdir "$folder" && mount -t cgroup -o "none,$controllers" cgroup "$folder" ;;
        *) mkdir "$folder" && mount -t cgroup -o "$controllers" cgroup "$folder" ;;
      esac
    done < /proc/self/cgroup
  else
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  fi
  for folder in run tmp dev; do mount -t tmpfs tmpfs "$root/$folder"; done
  for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 kmsg:1:11; do
    IFS=: read -r name major minor <<< "$node"
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
  done
  ln -s pts/ptmx "$root/dev/ptmx" && ln -s /proc/self/fd "$root/dev/fd"
  mkdir "$root/dev/pts" "$root/dev/shm"
  mount -t devpts devpts "$root/dev/pts" && mount -t tmpfs tmpfs "$root/dev/shm"
  ip link set lo up
  # No more than what units of a package need.
  printf '[Unit]\nDescription=box\nDefaultDependencies=no\nWants=systemd-journald.service dbus.socket\n' \
    > "$root/etc/systemd/system/box.target"
  rm -f "$root"/etc/systemd/system/{sysinit,network-online}.target.wants/*
  cd "$root" && mkdir .old && pivot_root . .old
  umount -l /.old && mount --make-rshared /
  DEBIAN_FRONTEND=noninteractive dpkg -i /halley.deb
  exec env -i container=box PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=box.target --show-status=no
}

if [ "${1:-}" = --boot ]; then boot "$2" "$3"; else outside "${1:?usage: under-systemd.sh DEB}"; fi
