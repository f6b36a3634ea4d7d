"""What tells one state of a local model directory from another, in place of a revision."""

import hashlib
from pathlib import Path

from speciarl.verifier_server.config import VerifierConfig

HASHED_BYTES = 64 * 2**20
"""Files up to this size are read; of larger ones size and modification time count."""


def model_revision(config: VerifierConfig) -> str | None:
    """The configured revision; of a local directory, what its files say. None when neither is at hand.

    Blocks while it reads. Raises OSError when a file cannot be read.
    """
    directory = Path(config.model or "")
    if config.model and directory.is_dir():
        return f"files:{fingerprint(directory)}"
    return config.revision


def fingerprint(directory: Path) -> str:
    """SHA-256 over names and contents of the files at the top of a directory; hidden files take no part."""
    whole = hashlib.sha256()
    for file in sorted(path for path in directory.iterdir() if path.is_file() and not path.name.startswith(".")):
        status = file.stat()
        state = f"{status.st_size} {status.st_mtime_ns}".encode()
        content = state if status.st_size > HASHED_BYTES else file.read_bytes()
        for part in (file.name.encode(), content):
            whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()
