#!/usr/bin/env python3
"""Packs the wheels of the GPU stack for a machine without network, in parts that can be carried one by one.

    python tools/gpu_bundle.py --have freeze.txt

`freeze.txt` is what `pip list --format=freeze` says on that machine; what it has at the locked version is left out.
Copy all of the folder there and run `python install.py` in it. Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "lock-gpu.txt"
INSTALLER = Path(__file__).with_name("gpu_bundle_install.py")
PART_BYTES = 60 * 10**6
WHEELS = "wheels"
ALIKE = ("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64")
"""Older names of what a machine with glibc takes."""
BUILT_THERE = ("flash-attn",)
"""Without a wheel on the index, and built for the card that it is to run on; runs go on without it."""


class BundleError(Exception):
    """Ends the program with one line that names the cause and the remedy."""


class Parts(io.RawIOBase):
    """A file to write that is cut into parts of at most so many bytes, each under its name only when it is whole."""

    def __init__(self, folder: Path, stem: str, most: int) -> None:
        self._folder, self._stem, self._most = folder, stem, most
        self._open: IO[bytes] | None = None
        self._size = 0
        self._sha = hashlib.sha256()
        self.written: list[dict[str, Any]] = []
        """Name, size and checksum of each part."""

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """See `io.RawIOBase`."""
        view = memoryview(data)
        for start in range(0, len(view), self._most):
            self._write(view[start : start + self._most])
        return len(view)

    def finish(self) -> None:
        """The last part is whole, too."""
        if self._open is None:
            return
        self._open.close()
        name = self._name()
        os.replace(self._draft(), self._folder / name)
        self.written.append({"name": name, "bytes": self._size, "sha256": self._sha.hexdigest()})
        self._open, self._size, self._sha = None, 0, hashlib.sha256()

    def _write(self, view: memoryview) -> None:
        while view:
            if self._open is None:
                self._open = self._draft().open("wb")
            now = view[: self._most - self._size]
            self._open.write(now)
            self._sha.update(now)
            self._size += len(now)
            view = view[len(now) :]
            if self._size == self._most:
                self.finish()

    def _name(self) -> str:
        return f"{self._stem}.{len(self.written):03d}"

    def _draft(self) -> Path:
        return self._folder / f".{self._name()}.tmp"


def read_lock(lock: Path, python: str) -> list[Requirement]:
    """What the lock asks for under a version of Python on 64-bit Linux."""
    environment = {
        "python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux", "os_name": "posix",
        "platform_system": "Linux", "platform_machine": "x86_64", "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }  # fmt: skip
    lines = [line.strip() for line in lock.read_text(encoding="utf-8").splitlines()]
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [one for one in wanted if one.marker is None or one.marker.evaluate(environment)]


def read_have(file: Path) -> dict[str, Version]:
    """Version by name from `pip list --format=freeze`. Raises BundleError naming the line that is none."""
    found: dict[str, Version] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BundleError(f"{file}: {error.strerror}; write it with `pip list --format=freeze`") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            one = Requirement(line)
            found[canonicalize_name(one.name)] = version_of(one)
        except (InvalidRequirement, BundleError) as error:
            raise BundleError(
                f"{file}, line {number}: {line.strip()!r} is no NAME==VERSION; write it with `pip list --format=freeze`"
            ) from error
    return found


def version_of(one: Requirement) -> Version:
    """The one version that a line of a lock allows. Raises BundleError for any other line."""
    match = re.fullmatch(r"==([^*,]+)", str(one.specifier))
    if match is None:
        raise BundleError(f"{one} pins no version")
    return Version(match.group(1))


def lacking(wanted: Iterable[Requirement], have: Mapping[str, Version]) -> list[Requirement]:
    """What the machine does not have at the locked version. A build of its own, as ``2.11.0+cu130``, counts."""

    def is_there(one: Requirement) -> bool:
        there = have.get(canonicalize_name(one.name))
        return there is not None and Version(there.public) == Version(version_of(one).public)

    return [one for one in wanted if not is_there(one)]


def platforms(glibc: str) -> list[str]:
    """Names of the platforms whose wheels a machine with this glibc takes, best first."""
    major, minor = map(int, glibc.split("."))
    return [f"manylinux_{major}_{number}_x86_64" for number in range(minor, 4, -1)] + list(ALIKE)


def find_wheel(folder: Path, one: Requirement) -> Path | None:
    """The wheel of this package and version, if the folder has it."""
    for path in sorted(folder.glob("*.whl")):
        try:
            name, version, _, _ = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        if name == canonicalize_name(one.name) and Version(version.public) == Version(version_of(one).public):
            return path
    return None


def fetch(one: Requirement, folder: Path, python: str, glibc: str) -> str | None:
    """Get one wheel, built here where the index has the source only; what went wrong, in one line, or None."""
    pinned = f"{one.name}=={version_of(one)}"
    draft = folder / ".draft"
    shutil.rmtree(draft, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    where = [word for name in platforms(glibc) for word in ("--platform", name)]
    target = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, *where]
    ways = (
        [*pip, "download", "--quiet", "--no-deps", "--dest", str(draft), *target, pinned],
        [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(draft), pinned],
    )
    said = ""
    for words in ways:
        done = subprocess.run(words, capture_output=True, text=True)
        made = sorted(draft.glob("*.whl"))
        if done.returncode == 0 and made:
            break
        said = said or next((line for line in reversed(done.stderr.splitlines()) if "ERROR" in line), "no wheel")
    else:
        return f"{pinned} cannot be had: {said}"
    if words[4] == "wheel" and not fits_anywhere(made[0]):
        return f"{pinned} has no wheel, and one that is built here may not fit there"
    os.replace(made[0], folder / made[0].name)
    return None


def fits_anywhere(wheel: Path) -> bool:
    """Whether a wheel is plain Python."""
    tags: frozenset[Tag] = parse_wheel_filename(wheel.name)[3]
    return any(tag.abi == "none" and tag.platform == "any" for tag in tags)


def gather(wanted: Sequence[Requirement], folder: Path, python: str, glibc: str) -> Iterator[Path]:
    """The wheels of all requirements, fetched unless they are there. Raises BundleError when one cannot be had."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(wanted, 1):
        print(f"\r  {number} of {len(wanted)} packages  {one.name:<40}", end="", flush=True)
        if find_wheel(folder, one) is None:
            problem = fetch(one, folder, python, glibc)
            if problem is not None:
                raise BundleError(f"{problem}; run the same command again when that is mended")
        found = find_wheel(folder, one)
        assert found is not None
        yield found
    print(flush=True)


