"""The Hugging Face hub, from which timm takes pretrained weights."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


def hub_is_reachable() -> bool:
    """Say whether the hub's host has an address, or a proxy is set that may know it."""
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname
    if urllib.request.getproxies() or host is None:
        return True
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


@contextmanager
def cache_only_without_network() -> Iterator[None]:
    """Without a network, look only into the cache: the hub's client would retry for a minute, with a line each time."""
    from huggingface_hub import constants

    earlier = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = earlier or not hub_is_reachable()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = earlier
