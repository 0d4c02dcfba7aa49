"""Limits of connections hold for the block that sets them, and no longer."""

from __future__ import annotations

import time

import pytest
from urllib3.exceptions import ConnectTimeoutError

from calotype.images.connect import PrivateAddressError, new_pool, within


def test_a_thread_that_fetched_from_private_addresses_may_not_do_so_later(serve):
    url = f"{serve().url}/picture/a"
    with within(time.monotonic() + 20, allow_private=True):
        assert new_pool().request("GET", url, retries=False).status == 200
    with pytest.raises(PrivateAddressError):
        new_pool().request("GET", url, retries=False)


def test_the_limits_end_with_an_error_too(serve):
    url = f"{serve().url}/picture/a"
    with pytest.raises(ConnectTimeoutError), within(time.monotonic() - 1, allow_private=True):
        new_pool().request("GET", url, retries=False)
    with pytest.raises(PrivateAddressError):
        new_pool().request("GET", url, retries=False)
