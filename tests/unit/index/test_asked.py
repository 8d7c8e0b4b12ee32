"""What an index is asked for is refused beforehand where it is more than is sent."""

import io
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
from pellucid.v1 import index_pb2
from pellucid_server.errors import InvalidArgument
from pellucid_server.index.build import Built
from pellucid_server.index.folder import Index
from pellucid_server.index.mounted import Indices
from pellucid_server.wire import read_similar, read_top_patches, write_top_patches
from pellucid_server.wire.index import AskedPatches
from pellucid_server.wire.limits import Call, Limits
from PIL import Image

from tests.unit.index.conftest import resnet


def limits(most_bytes: int) -> Limits:
    return Limits(10**6, (1, 4), 10**6, {}, b"", max_response_bytes=most_bytes)


def fields_of(error: InvalidArgument) -> list[str]:
    return [violation.field for violation in error.violations]


@pytest.fixture
def mounted(built: Built) -> Indices:
    return Indices({"resnet18": Index(built.folder)})


@pytest.fixture
def registry() -> SimpleNamespace:
    return SimpleNamespace(find=lambda name: resnet())


SIDE_PX = 96
WHOLE = 3 * SIDE_PX**2  # bytes of a picture; a unit of fc sees all of it


def test_patches(mounted: Indices, registry: SimpleNamespace) -> None:
    def read(top_k: int, most_bytes: int, **options: bool) -> object:
        request = index_pb2.TopPatchesRequest(layer="fc", channel=3, top_k=top_k, **options)
        return read_top_patches(request, registry, limits(most_bytes), mounted)

    read(3, 3 * WHOLE)
    read(3, 6 * WHOLE, include_photos=True)
    with pytest.raises(InvalidArgument, match=f"3 patches take {3 * WHOLE} bytes") as refused:
        read(3, 3 * WHOLE - 1)
    assert fields_of(refused.value) == ["top_k"]
    with pytest.raises(InvalidArgument, match=f"and photos take {6 * WHOLE} bytes") as refused:
        read(3, 6 * WHOLE - 1, include_photos=True)
    assert fields_of(refused.value) == ["include_photos"]


def test_a_place_that_sees_padding_alone(built: Built, mounted: Indices) -> None:
    index = mounted.mounted["resnet18"]
    (seen,) = index.patches("conv1", 0, 1)
    for box in ((0, 0, 0, 7), (0, 0, 7, 0), (0, 0, 0, 0)):
        with patch.object(Index, "patches", return_value=[replace(seen, box=box)]):
            answer = write_top_patches(AskedPatches(index, "conv1", 0, 1, True))
        (found,) = answer.patches
        assert not found.HasField("image")
        assert found.HasField("input")
        assert (found.box.height_px, found.box.width_px) == box[2:]


def test_matches(mounted: Indices, registry: SimpleNamespace) -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "PNG")

    def read(most_bytes: int) -> object:
        request = index_pb2.SimilarRequest(top_k=3, explain_count=2)
        request.image.encoded = file.getvalue()
        return read_similar(request, Call("", 1e9), registry, limits(most_bytes), mounted)

    whole = (3 + 2 * 2 * 4) * WHOLE  # three pictures, and four attributions of float32
    read(whole)
    with pytest.raises(InvalidArgument, match=f"take {whole} bytes; at most") as refused:
        read(whole - 1)
    assert fields_of(refused.value) == ["explain_count"]
    with pytest.raises(InvalidArgument, match=f"3 matches take {3 * WHOLE} bytes") as refused:
        read(3 * WHOLE - 1)
    assert fields_of(refused.value) == ["top_k"]
