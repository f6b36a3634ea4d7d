"""Subreaper: runs a command so that neither it nor its descendants outlive the calling process.

A small process between us and a server: ``python subreaper.py GRACE_SECONDS COMMAND…``. It stops the command, and
everything the command started, when its standard input closes. That happens on request, and also when the
process that holds the other end dies in any way, SIGKILL included. Standard library only: it is run as a
file, so that it starts at once and stays small.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.1
_PAUSE_S = 0.01
_REAP_S = 5.0
_ORPHAN_GRACE_S = 1.0


def main(arguments: list[str]) -> int:
    """Run the command until it ends or standard input closes; returns its exit status, 128 + n for signal
    n."""
    grace_s, command = float(arguments[0]), arguments[1:]
    asked_to_stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: asked_to_stop.append(received))
    # Orphans of the command become our children, so that we can see and end every one of them.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # If this process itself is killed, as Ray does with its workers' children, the kernel asks the command to stop.
    # SIGTERM and not SIGKILL: vLLM's server then ends its engine processes, which would otherwise be orphans.
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
    )
    while child.poll() is None and not asked_to_stop:
        readable, _, _ = select.select([0], [], [], _POLL_S)
        if readable and not os.read(0, 1):
            break
    # Engines whose server died serve nobody, and whoever notices may kill us before a long grace is over.
    expires = time.monotonic() + (grace_s if child.poll() is None else min(grace_s, _ORPHAN_GRACE_S))
    if child.poll() is None:
        _signal_group(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace_s)
    # Workers that the server left behind, when it died or was stopped, are stopped in the same way.
    _signal_group(child.pid, signal.SIGTERM)
    while time.monotonic() < expires and _any_left(child):
        time.sleep(_PAUSE_S)
    _signal_group(child.pid, signal.SIGKILL)
    status = child.wait()
    expires = time.monotonic() + _REAP_S
    while time.monotonic() < expires and _any_left(child):
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_S)
    return status if status >= 0 else 128 - status


def _any_left(child: "subprocess.Popen[bytes]") -> bool:
    """Reap children that ended; returns whether the command or an orphan of it still runs."""
    child.poll()
    for pid in _children():
        if pid != child.pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    return bool(_children())


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:  # not every kernel offers the list; the group was signalled already
        return []


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
