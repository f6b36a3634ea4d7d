"""Proxies: which one leads to a URL, as HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY say."""

import ipaddress
from urllib.request import getproxies, proxy_bypass

from speciarl.utils.credentials import split


def proxy_of(url: str) -> str | None:
    """URL of the proxy to a server; None where it is reached directly.

    Servers of this machine and of private networks, named by their addresses, are reached directly whatever the
    variables say: they are a run's own, and no proxy knows them.
    """
    parts = split(url)
    host = parts.hostname if parts is not None else None
    if parts is None or not host or host == "localhost" or _is_private(host):
        return None
    if proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _is_private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:  # a name
        return False
