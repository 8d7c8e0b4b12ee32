"""What an index says of itself."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .progress import PROGRESS_FILE

FORMAT = 1
MANIFEST_FILE = "manifest.json"
INDEX_FILE: Final = "index.sqlite"
CODES_FILE: Final = "codes.npy"


class BadIndex(ValueError):
    """An index that is not served; the message says why."""


_Count = Annotated[int, Field(ge=0)]
_Positive = Annotated[int, Field(ge=1)]
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Layer(_Strict):
    name: str
    channel_count: _Positive
    height: _Count
    width: _Count


class _Files(_Strict):
    index: _Sha256 = Field(alias="index.sqlite")
    codes: _Sha256 = Field(alias="codes.npy")


class _Manifest(_Strict):
    format: Literal[1]
    pellucid: str
    model: str
    model_version: str
    architecture: str
    preprocessing: dict[str, Any]
    precision: str
    layers: Annotated[list[_Layer], Field(min_length=1)]
    channel_count: _Positive
    code_layer: str
    code_length: _Positive
    top_k: _Positive
    bucket_size: _Positive
    picture_format: Literal["jpeg", "webp"]
    photo_count: _Positive
    failed_count: _Count
    files: _Files
    version: str


def read_manifest(folder: Path) -> dict[str, Any]:
    """What an index says of itself, checked against its schema and its own version.

    Raises:
        BadIndex: There is none, it is half-written, or it was changed.
    """
    try:
        content = json.loads((folder / MANIFEST_FILE).read_bytes())
    except FileNotFoundError:
        if (folder / PROGRESS_FILE).exists():
            raise BadIndex(
                "it is half-written: the same `pellucid index` command finishes it"
            ) from None
        raise BadIndex(f"it is no index: there is no {MANIFEST_FILE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadIndex(f"{MANIFEST_FILE} cannot be read: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BadIndex(f"{MANIFEST_FILE} is not of format {FORMAT}")
    if content.get("version") != version_of(content):
        raise BadIndex(f"{MANIFEST_FILE} was changed after it was written")
    try:
        _Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadIndex(f"{MANIFEST_FILE}: {where}: {first['msg']}") from None
    return content


def version_of(content: Mapping[str, Any]) -> str:
    """Of a manifest's content, which has the checksums of all else."""
    held = {name: value for name, value in content.items() if name != "version"}
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:12]
