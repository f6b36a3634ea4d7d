"""Addresses to listen on, and who reaches them."""

import ipaddress

KEY_REMEDY = "give `key_file`, or `open_without_key: true`"
"""What makes a service fit for an address that others reach."""


def exposure(host: str, remedy: str) -> str | None:
    """One line on an address that others reach, for what has no key; None for one that only this machine reaches."""
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
