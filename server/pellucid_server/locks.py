"""Who may call: bearer tokens, kept in a file that is read again when it changes."""

import hashlib
import hmac
import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Generic, TypeVar

from pellucid import pem

from .errors import Unauthenticated

log = logging.getLogger(__name__)

MIN_TOKEN_LENGTH = 16
_MAX_FILE_BYTES = 64 << 10
"""Room for a thousand named tokens; a call is held against each."""

caller_of_token: ContextVar[str | None] = ContextVar("caller_of_token", default=None)
"""The name of the token that the call under way came with."""

_Value = TypeVar("_Value")


class Tokens:
    """The tokens of a file, as digests: their text is not kept."""

    def __init__(self, names: Mapping[bytes, str | None]) -> None:
        self._names = dict(names)

    def admit(self, authorization: Sequence[str]) -> str | None:
        """The name of the token that a call came with; None: tokens have no names here.

        Takes the same time whichever token it is, and whether it is one at all.

        Args:
            authorization: All headers of that name.

        Raises:
            Unauthenticated: It is not one of these tokens.
        """
        scheme, _, token = (authorization[0] if len(authorization) == 1 else "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("a token is needed, as authorization: Bearer TOKEN")
        digest = hashlib.sha256(token.strip(" ").encode()).digest()
        found = [name for one, name in self._names.items() if hmac.compare_digest(one, digest)]
        if not found:
            raise Unauthenticated("the token is not one of this server's")
        return found[0]


def read_tokens(path: Path) -> Tokens:
    """Reads a file of tokens: TOKEN a line, or NAME TOKEN; blank lines and # comments are left out.

    Several tokens may have one name.

    Raises:
        ValueError: The file cannot be read or holds no token, or a line is wrong; what is in the
            line is not told.
    """
    names: dict[bytes, str | None] = {}
    for number, line in enumerate(pem.read(path, _MAX_FILE_BYTES).splitlines(), 1):
        words = line.split()
        if not words or line.lstrip().startswith(b"#"):
            continue
        where = f"{path}, line {number}"
        if len(words) > 2:
            raise ValueError(f"{where}: must be TOKEN or NAME TOKEN")
        *name, token = words
        if not all(0x21 <= byte <= 0x7E for word in words for byte in word):
            raise ValueError(f"{where}: must be printable ASCII")
        if len(token) < MIN_TOKEN_LENGTH:
            raise ValueError(f"{where}: a token must have {MIN_TOKEN_LENGTH} characters or more")
        digest = hashlib.sha256(token).digest()
        if digest in names:
            raise ValueError(f"{where}: the token is there already")
        names[digest] = name[0].decode() if name else None
    if not names:
        raise ValueError(f"{path}: holds no token")
    # A caller without a name of its token's could take that of another's.
    if len({name is None for name in names.values()}) == 2:
        raise ValueError(f"{path}: either all tokens must have names, or none")
    return Tokens(names)


class Watched(Generic[_Value]):
    """What is made of files, and made again when their content changes."""

    def __init__(self, paths: Sequence[Path], make: Callable[[], _Value]) -> None:
        """Makes it for the first time.

        Args:
            paths: The files.
            make: Reads them, and raises ValueError if they are of no use.
        """
        self._paths = tuple(paths)
        self._make = make
        self._seen = self._look()
        self.value = make()

    def refresh(self) -> None:
        """Looks at the files; if they are of no use now, what was made before stays."""
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen  # before they are read: a later change is a change
        try:
            self.value = self._make()
            log.info("read again: %s", ", ".join(map(str, self._paths)))
        except ValueError as error:
            log.error("%s; what was read before stays in force", error)

    def _look(self) -> list[bytes | None]:
        seen: list[bytes | None] = []
        for path in self._paths:
            try:
                seen.append(hashlib.sha256(pem.read(path)).digest())
            except ValueError:
                seen.append(None)
        return seen
