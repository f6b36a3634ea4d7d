#!/usr/bin/env python3
"""Installs a bundle of wheels on a machine without network: checks the parts, unpacks them, calls pip.

    python install.py

Run it with the Python that is to get the packages. Standard library and pip only: it travels with the parts.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

MANIFEST = "manifest.json"
WHEELS = "wheels"
BLOCK = 2**20


class BundleError(Exception):
    """Ends the program with one line that names the part and the remedy."""


class Joined(io.RawIOBase):
    """The parts, one after the other, as one file to read."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self._left = list(parts)
        self._open: IO[bytes] | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase`."""
        while True:
            if self._open is None:
                if not self._left:
                    return 0
                self._open = self._left.pop(0).open("rb")
            block = self._open.read(len(buffer))
            if block:
                buffer[: len(block)] = block
                return len(block)
            self._open.close()
            self._open = None


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the bundle consists of. Raises BundleError when that cannot be told."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder / MANIFEST} is missing or damaged ({error}); copy it again") from error
    return manifest


def check_parts(folder: Path, manifest: dict[str, Any]) -> list[Path]:
    """The parts, all there and whole. Raises BundleError naming the first that is not."""
    paths = []
    for number, part in enumerate(manifest["parts"], 1):
        path = folder / part["name"]
        print(f"\r  checking part {number} of {len(manifest['parts'])}", end="", flush=True)
        if not path.is_file():
            raise BundleError(f"part {path} is missing; copy it from where the bundle was made")
        if path.stat().st_size != part["bytes"] or digest(path) != part["sha256"]:
            raise BundleError(f"part {path} is damaged; copy it again")
        paths.append(path)
    print(flush=True)
    return paths


def unpack(folder: Path, manifest: dict[str, Any]) -> Path:
    """The folder of the wheels, unpacked unless they are there. Raises BundleError."""
    wheels, draft = folder / WHEELS, folder / f".{WHEELS}.tmp"
    if all((wheels / one["name"]).is_file() and (wheels / one["name"]).stat().st_size == one["bytes"]
           for one in manifest["wheels"]):  # fmt: skip
        return wheels
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(wheels, ignore_errors=True)
    free, wanted = shutil.disk_usage(folder).free, sum(one["bytes"] for one in manifest["wheels"])
    if free < wanted:
        raise BundleError(f"unpacking takes {wanted / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free")
    parts = check_parts(folder, manifest)
    print("  unpacking", flush=True)
    with tarfile.open(fileobj=io.BufferedReader(Joined(parts), BLOCK), mode="r|") as tar:
        tar.extractall(draft, filter="data")
    os.replace(draft, wheels)
    return wheels


def install(folder: Path) -> None:
    """Unpack the bundle and install all of it. Raises BundleError."""
    manifest = read_manifest(folder)
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    if running != manifest["python"]:
        raise BundleError(f"the wheels are for Python {manifest['python']}, and this is {running}; use the other one")
    wheels = unpack(folder, manifest)
    # All versions are settled, and what the machine has already is not in the folder: nothing is to be resolved.
    words = ["-m", "pip", "install", "--no-index", "--no-deps", "--find-links", str(wheels)]
    words += [str(wheels / one["name"]) for one in manifest["wheels"]]
    print(f"  installing {len(manifest['wheels'])} packages", flush=True)
    if subprocess.run([sys.executable, *words]).returncode != 0:
        raise BundleError("pip failed, as it says above; mend that and run the same command again")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent, help="where the parts are")
    options = parser.parse_args(arguments)
    try:
        install(options.folder)
    except BundleError as error:
        print(f"\ninstall: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
