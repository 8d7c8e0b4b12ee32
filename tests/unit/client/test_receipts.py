"""Receipts: what is read of them, and which photo they are of."""

import asyncio
import base64
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pellucid
import pytest
from pellucid import _wire
from pellucid._wire import photos, receipts
from pellucid._wire.arrays import array_of
from pellucid._wire.photos import image_of
from pellucid.v1 import inference_pb2

from .conftest import LOGITS, Call, FakeServer

PHOTO = b"any bytes"
SKETCH = {
    "dataType": "DATA_TYPE_FLOAT32",
    "shape": ["3"],
    "data": base64.b64encode(LOGITS.tobytes()).decode(),
}


def receipt(sent: bytes = PHOTO, **fields: Any) -> pellucid.Receipt:
    """Of an explanation by RISE of an image that was sent as these bytes."""
    made = {
        "explain": {"model": "lite", "rise": {"maskCount": 9, "seed": "4"}, "bucketSize": 2},
        "imageSha256": hashlib.sha256(sent).hexdigest(),
        "sketch": SKETCH,
    }
    return pellucid.Receipt(made | fields)


def test_the_request_is_sent_again_with_the_attribution_asked_for() -> None:
    before, rpc, request = _wire.replay_request(receipt(), PHOTO)
    assert rpc == "Explain"
    expected = inference_pb2.ExplainRequest(
        model="lite",
        rise=inference_pb2.Rise(mask_count=9, seed=4),
        bucket_size=2,
        outputs=[inference_pb2.EXPLAIN_OUTPUT_ATTRIBUTION],
    )
    expected.image.encoded = PHOTO
    assert request == expected
    np.testing.assert_array_equal(array_of(before.sketch), LOGITS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"colour": "red"}, 'no field named "colour" at "Receipt"'),
        ({"explain": {"rise": {"maskCount": 9, "cellSize": 3}}}, 'no field named "cellSize"'),
        ({"explain": {"toy": {}}}, 'no field named "toy"'),
        ({"explain": {"rise": {"maskCount": "many"}}}, "maskCount"),
        ({"sketch": SKETCH | {"shape": ["2"]}}, "its sketch is damaged"),
        ({"sketch": SKETCH | {"data": SKETCH["data"][:-4]}}, "its sketch is damaged"),
        ({"sketch": SKETCH | {"dataType": "DATA_TYPE_UNSPECIFIED"}}, "its sketch is damaged"),
        ({"sketch": {}}, "its sketch is damaged"),
    ],
)
def test_receipts_are_read_strictly(
    call: Call, server: FakeServer, fields: dict[str, Any], message: str
) -> None:
    """A parameter that is passed over would make another result."""
    with pytest.raises(pellucid.BadArgument, match=f"^receipt: cannot be read: .*{message}"):
        call("replay", receipt(**fields), PHOTO)
    assert not server.requests


def test_a_receipt_of_nothing() -> None:
    with pytest.raises(pellucid.BadArgument, match="receipt: holds no request"):
        _wire.replay_request(pellucid.Receipt({"imageSha256": "0"}), PHOTO)


PIXELS = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
PREPARED = np.linspace(-1, 1, 60, dtype=np.float32).reshape(3, 4, 5)
SENT: list[tuple[Any, bytes]] = [
    (PHOTO, PHOTO),
    (PIXELS, b"uint8 4 5 3\n" + PIXELS.tobytes()),
    (PIXELS[::-1, ::2], b"uint8 4 3 3\n" + PIXELS[::-1, ::2].tobytes()),
    (PREPARED, b"float32 3 4 5\n" + PREPARED.tobytes()),
    (PREPARED.astype(">f4"), b"float32 3 4 5\n" + PREPARED.tobytes()),
]


@pytest.mark.parametrize(("photo", "sent"), SENT, ids=range(len(SENT)))
def test_a_photo_is_known_by_its_type_its_shape_and_its_bytes(photo: Any, sent: bytes) -> None:
    _, _, request = _wire.replay_request(receipt(sent), photo)
    assert request.image == image_of(photo)


@pytest.mark.parametrize(
    ("photo", "like"),
    [
        (PIXELS.reshape(5, 4, 3), PIXELS),
        (PIXELS.reshape(2, 10, 3), PIXELS),
        (PREPARED.reshape(3, 5, 4), PREPARED),
        (PREPARED.view(np.uint8).reshape(16, 5, 3), PREPARED),
        (PIXELS.tobytes(), PIXELS),
    ],
    ids=["5 × 4", "2 × 10", "3 × 5 × 4", "uint8", "a file"],
)
def test_the_same_bytes_are_not_the_same_photo(photo: Any, like: np.ndarray[Any, Any]) -> None:
    assert (photo if isinstance(photo, bytes) else photo.tobytes()) == like.tobytes()
    shape = " ".join(map(str, like.shape))
    of_another = receipt(f"{like.dtype} {shape}\n".encode() + like.tobytes())
    _wire.replay_request(of_another, like)
    with pytest.raises(pellucid.BadArgument, match="not the one that the receipt is of"):
        _wire.replay_request(of_another, photo)


def test_the_loop_waits_for_no_photo(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is read and hashed in another thread."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(PHOTO)
    threads: list[int] = []

    def noting(work: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda given: (threads.append(threading.get_ident()), work(given))[1]

    for module, name in ((photos, "_read_file"), (receipts, "sha256_of")):
        monkeypatch.setattr(module, name, noting(getattr(module, name)))
    server.courses = [[]]

    async def call() -> None:
        async with pellucid.AsyncClient(server.address) as client:
            predicted = {"explain": None, "predict": {"bucketSize": 2}}
            await client.replay(receipt(**predicted), path)
            await client.predict(path)
            await client.explain(path)
            with pytest.raises(pellucid.Internal, match="stream is empty"):
                await client.attack(path).result()

    asyncio.run(call())
    assert len(threads) == 5
    assert threading.get_ident() not in threads
