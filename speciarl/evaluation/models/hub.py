"""Directories of models and adapters: on this machine as they are, from the Hub downloaded into its cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from speciarl.errors import ConfigError
from speciarl.evaluation.models.fingerprint import ADAPTER, loaded_files


def directory(name: str, revision: str | None, key: str, say: Callable[[str], None]) -> Path:
    """Directory of the model or adapter that the configuration names under `key`: a path, or a name on the Hub.

    A Hub that cannot be reached is done without where its cache has the model. Raises ConfigError in one line.
    """
    local = Path(name).expanduser()
    if local.is_dir():
        if revision:
            raise ConfigError(f"{key}: {name} is a directory, which has no revisions; leave `revision` out")
        return local
    if local.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ConfigError(f"{key}: there is no directory {name}; give one, or a name on the Hub")
    return _downloaded(name, revision, key, say)


def _downloaded(name: str, revision: str | None, key: str, say: Callable[[str], None]) -> Path:
    import httpx
    from huggingface_hub import HfApi, snapshot_download

    try:
        try:
            files = HfApi().list_repo_files(name, revision=revision)
            wanted = sorted({*loaded_files(files), *(file for file in files if file in ADAPTER)})
            return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
        except (httpx.HTTPError, OSError, ValueError) as error:
            cause = _line(error)
            found = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise ConfigError(
            f"{key}: {name} is no directory, and the Hub does not give it ({cause}); correct the name, or download it"
        ) from error
    say(f"the Hub does not tell of {name} ({cause}); its cached files are used")
    return found


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
