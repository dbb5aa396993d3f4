"""Workers on threads of the test's process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client, LocalCluster

LOOPBACK = "127.0.0.1:0"


@contextmanager
def threads_as_workers(count: int) -> Iterator[Client]:
    """Return a client of workers that are threads of this process, of one image at a time."""
    with (
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=False,
            dashboard_address=LOOPBACK,
            worker_dashboard_address=LOOPBACK,
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
