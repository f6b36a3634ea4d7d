"""Credentials in URLs and key files: what may be shown of a URL, and what goes into requests."""

import os
from base64 import b64encode
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from speciarl.errors import VerifierStartError

LEAST_SECRET = 16
"""Characters from which on a value in a URL's query is taken for a key."""


def split(url: str) -> SplitResult | None:
    """The parts of a URL; None where host and password cannot be told apart."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number, as behind a password with a slash in it
    except ValueError:
        return None
    return parts if url.count("@") == parts.netloc.count("@") else None


def public_url(url: str) -> str:
    """The URL without user name, password and query; for whatever is shown or logged."""
    parts = split(url)
    if parts is None:
        return url.rpartition("@")[2].partition("?")[0]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def passwords(url: str) -> set[str]:
    """What must not be shown of a URL: the password and values of its query, as written and percent-decoded."""
    parts = split(url)
    if parts is None:
        return set()
    # Short values, such as a version, tell nothing, and hiding them would hide parts of other words.
    keys = {value for _, value in parse_qsl(parts.query) if len(value) >= LEAST_SECRET}
    return keys | ({parts.password, unquote(parts.password)} if parts.password else set())


def authorization(url: str, key: str | None = None) -> str | None:
    """Authorization header for the key, else for user name and password of the URL; None without either."""
    if key:
        return f"Bearer {key}"
    parts = split(url)
    if parts is None or parts.username is None:
        return None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {b64encode(pair.encode()).decode()}"


def write_key(path: Path, key: str) -> None:
    """Write a key file that only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # of an earlier run, which may have had another mode
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(key)


def read_key(path: str, owner: str, field: str = "api_key_file") -> str:
    """The one key in a file, without the white space around it.

    Raises VerifierStartError in one line; `owner` and `field` say whose file it is and which setting names it.
    """
    try:
        key = Path(path).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "not text"
        raise VerifierStartError(f"{owner}: cannot read {field} {path} ({cause}); check the path") from error
    if not key or any(character.isspace() or not character.isascii() for character in key):
        raise VerifierStartError(f"{owner}: {field} {path} must hold one key and nothing else")
    return key
