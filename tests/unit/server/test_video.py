"""Streams of video without a protocol: what waits, what is dropped, how streams end."""

import asyncio
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from pellucid.v1 import data_pb2, stylize_pb2, video_pb2
from pellucid_server import wire
from pellucid_server.api.video import Waiting
from pellucid_server.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from pellucid_server.methods.optimize.optimize import Buckets
from pellucid_server.models.styles.library import Library, style_loads
from PIL import Image

from tests.harness import photo

CALL = wire.Call("me", time.monotonic() + 86_400)  # since collection, whenever tests are run
LIMITS = wire.Limits(10**6, (1, 2), 1 << 16, Buckets(2), b"")
BASE = photo("cat")


def image(height_px: int = 48, width_px: int = 64, at: int = 0) -> data_pb2.Image:
    pixels = BASE[at : at + height_px, at : at + width_px]
    tensor = data_pb2.Tensor(
        data_type=data_pb2.DATA_TYPE_UINT8, shape=pixels.shape, data=pixels.tobytes()
    )
    return data_pb2.Image(tensor=tensor)


def asked(**fields: Any) -> video_pb2.StylizeVideoSpec:
    spec = video_pb2.StylizeVideoSpec(**fields)
    if not spec.fast.styles and not spec.styles:
        spec.fast.styles.add(name="19")
    return spec


@pytest.fixture(scope="module")
def library(styles: Path) -> Library:
    return Library([load() for load in style_loads(styles, device=torch.device("cpu"))])


# What waits.


def test_the_oldest_makes_room() -> None:
    async def go() -> None:
        waiting: Waiting[int] = Waiting(4, keeps_all=False)
        assert [await waiting.put(i) for i in range(7)] == [None] * 4 + [0, 1, 2]
        assert waiting.most_count == 4
        assert await waiting.get() == 3
        assert await waiting.put(7) is None
        assert await waiting.put(8) == 4
        waiting.end()
        assert [await waiting.get() for _ in range(5)] == [5, 6, 7, 8, None]

    asyncio.run(go())


def test_or_who_puts_waits_for_room() -> None:
    async def go() -> None:
        waiting: Waiting[int] = Waiting(2, keeps_all=True)
        put: list[int] = []

        async def put_all() -> None:
            for i in range(5):
                assert await waiting.put(i) is None
                put.append(i)
            waiting.end()

        putting = asyncio.create_task(put_all())
        got = []
        await asyncio.sleep(0)
        assert put == [0, 1]
        while (one := await waiting.get()) is not None:
            got.append(one)
            await asyncio.sleep(0)
            assert len(put) - len(got) <= 2
        await putting
        assert got == [0, 1, 2, 3, 4]
        assert waiting.most_count == 2

    asyncio.run(go())


def test_who_gets_waits_until_something_is_put() -> None:
    async def go() -> None:
        waiting: Waiting[int] = Waiting(1, keeps_all=False)
        getting = asyncio.create_task(waiting.get())
        await asyncio.sleep(0)
        assert not getting.done()
        await waiting.put(1)
        assert await getting == 1
        getting = asyncio.create_task(waiting.get())
        await asyncio.sleep(0)
        waiting.end()
        assert await getting is None

    asyncio.run(go())


# Specs.


def test_a_spec_is_filled_in(library: Library) -> None:
    made = wire.read_video(asked(), library, LIMITS)
    assert not made.keeps_all
    assert not made.resized
    settings = made.settings
    assert (settings.overflow, settings.smoothing) == (video_pb2.VIDEO_OVERFLOW_DROP_OLDEST, 0)
    assert (settings.format, settings.quality) == (video_pb2.FRAME_FORMAT_JPEG, 90)
    assert settings.frame_timeout_ms == 30_000
    assert settings.fast.strength == 1
    assert not settings.fast.HasField("side_px")
    assert [(one.name, one.weight) for one in settings.fast.styles] == [("19", 1)]
    raw = wire.read_video(asked(format=video_pb2.FRAME_FORMAT_RGB), library, LIMITS)
    assert not raw.settings.HasField("quality")


def test_all_that_is_wrong_with_a_spec_is_told(library: Library) -> None:
    spec = asked(smoothing=0.99, quality=0, frame_timeout_ms=0)
    spec.fast.side_px = 63
    spec.fast.bucket_size = 3
    with pytest.raises(InvalidArgument) as caught:
        wire.read_video(spec, library, LIMITS)
    assert {one.field for one in caught.value.violations} == {
        "smoothing",
        "quality",
        "frame_timeout_ms",
        "fast.side_px",
        "fast.bucket_size",
    }
    assert "smoothing: is 0.99; must be 0 to 0.95" in caught.value.message
    matched = asked()
    matched.fast.original_colors = stylize_pb2.ORIGINAL_COLORS_HISTOGRAM
    with pytest.raises(InvalidArgument, match="is ORIGINAL_COLORS_HISTOGRAM; must be"):
        wire.read_video(matched, library, LIMITS)
    both = asked()
    both.styles.add(image=image())
    with pytest.raises(InvalidArgument, match=r"fast\.styles: either names .* both came"):
        wire.read_video(both, library, LIMITS)
    with pytest.raises(InvalidArgument, match="neither did"):
        wire.read_video(video_pb2.StylizeVideoSpec(), library, LIMITS)
    with pytest.raises(NotFound, match=r"is 'mosaic'; styles are: 0, 1"):
        wire.read_video(asked(fast={"styles": [{"name": "mosaic"}]}), library, LIMITS)
    with pytest.raises(FailedPrecondition, match="`pellucid models pull styles` fetches them"):
        wire.read_video(asked(), Library(), LIMITS)


# Frames.


def test_frames_are_of_one_size(library: Library) -> None:
    made = wire.read_video(asked(), library, LIMITS)
    reader = wire.FrameReader(made, wire.named_code(made), LIMITS)

    def read(one: data_pb2.Image) -> Any:
        nonlocal reader
        spec, reader = reader.read(video_pb2.VideoFrame(image=one), CALL)
        return spec

    with pytest.raises(InvalidArgument, match=r"frame\.image.* is too narrow.* at least 32"):
        read(image(31, 64))
    with pytest.raises(InvalidArgument, match=r"frame\.image: makes .* at most 65536 fit"):
        read(image(256, 257))
    with pytest.raises(InvalidArgument, match=r"frame\.image: required"):
        reader.read(video_pb2.VideoFrame(), CALL)
    assert read(image(48, 64)).method.size == (48, 64)  # those before did not fix it
    with pytest.raises(InvalidArgument, match=r"of 64 × 48 pixels, and the stream of 48 × 64"):
        read(image(64, 48))
    file = BytesIO()
    Image.fromarray(BASE[:48, :64]).save(file, "PNG")
    assert read(data_pb2.Image(encoded=file.getvalue())).method.size == (48, 64)


def test_frames_are_resized_where_that_is_asked(library: Library) -> None:
    made = wire.read_video(asked(fast={"side_px": 96, "styles": [{"name": "3"}]}), library, LIMITS)
    reader = wire.FrameReader(made, wire.named_code(made), LIMITS)
    spec, reader = reader.read(video_pb2.VideoFrame(image=image(48, 64)), CALL)
    assert spec.method.size == (72, 96)
    assert spec.source.load(None).input.shape == (3, 72, 96)
    with pytest.raises(InvalidArgument, match="of 96 × 128 pixels, and the stream of 48 × 64"):
        reader.read(video_pb2.VideoFrame(image=image(96, 128)), CALL)
