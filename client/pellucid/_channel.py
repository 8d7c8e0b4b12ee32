"""How the clients reach a server: TLS, caps, keepalive and the retries that gRPC itself makes."""

import json
import os
import re
from pathlib import Path

import grpc

from . import pem
from .errors import BadArgument

MAX_MESSAGE_BYTES = 32 * 2**20

# A server that closes cancels the calls that just reached it; a caller's own cancellation ends
# its call here, and is never retried.
_SERVICE_CONFIG = {
    # Of a name with several addresses all are used, not the first alone.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "pellucid.v1.PellucidService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
}

OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # A request larger than this buffer, 256 KiB by default, would never be retried.
    ("grpc.per_rpc_retry_buffer_size", 2 * MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Servers with gRPC's defaults close connections that ping more often than every 5 minutes.
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


_LOCAL = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]+)?|unix(-abstract)?:.+")
"""Targets that are on this machine whatever a resolver says."""

FilePath = str | os.PathLike[str]


def channel_credentials(
    target: str,
    credentials: grpc.ChannelCredentials | None,
    *,
    token: str | None,
    tls: bool,
    ca_file: FilePath | None,
    certificate_file: FilePath | None,
    key_file: FilePath | None,
) -> grpc.ChannelCredentials | None:
    """What a channel is opened with; None: plain text.

    Raises:
        BadArgument: The arguments contradict each other, a file is of no use, or the token would
            cross a network in plain text.
    """
    files = (ca_file, certificate_file, key_file)
    if credentials is not None:
        if tls or files != (None, None, None):
            raise BadArgument("credentials: stand for tls and all files; give only one of them")
        return credentials
    if tls or files != (None, None, None):
        return _tls_credentials(*(None if path is None else Path(path) for path in files))
    if token is not None and not _LOCAL.fullmatch(target):
        raise BadArgument(
            f"token: would reach {target} in plain text; use TLS: tls, or ca_file for an "
            "authority of your own"
        )
    return None


def _tls_credentials(
    ca: Path | None, certificate: Path | None, key: Path | None
) -> grpc.ChannelCredentials:
    if (certificate is None) != (key is None):
        raise BadArgument("certificate_file and key_file: need each other")
    authorities = chain = secret = None
    try:
        if ca is not None:
            authorities = pem.read_certificates(ca)
        if certificate is not None and key is not None:
            chain = pem.read_certificates(certificate)
            secret = pem.read_key(key, certificate)
    except ValueError as error:
        raise BadArgument(str(error)) from None
    return grpc.ssl_channel_credentials(authorities, secret, chain)


def connect(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    """A channel to a server, in plain text without credentials."""
    if credentials is None:
        return grpc.insecure_channel(target, OPTIONS)
    return grpc.secure_channel(target, credentials, OPTIONS)


def connect_aio(
    target: str, credentials: grpc.ChannelCredentials | None, *, retries: bool = True
) -> grpc.aio.Channel:
    """A channel for the running loop; without retries, each call is one attempt."""
    options = OPTIONS if retries else (*OPTIONS, ("grpc.enable_retries", 0))
    if credentials is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, credentials, options)
