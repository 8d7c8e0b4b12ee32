"""A server of one's own, in a process beside this one."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pellucid

START_TIMEOUT_S = 300.0


@contextlib.contextmanager
def server(*options: str) -> Iterator[tuple[str, int]]:
    """A server on free ports: its gRPC address and process id; it is asked to stop at the end."""
    with contextlib.ExitStack() as reserved:
        sockets = [reserved.enter_context(socket.socket()) for _ in range(3)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        ports = [str(free.getsockname()[1]) for free in sockets]
    command = [sys.executable, "-m", "pellucid", "serve", *options]
    for name, port in zip(("http", "grpc", "metrics"), ports, strict=True):
        command += [f"--{name}-port", port]
    with subprocess.Popen(command) as process:
        try:
            yield f"127.0.0.1:{ports[1]}", process.pid
        finally:
            process.send_signal(signal.SIGTERM)
    if process.returncode:
        raise SystemExit(f"the server ended with exit code {process.returncode}")


def wait_until_ready(client: pellucid.Client) -> None:
    """Returns once the server has warmed up.

    Raises:
        pellucid.Unavailable: It did not within START_TIMEOUT_S seconds.
    """
    give_up_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            client.list_models()
        except pellucid.Unavailable:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.2)
        else:
            return
