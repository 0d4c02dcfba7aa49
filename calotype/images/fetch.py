"""`Fetcher`: the bytes behind an http(s) URL."""

from __future__ import annotations

import urllib3

from calotype.errors import FetchError

__all__ = ["Fetcher"]


class Fetcher:
    """Fetches http(s) URLs."""

    def get(self, url: str) -> bytes:
        try:
            response = urllib3.request("GET", url, timeout=20)
        except urllib3.exceptions.HTTPError as error:
            raise FetchError(url, str(error)) from error
        if response.status != 200:
            raise FetchError(url, f"the server answered {response.status}")
        return response.data
