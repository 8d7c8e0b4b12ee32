"""The metrics port: metrics, and health once more for probes that know neither TLS nor tokens."""

import json
import socket
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


def build_wsgi(registry: CollectorRegistry, ready: Callable[[], bool]) -> "WSGIApplication":
    """Answers /health/live and /health/ready, and every other path with the metrics.

    Args:
        registry: Of the metrics.
        ready: Whether requests are answered; asked from threads of its own.
    """
    metrics: WSGIApplication = make_wsgi_app(registry)

    def answer(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/health/live":
                name, good = "live", True
            case "/health/ready":
                name, good = "ready", ready()
            case _:
                return metrics(environ, start)
        status = "200 OK" if good else "503 Service Unavailable"
        start(status, [("Content-Type", "application/json")])
        return [json.dumps({name: good}).encode()]

    return answer


class _Handler(WSGIRequestHandler):
    timeout = 10  # seconds that a request may take to arrive

    def log_message(self, format: str, *args: object) -> None:
        """Probes and scrapes are not worth a line each."""


class ProbeServer(ThreadingMixIn, WSGIServer):
    """Serves it over plain HTTP, a thread for each request.

    Raises:
        OSError: The port cannot be opened.
    """

    daemon_threads = True

    def __init__(self, host: str, port: int, app: "WSGIApplication") -> None:
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        super().__init__((host, port), _Handler)
        self.set_app(app)
