"""Where a batch runs: workers on this machine, of a scheduler, or of a cluster's queue."""

from __future__ import annotations

import ipaddress
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hrviewer.errors import ParameterError, RunError, short_message
from hrviewer.models.threads import available_cores, recommended_streams

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Workers", "check_place", "connect"]

NO_DISTRIBUTED = 'a batch needs dask.distributed: pip install "hrviewer[cluster]"'

CLUSTERS = {
    "dask_jobqueue": ("HTCondorCluster", "LSFCluster", "MoabCluster", "OARCluster", "PBSCluster",
                      "SGECluster", "SLURMCluster"),
    "dask_kubernetes.operator": ("KubeCluster",),
}  # fmt: skip
"""Classes that a cluster's file may name, by module: no other code of the file's choice runs."""

MAX_FILE_BYTES = 1 << 20
LOOPBACK = "127.0.0.1:0"
"""Any free port, which other machines cannot reach."""

HEARTBEAT = "120 s"
"""Time without a sign of life after which a local worker is replaced."""


@dataclass(frozen=True)
class Workers:
    """The workers of a batch.

    Parameters
    ----------
    client : distributed.Client
        Connection to the scheduler.
    cores : int or None
        Cores that each worker's networks use; None: those that the first one has.
    elsewhere : bool
        Whether they may be on other machines.
    devices : tuple of str
        Devices of local workers, one each.
    low_priority : bool
        Whether they give way to other programs, such as a window.
    """

    client: Client
    cores: int | None = None
    elsewhere: bool = False
    devices: tuple[str, ...] = ()
    low_priority: bool = False


