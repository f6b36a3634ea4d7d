"""URLs that may hold a user name and a password: what may be shown of them, and what goes into requests."""

from base64 import b64encode
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit


def split(url: str) -> SplitResult | None:
    """The parts of a URL; None for one of which it cannot be told what is the host and what a password."""
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
    """The password in a URL, as it stands there and as it is meant; empty where there is none."""
    parts = split(url)
    return {parts.password, unquote(parts.password)} if parts is not None and parts.password else set()


def authorization(url: str, key: str | None = None) -> str | None:
    """The header for a key or, without one, for user name and password of a URL; None without either."""
    if key:
        return f"Bearer {key}"
    parts = split(url)
    if parts is None or parts.username is None:
        return None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {b64encode(pair.encode()).decode()}"
