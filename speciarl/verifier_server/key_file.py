"""API keys live in files, never in a configuration, a command line or the environment."""

from pathlib import Path

from speciarl.errors import VerifierStartError


def read_key(path: str, owner: str, field: str = "api_key_file") -> str:
    """The one key in a file, without the white space around it.

    Raises VerifierStartError in one line; `owner` and `field` say whose file it is and which setting names it.
    """
    try:
        key = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "not text"
        raise VerifierStartError(f"{owner}: cannot read {field} {path} ({cause}); check the path") from error
    if not key or any(character.isspace() or not character.isascii() for character in key):
        raise VerifierStartError(f"{owner}: {field} {path} must hold one key and nothing else")
    return key
