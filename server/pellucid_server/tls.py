"""TLS of both protocols: a certificate, its key, and which clients may connect."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from pellucid import pem

from .locks import Watched


@dataclass(frozen=True)
class Identity:
    """What a connection is opened with, for each protocol.

    Attributes:
        context: Of HTTP.
        configuration: Of gRPC.
        client_required: Whether a client must have a certificate, too.
    """

    context: ssl.SSLContext
    configuration: grpc.ServerCertificateConfiguration
    client_required: bool


def read_identity(certificate: Path, key: Path, client_ca: Path | None) -> Identity:
    """Reads a server's PEM files.

    Args:
        certificate: The server's, and what it is signed by.
        key: Its key, unencrypted.
        client_ca: Who signs the certificates of clients; None: clients need none.

    Raises:
        ValueError: One of them is of no use.
    """
    chain = pem.read_certificates(certificate)
    pair = (pem.read(key), chain)
    authorities = None if client_ca is None else pem.read_certificates(client_ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    pem.load_pair(context, certificate, key)
    if authorities is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=authorities.decode())
    configuration = grpc.ssl_server_certificate_configuration([pair], authorities)
    return Identity(context, configuration, authorities is not None)


class HttpContext(ssl.SSLContext):
    """Opens every connection of an asyncio server with the newest identity."""

    _identity: Watched[Identity]

    def __new__(cls, identity: Watched[Identity]) -> "HttpContext":
        context = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        context._identity = identity
        return context

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        return self._identity.value.context.wrap_bio(*args, **options)


def grpc_credentials(identity: Watched[Identity]) -> grpc.ServerCredentials:
    """Opens every connection of a gRPC server with the newest identity."""
    given = identity.value

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        newest = identity.value
        if newest is given:
            return None
        given = newest
        return newest.configuration

    return grpc.dynamic_ssl_server_credentials(
        given.configuration,
        changed,  # type: ignore[arg-type]  # the stubs know no None, which says: no change
        given.client_required,
    )
