"""`speciarl verifier serve` as a process of its own."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

STARTUP_S = 120.0


class Service:
    """A `speciarl verifier serve` process."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.log = folder / "service.log"
        command = [sys.executable, "-m", "speciarl", "verifier", "serve", *arguments, "--log-format", "json"]
        with self.log.open("ab") as log:
            self._log_begins = log.tell()
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self.url = ""

    def wait_ready(self) -> str:
        """Its URL, once its judges are ready."""
        expires = time.monotonic() + STARTUP_S
        while time.monotonic() < expires:
            assert self.process.poll() is None, self.log.read_text()
            for entry in self._entries():
                self.url = entry.get("url", self.url)
            with contextlib.suppress(httpx.HTTPError, httpx.InvalidURL):
                if self.url and httpx.get(f"{self.url}/ready").status_code == 200:
                    return self.url
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def _entries(self) -> Iterator[dict[str, Any]]:
        """What this process has logged so far; other things than our log write there too, and not in JSON."""
        written = self.log.read_bytes()[self._log_begins :]
        for line in written.splitlines(keepends=True):
            with contextlib.suppress(ValueError):
                if line.endswith(b"\n") and isinstance(entry := json.loads(line), dict):
                    yield entry

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)