@contextmanager
def connect(
    *,
    workers: int | None = None,
    cores: int | None = None,
    devices: Sequence[str] = (),
    scheduler: str | None = None,
    cluster: str | Path | None = None,
    client: Client | None = None,
    low_priority: bool = False,
    shared: bool = False,
) -> Iterator[Workers]:
    """Start workers, or connect to those that there are.

    Parameters
    ----------
    workers : int, optional
        Processes on this machine: one per device, or one per four cores by default.
    cores : int, optional
        Cores of each image; an equal share by default.
    devices : sequence of str
        ``cuda:0``, ``cuda:1``, …: a local worker for each.
    scheduler : str, optional
        Address of a running scheduler, ``tcp://127.0.0.1:8786`` or ``tls://host:8786``.
    cluster : path, optional
        YAML file with the ``class`` of a cluster of dask-jobqueue or dask-kubernetes, its
        ``options``, and the number of ``workers``.
    client : distributed.Client, optional
        A connection that is open already; it stays open.
    low_priority : bool
        Whether local workers give way to other programs (Linux).
    shared : bool
        Whether the workers infer the inputs of one image. Then `cores` are those of one input, by
        default as in a run without workers, and a local worker has as many inputs at once as
        its share of this machine allows: the number of workers changes no bits.

    Raises
    ------
    HrviewerError
        If dask.distributed is missing, several ways are given at once, the scheduler cannot be
        reached, or the file is not as above.
    """
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise RunError(NO_DISTRIBUTED) from None
    if sum(way is not None for way in (scheduler, cluster, client)) > 1:
        raise ParameterError("give one of: a scheduler's address, a cluster's file, a client")
    if client is not None:
        yield Workers(client, cores, elsewhere=True)
    elif scheduler is not None:
        with address_client(scheduler) as client:
            yield Workers(client, cores, elsewhere=True)
    elif cluster is not None:
        with cluster_client(Path(cluster).expanduser(), workers) as client:
            yield Workers(client, cores, elsewhere=True)
    else:
        if workers is not None and workers < 1:
            raise ParameterError(f"a batch needs 1 worker or more, not {workers}")
        used = tuple(devices) or default_devices()
        per_stream = max(1, available_cores() // recommended_streams())
        count = workers or len(used) or per_stream
        share = cores or (per_stream if shared else max(1, available_cores() // count))
        at_once = max(1, available_cores() // (count * share)) if shared else 1
        with local_client(count, at_once) as client:
            yield Workers(client, share, devices=used, low_priority=low_priority)


def default_devices() -> tuple[str, ...]:
    """Return all GPUs of this machine, if it has several."""
    from hrviewer.models.loaders import gpu_count

    count = gpu_count()
    return tuple(f"cuda:{i}" for i in range(count)) if count > 1 else ()


@contextmanager
def local_client(workers: int, at_once: int = 1) -> Iterator[Client]:
    """Start workers on this machine, each a process; they end with this one.

    Parameters
    ----------
    workers : int
        Number of workers.
    at_once : int
        Images or inputs that each has at a time.
    """
    import dask
    from distributed import Client, LocalCluster

    # Attempts are counted by the batch, which also reports them.
    settings = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.scheduler.worker-ttl": HEARTBEAT,
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=at_once,
            processes=True,
            host="127.0.0.1",
            dashboard_address=LOOPBACK,  # dask serves its state by HTTP in any case
            worker_dashboard_address=LOOPBACK,
            memory_limit=0,  # a run's own memory is bounded; the image's reader may need more
            silence_logs="CRITICAL",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def address_client(address: str) -> Iterator[Client]:
    """Connect to a scheduler on this machine, or over TLS to one elsewhere."""
    from distributed import Client

    place = urlsplit(address)
    if place.scheme not in ("tcp", "tls", "ws", "wss") or not place.hostname or not place.port:
        raise ParameterError(
            f"{address!r} is no scheduler's address: write tcp://127.0.0.1:8786 or tls://HOST:8786"
        )
    if place.scheme in ("tcp", "ws") and not is_loopback(place.hostname):
        raise ParameterError(
            f"{address} is on another machine and not encrypted: who reaches it can run code. "
            "Start it with TLS and give tls://HOST:PORT (docs/batch.md)"
        )
    try:
        client = Client(address, timeout="10s")
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"no scheduler answers at {address}: {short_message(error)}") from None
    with client:
        yield client


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def cluster_client(path: Path, workers: int | None) -> Iterator[Client]:
    """Start the cluster that a file describes, with TLS unless the file says otherwise."""
    from distributed import Client

    module, name, options, count = read_cluster_file(path)
    kind = cluster_class(module, name)
    if module == "dask_jobqueue" and "protocol" not in options:
        options.setdefault("security", True)
        options.setdefault("scheduler_options", {}).setdefault("dashboard_address", LOOPBACK)
    try:
        cluster = kind(**options)
    except (TypeError, ValueError, OSError, RuntimeError, ImportError) as error:
        raise RunError(f"{name} of {path.name} cannot start: {short_message(error)}") from None
    with cluster, Client(cluster) as client:
        cluster.scale(workers or count)
        yield client


def check_place(cluster: str | Path | None) -> None:
    """Check a cluster's file, and import its class, on the main thread.

    Raises
    ------
    HrviewerError
        If it cannot be read, names another class, or the class is not installed.
    """
    if cluster is not None:
        module, name, *_ = read_cluster_file(Path(cluster).expanduser())
        cluster_class(module, name)


def cluster_class(module: str, name: str) -> Any:
    """Return a class of clusters; what its import does to Ctrl-C is undone."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    try:
        return getattr(import_module(module), name)
    except ImportError:
        package = module.partition(".")[0].replace("_", "-")
        raise RunError(f"{name} needs {package}: pip install {package}") from None
    except ValueError:
        raise RunError(f"{name} has to be started from the main thread of a program") from None
    finally:
        if main:
            signal.signal(signal.SIGINT, before)


def read_cluster_file(path: Path) -> tuple[str, str, dict[str, Any], int]:
    """Return module, class, options and number of workers of a cluster's file.

    Raises
    ------
    ParameterError
        If it cannot be read, or names another class than those of `CLUSTERS`.
    """
    import yaml

    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ParameterError(f"{path.name} is too large for the description of a cluster")
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParameterError(f"{path} cannot be read: {short_message(error)}") from None
    if not isinstance(found, dict) or not isinstance(found.get("class"), str):
        raise ParameterError(
            f"{path.name} describes no cluster: write class, options and workers (docs/batch.md)"
        )
    if unknown := sorted(str(key) for key in {*found} - {"class", "options", "workers"}):
        raise ParameterError(
            f"{path.name} has {unknown[0]!r}: write class, options and workers only"
        )
    module, _, name = found["class"].rpartition(".")
    if name not in CLUSTERS.get(module, ()):
        known = [f"{module}.{one}" for module, names in CLUSTERS.items() for one in names]
        raise ParameterError(
            f"{path.name} names {found['class']!r}: choose one of {', '.join(known)}"
        )
    options, count = found.get("options") or {}, found.get("workers", 1)
    if not isinstance(options, dict) or not isinstance(count, int) or count < 1:
        raise ParameterError(
            f"{path.name}: options are names with values, workers a number of 1 or more"
        )
    return module, name, options, count
