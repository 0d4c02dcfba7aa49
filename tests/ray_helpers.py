"""A Ray cluster of two cores on this machine, and the processes of its actors."""

from contextlib import contextmanager

import psutil
import pytest
import ray


@contextmanager
def two_cores():
    """Start a cluster; its address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False)
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


def actors():
    """The processes that work, none that is a zombie."""
    found = []
    for process in psutil.Process().children(recursive=True):
        command = process.cmdline() if process.is_running() and process.status() != psutil.STATUS_ZOMBIE else []
        if command and command[0].startswith("ray::_Actor"):
            found.append(process)
    return found
