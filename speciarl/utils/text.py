"""Text in messages: quoted on one line."""


def shorten(text: str, limit: int = 120) -> str:
    """The text quoted on one line, cut to `limit` characters."""
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= limit else flat[: limit - 1] + "…")
