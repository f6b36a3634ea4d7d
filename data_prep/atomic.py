"""Write files so that an interruption leaves the old file or the new one, never half of one."""

from __future__ import annotations

import os
from pathlib import Path


def write_bytes(file: Path, content: bytes) -> None:
    """Replace ``file`` with ``content``. Raises ``OSError`` when the folder cannot be written."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(content)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)
