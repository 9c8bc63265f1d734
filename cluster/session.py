"""The Ray session of this process: a local Ray of its own, or an existing cluster."""

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import RequestError

# Ray reads these when it is first imported or started. Errors still come through: as exceptions, and in its log files.
QUIET = {
    "RAY_DATA_LOG_LEVEL": "ERROR",
    # Native code warns of every restartable actor with arguments, which is what Ray Data's pools are made of.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray of the future, announced by a warning: workers without GPUs keep CUDA_VISIBLE_DEVICES as it is.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A stray thread that touches Ray after shutdown must not start a second cluster.
    "RAY_ENABLE_AUTO_CONNECT": "0",
}

# Shard references are what passes through the object store; images stay in the run directory.
OBJECT_STORE_BYTES = 256 * 2**20

# Unix socket paths end at 107 bytes, and Ray adds about 70 to its folder.
_LONGEST_FOLDER = 35

_CONNECT_SECONDS = 10.0


@contextmanager
def connect(
    address: str | None = None, *, num_cpus: float | None = None, num_gpus: float | None = None
) -> Iterator[None]:
    """Be connected to Ray inside the `with` block.

    Where this process is connected already, that connection is used and left open.

    Args:
        address: None starts a local Ray and stops it afterwards; `auto`, `host:port` (the head's GCS) or
            `ray://host:port` joins an existing cluster and leaves it running.
        num_cpus: logical CPUs of the local Ray; None takes what the machine has. Ignored with an address, as is
            `num_gpus`: a cluster has what it has.
        num_gpus: logical GPUs of the local Ray; None takes what the machine has.

    Raises:
        RequestError: no cluster answers at `address`, or it refuses us.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    if address is None:
        with _local(num_cpus, num_gpus):
            yield
        return
    _join(address)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _local(num_cpus: float | None, num_gpus: float | None) -> Iterator[None]:
    import ray

    base = tempfile.gettempdir()
    folder = tempfile.mkdtemp(prefix="ray-", dir=base if len(base) <= _LONGEST_FOLDER else "/tmp")
    try:
        with _native_stderr_off():
            ray.init(
                address="local",
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                _temp_dir=folder,
            )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _join(address: str) -> None:
    import ray
    from ray.exceptions import AuthenticationError

    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto":
        if not host or not port.isdigit():
            raise RequestError(
                f"The Ray address {address!r} is not one. Give `auto` on a machine of the cluster, the head's "
                "`host:6379`, or leave it out to run on this machine alone."
            )
        # Asked first by a socket of our own, because Ray repeats itself for several minutes before it gives up.
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            raise RequestError(_unreachable(address, str(error))) from error
    try:
        with _native_stderr_off():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except AuthenticationError as error:
        raise RequestError(
            f"The Ray cluster at {address} refused the connection: it wants a token. Set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the token of that cluster."
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RequestError(_unreachable(address, str(error))) from error


@contextmanager
def _native_stderr_off() -> Iterator[None]:
    """Nothing that native code writes to file descriptor 2 is seen: it announces that we told it to be quiet."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _unreachable(address: str, why: str) -> str:
    return (
        f"No Ray cluster answers at {address} ({why.strip()}). Check that its head is up (`ray status` on one of its "
        "machines) and that this machine reaches it, or leave the address out to run on this machine alone."
    )