def own_wheel(folder: Path) -> Path:
    """SpeciaRL's own wheel, always built anew. Raises BundleError."""
    draft = folder / ".own"
    shutil.rmtree(draft, ignore_errors=True)
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(draft), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise BundleError(f"SpeciaRL's own wheel cannot be built: {' '.join(done.stderr.split())[-300:]}")
    built = next(draft.glob("*.whl"))
    os.replace(built, folder / built.name)
    return folder / built.name


def pack(wheels: Sequence[Path], out: Path, python: str, most: int = PART_BYTES) -> dict[str, Any]:
    """Write the parts, the installer and, last, the manifest, which is returned."""
    installer = _installer()
    (out / installer.MANIFEST).unlink(missing_ok=True)  # without it the folder is no bundle
    for old in [*out.glob("wheels.tar.*"), *out.glob(".wheels.tar.*.tmp")]:
        old.unlink()
    parts = Parts(out, "wheels.tar", most)
    with tarfile.open(fileobj=parts, mode="w|") as tar:
        for number, wheel in enumerate(wheels, 1):
            print(f"\r  packing {number} of {len(wheels)}", end="", flush=True)
            tar.add(wheel, wheel.name)
    parts.finish()
    print(flush=True)
    shutil.copyfile(INSTALLER, out / "install.py")
    sizes = [{"name": wheel.name, "bytes": wheel.stat().st_size} for wheel in wheels]
    manifest = {"python": python, "parts": parts.written, "wheels": sizes}
    draft = out / f".{installer.MANIFEST}.tmp"
    draft.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, out / installer.MANIFEST)
    return manifest


def _installer() -> ModuleType:
    """The script that travels with the parts."""
    spec = importlib.util.spec_from_file_location("gpu_bundle_install", INSTALLER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bundle(options: argparse.Namespace) -> None:
    """Fetch and pack. Raises BundleError."""
    have = read_have(options.have) if options.have else {}
    wanted = read_lock(LOCK, options.python)
    lacks = [one for one in lacking(wanted, have) if canonicalize_name(one.name) not in BUILT_THERE]
    print(f"{len(lacks)} of {len(wanted)} locked packages are packed; {', '.join(BUILT_THERE)} has no wheel to pack")
    store = options.out.with_name(f"{options.out.name}-{WHEELS}")  # beside the bundle, as it is not to be carried
    options.out.mkdir(parents=True, exist_ok=True)
    wheels = [*gather(lacks, store, options.python, options.glibc), own_wheel(store)]
    manifest = pack(wheels, options.out, options.python)
    size = sum(part["bytes"] for part in manifest["parts"])
    print(
        f"{len(manifest['parts'])} parts, {size / 1e9:.2f} GB in {options.out}: copy it, run `python install.py` in it"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--have", type=Path, help="`pip list --format=freeze` of the target; default: it has nothing")
    parser.add_argument("--python", choices=("3.11", "3.12"), default="3.12", help="the target's")
    parser.add_argument("--glibc", default="2.35", help="the target's, as `ldd --version` says")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "gpu-bundle", help="folder of the bundle")
    options = parser.parse_args(arguments)
    options.out = options.out.resolve()
    try:
        bundle(options)
    except BundleError as error:
        print(f"\ngpu-bundle: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ngpu-bundle: interrupted; run the same command again to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
