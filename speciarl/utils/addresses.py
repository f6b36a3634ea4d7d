"""Addresses to listen on: whether other machines can reach them."""

import ipaddress

KEY_REMEDY = "give `key_file`, or `open_without_key: true`"
"""Remedy for a service without a key on an address that others reach."""


def exposure(host: str, remedy: str) -> str | None:
    """Warning, in one line, about listening without a key on an address that others reach; None for loopback."""
    if is_loopback(host):
        return None
    return f"`host` {host} can be reached by others: {remedy} if everybody who reaches the port may judge"


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
