#!/usr/bin/env python3
"""Does what systemd does with halley.socket: holds the sockets, and replaces the process that has them.

    handover.py HALLEY CONFIG CLIENTS API    starts HALLEY with sockets listening on CLIENTS and API
    kill -USR1 PID                           starts the next process, waits until it is ready, and lets the first one drain

The process id of each stands on standard output once it is ready.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading


def listen(address):
    host, port = address.rsplit(":", 1)
    held = socket.create_server((host, int(port)), backlog=4096)
    return held


def start(halley, config, sockets):
    """A process with the sockets as its descriptors 3 and on; returns when it is ready."""

    def pass_on():
        copies = [os.dup(held.fileno()) for held in sockets]
        for at, copy in enumerate(copies):
            os.dup2(copy, 3 + at, inheritable=True)
        os.environ.update(LISTEN_FDS=str(len(sockets)), LISTEN_PID=str(os.getpid()))
        os.execv(halley, [halley, "--config", config])

    lines, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.dup2(told, 2)
        pass_on()
    os.close(told)
    log = os.fdopen(lines)
    for line in log:
        if line.startswith("{") and json.loads(line).get("event") == "ready":
            break
    else:
        sys.exit("it did not start")
    threading.Thread(target=lambda: [sys.stderr.write(line) for line in log], daemon=True).start()
    return pid


def main():
    halley, config, *addresses = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
    sockets = [listen(address) for address in addresses]
    signals = {signal.SIGUSR1, signal.SIGTERM}
    pid = start(halley, config, sockets)
    print(pid, flush=True)
    while True:
        if signal.sigwait(signals) == signal.SIGTERM:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
            return
        before, pid = pid, start(halley, config, sockets)
        print(pid, flush=True)
        os.kill(before, signal.SIGTERM)
        os.waitpid(before, 0)


main()
