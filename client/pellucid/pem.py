"""Certificates and keys in PEM files, checked before TLS is made of them."""

import ssl
from pathlib import Path

_MAX_FILE_BYTES = 1 << 20
"""Several times the bundles of public authorities."""

_MISMATCHES = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}


def read_certificates(path: Path) -> bytes:
    """A file of one certificate or more.

    Raises:
        ValueError: It cannot be read, or holds no certificate, or a damaged one.
    """
    content = read(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.decode())
    except (UnicodeDecodeError, ssl.SSLError):
        raise ValueError(f"{path}: holds no certificate in PEM, or a damaged one") from None
    return content


def read_key(path: Path, certificate: Path) -> bytes:
    """The file of the key that a certificate belongs to.

    Raises:
        ValueError: It cannot be read, or holds no such key in the clear.
    """
    content = read(path)
    load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, path)
    return content


def load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Gives a context its certificate and key.

    Raises:
        ValueError: They cannot be read, do not fit, or the key is encrypted.
    """
    try:
        context.load_cert_chain(certificate, key, password="")  # or OpenSSL would prompt
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            raise ValueError(f"{key}: does not fit the certificate in {certificate}") from None
        raise ValueError(f"{key}: holds no unencrypted key in PEM") from None
    except OSError as error:
        raise ValueError(f"{certificate} and {key}: cannot be read: {error.strerror}") from None


def read(path: Path, most_bytes: int = _MAX_FILE_BYTES) -> bytes:
    """A small file.

    Raises:
        ValueError: It cannot be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > most_bytes:
        raise ValueError(f"{path}: has more than {most_bytes} bytes")
    return content
