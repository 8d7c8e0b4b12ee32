"""Maps on a real server: both protocols, both clients, the command line."""

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pellucid
import pytest
from pellucid.cli import app
from pellucid.v1 import codes_pb2, data_pb2, service_pb2_grpc
from pellucid_server.errors import Unavailable
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from typer.testing import CliRunner

from tests.harness import photo

SHORT: dict[str, Any] = {"early_exaggeration_step_count": 20, "step_count": 30}
DIGITS = load_digits().data[:120].astype(np.float32)


@pytest.fixture(scope="module")
def client(served: Any) -> Iterator[pellucid.Client]:
    with pellucid.Client(served.grpc, timeout_s=120) as client:
        yield client


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    """Eight crops of two photos."""
    return [
        np.ascontiguousarray(photo(name)[y : y + 96, x : x + 96])
        for name in ("cat", "coffee")
        for y, x in ((0, 0), (60, 120), (120, 40), (150, 200))
    ]


def test_codes_become_a_map_and_progress_streams(client: pellucid.Client) -> None:
    with client.project(DIGITS, step_count=300) as making:
        events = list(making)
        result = making.result()
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages[-1] == "optimize"
    steps = [event.step for event in events if event.stage == "optimize"]
    assert len(steps) > 3
    assert steps == sorted(steps)
    assert events[-1].step_count == 550
    assert result.points.shape == (120, 2)
    assert trustworthiness(DIGITS, result.points, n_neighbors=10) > 0.95
    assert result.parameters["method"] == "t_sne"
    assert result.parameters["perplexity"] == 30
    assert result.parameters["component_count"] == 50
    assert result.divergence > 0
    assert result.codes is None is result.run


def test_the_same_seed_gives_the_same_map_on_both_clients(
    served: Any, client: pellucid.Client
) -> None:
    first = client.project(DIGITS, seed=3, **SHORT).result()

    async def again(seed: int) -> pellucid.CodeMap:
        async with pellucid.AsyncClient(served.grpc) as asynchronous:
            return await asynchronous.project(DIGITS, seed=seed, **SHORT).result()

    assert np.array_equal(asyncio.run(again(3)).points, first.points)
    assert not np.array_equal(asyncio.run(again(4)).points, first.points)


def test_photos_become_codes_first(client: pellucid.Client, photos: list[np.ndarray]) -> None:
    with client.project(photos, "pca", grid=True) as making:
        events = list(making)
        result = making.result()
    assert max(event.step for event in events if event.stage == "embed") <= 8
    assert result.codes.shape == (8, 1280)
    expected = PCA(2).fit_transform(result.codes.astype(np.float64))
    signs = np.sign((expected * result.points).sum(0))
    np.testing.assert_allclose(result.points, expected * signs, rtol=1e-3, atol=1e-3)
    assert result.grid_shape == (3, 3)
    assert len({tuple(place) for place in result.places.tolist()}) == 8
    assert result.run.model == "efficientnet_lite0"
    assert result.run.run_ms > 0
    alone = client.project(result.codes, "pca").result()
    assert np.array_equal(alone.points, result.points)


def test_new_photos_are_placed_on_a_map(client: pellucid.Client, photos: list[np.ndarray]) -> None:
    """By principal components a photo that the map has lies where it was."""
    made = client.project(photos, "pca").result()
    placed = client.project([photos[5], photos[0]], "pca", onto=(made.codes, made.points)).result()
    np.testing.assert_allclose(placed.points, made.points[[5, 0]], rtol=1e-3, atol=1e-2)
    assert placed.codes.shape == (2, 1280)
    assert placed.notes == ()


def test_new_codes_are_placed_beside_their_like(client: pellucid.Client) -> None:
    made = client.project(DIGITS, step_count=300).result()
    near = DIGITS[:20] + np.float32(0.01)
    placed = client.project(near, onto=(DIGITS, made.points)).result()
    span = np.ptp(made.points, 0).max()
    off = np.linalg.norm(placed.points - made.points[:20], axis=1)
    assert np.median(off) < 0.05 * span


def test_cancelling_stops_the_solver(served: Any, client: pellucid.Client) -> None:
    started, ended = threading.Event(), threading.Event()

    def watch() -> None:
        with client.project(DIGITS, step_count=10_000) as making:
            for event in making:
                if event.stage == "optimize":
                    started.set()
                    break
        ended.set()

    thread = threading.Thread(target=watch)
    thread.start()
    assert started.wait(60)
    assert ended.wait(10)
    thread.join()
    processes = served.server.service._projecting._processes
    until_s = time.monotonic() + 10
    while processes._running:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    assert client.project(DIGITS[:20], **SHORT).result().points.shape == (20, 2)


def test_the_deadline_stops_it_too(client: pellucid.Client) -> None:
    with pytest.raises(pellucid.DeadlineExceeded):
        client.project(DIGITS, step_count=10_000, timeout_s=1.0).result()


def test_rest_streams_events(served: Any, client: pellucid.Client) -> None:
    tensor = {
        "dataType": "DATA_TYPE_FLOAT32",
        "shape": list(DIGITS.shape),
        "data": base64.b64encode(DIGITS.tobytes()).decode(),
    }
    body = {"codes": tensor, "tSne": {"stepCount": 30, "earlyExaggerationStepCount": 20}}
    answer = httpx.post(f"{served.http}/v1/project", json=body, timeout=120)
    assert answer.status_code == 200
    events = [part.split("\n", 1) for part in answer.text.strip().split("\n\n")]
    assert events[0][0] == "event: progress"
    name, content = events[-1]
    assert name == "event: result"
    result = json.loads(content.removeprefix("data: "))
    points = np.frombuffer(base64.b64decode(result["points"]["data"]), "<f4").reshape(-1, 2)
    assert np.array_equal(points, client.project(DIGITS, **SHORT).result().points)


def test_a_form_brings_photos(served: Any, photos: list[np.ndarray], tmp_path: Path) -> None:
    sent = []
    for place, one in enumerate(photos):
        Image.fromarray(one).save(tmp_path / f"{place}.png")
        sent.append(("photos", (f"{place}.png", (tmp_path / f"{place}.png").read_bytes())))
    data = {"method": "pca", "layer": "blocks.5.1", "pooling": "max"}
    answer = httpx.post(f"{served.http}/v1/project", data=data, files=sent, timeout=120)
    name, _, content = answer.text.strip().split("\n\n")[-1].partition("\n")
    assert name == "event: result"
    result = json.loads(content.removeprefix("data: "))
    assert result["codes"]["shape"] == ["8", "192"]
    assert result["spec"]["layer"] == "blocks.5.1"


@pytest.mark.parametrize(
    ("items", "options", "complaint"),
    [
        (DIGITS[:1], {}, "codes: is 1: there is no map to make; t_sne needs at least 4"),
        (DIGITS[:3], {}, "codes: are 3; t_sne needs at least 4"),
        (DIGITS[[0] * 9], {}, "codes: are 9, and all codes are equal: there is no map to make"),
        (DIGITS[:20], {"perplexity": 8}, "t_sne.perplexity: is 8; must be 1 to 6.333"),
        (DIGITS[:20], {"component_count": 21}, "component_count: is 21; must be 2 to 20"),
        (DIGITS[:20], {"layer": "blocks.5"}, "layer: is for photos; these codes come from"),
        (DIGITS[:20], {"method": "umap", "neighbor_count": 20}, "umap.neighbor_count: is 20"),
        (0 * DIGITS[:5], {"metric": "cosine"}, "code 0 is 0, which has no direction"),
        (np.ones((20_001, 2), np.float32), {}, "codes: are 20001; at most 20000"),
        (np.eye(2001, dtype=np.float32)[:, :4], {"grid": True}, "grid: is for at most 2000"),
        (DIGITS, {"early_exaggeration": 0.5, "seed": -1}, "early_exaggeration: is 0.5.*seed"),
        ([], {}, "photos: required; or codes"),
    ],
)
def test_what_is_wrong(
    client: pellucid.Client, items: Any, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(pellucid.InvalidArgument, match=complaint):
        client.project(items, **options).result()


def test_codes_that_are_not_finite_are_refused_by_their_row(served: Any) -> None:
    """By the client before they are sent, and by the server for others."""
    codes = DIGITS[:9].copy()
    codes[7, 3] = np.nan
    message = codes_pb2.ProjectRequest
    tensor = data_pb2.Tensor(data_type=2, shape=(3, 64))
    with (
        pellucid.Client(served.grpc) as client,
        pytest.raises(pellucid.BadArgument, match="row 7 is not finite"),
    ):
        client.project(codes)
    with grpc.insecure_channel(served.grpc) as channel:
        stub = service_pb2_grpc.PellucidServiceStub(channel)
        parts = [
            message(codes=data_pb2.Tensor(data_type=2, shape=(3, 64), data=part.tobytes()))
            for part in np.split(codes, 3)
        ]
        spec = message(spec=codes_pb2.ProjectSpec())
        other = message(codes=data_pb2.Tensor(data_type=2, shape=(1, 2), data=bytes(8)))
        image = message(image=data_pb2.Image(encoded=b"none"))
        for messages, complaint in (
            ([spec, *parts], "codes.data: row 7 is not finite"),
            ([spec, parts[0], other], "must be codes × 64"),
            ([spec, parts[0], image], "image: must not come after codes"),
            ([spec, parts[0], spec], "spec: only the first message has a spec"),
            ([spec, message(codes=tensor)], "codes.data: has 0 bytes"),
            ([parts[0]], "spec: required in the first message"),
            ([spec, image], r"photos\[0\].encoded"),
        ):
            with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT") as caught:
                list(stub.Project(iter(messages)))
            assert complaint.replace("\\", "") in caught.value.details()


def test_maps_that_do_not_fit(client: pellucid.Client, photos: list[np.ndarray]) -> None:
    points = DIGITS[:, 20:22]
    with pytest.raises(pellucid.BadArgument, match="have 5 numbers each; the map's have 64"):
        client.project(DIGITS[:, :5].copy(), onto=(DIGITS, points))
    for items, onto, options, complaint in (
        (photos, (DIGITS, points), {}, "make codes of 1280 numbers .* the map's have 64"),
        (DIGITS[:1], (DIGITS[:9], points[:10]), {}, "are 10, and the map has 10 points"),
        (DIGITS[:1], (DIGITS[:9], points[:9]), {"method": "umap"}, "map: is not for umap"),
        (DIGITS[:1], (DIGITS[:3], points[:3]), {}, "map: are 3; t_sne needs at least 4"),
    ):
        with pytest.raises(pellucid.InvalidArgument, match=complaint):
            client.project(items, onto=onto, **options).result()


def test_equal_codes_share_a_point_and_are_noted(client: pellucid.Client) -> None:
    result = client.project(DIGITS[[*range(30), 4, 4, 9]], **SHORT).result()
    assert np.array_equal(result.points[30:], result.points[[4, 4, 9]])
    assert result.notes == ("3 of 33 codes equal another one: equal codes share a point",)
    assert result.parameters["perplexity"] == pytest.approx(29 / 3)


def test_a_photo_that_is_missing_is_named(client: pellucid.Client, tmp_path: Path) -> None:
    Image.fromarray(photo("cat")[:96, :96]).save(tmp_path / "one.png")
    with pytest.raises(pellucid.PhotoNotFound, match=r"two\.png"):
        client.project([tmp_path / "one.png", tmp_path / "two.png"]).result()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photos: list[np.ndarray]) -> Path:
    made = tmp_path_factory.mktemp("photos")
    for place, one in enumerate(photos):
        inside = made / ("cats" if place < 4 else "cups")
        inside.mkdir(exist_ok=True)
        Image.fromarray(one).save(inside / f"{place}.png")
    return made


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["map", *map(str, arguments)])


def test_the_command_line_maps_a_folder_and_places_on_it(
    served: Any, folder: Path, tmp_path: Path
) -> None:
    made = run(
        folder, "-o", tmp_path / "map.png", "--json", tmp_path / "map.json",
        "--points", tmp_path / "map.npz", "--grid", tmp_path / "grid.jpg", "--tile", 32,
        "--color", "class", "-p", "step_count=50", "--server", served.grpc,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert "perplexity  2.33" in made.output
    for name, size in (("map.png", (1120, 800)), ("grid.jpg", (96, 96))):
        with Image.open(tmp_path / name) as picture:
            assert picture.size == size
    told = json.loads((tmp_path / "map.json").read_text())
    assert [one["photo"] for one in told["points"]][:2] == ["cats/0.png", "cats/1.png"]
    assert {(one["row"], one["column"]) for one in told["points"]} <= set(np.ndindex(3, 3))
    assert told["parameters"]["step_count"] == 50
    assert all(isinstance(one["value"], str) for one in told["points"])
    placed = run(
        folder / "cups", "-o", tmp_path / "onto.png", "--onto", tmp_path / "map.npz",
        "--json", tmp_path / "onto.json", "--color", "score", "--server", served.grpc,
    )  # fmt: skip
    assert placed.exit_code == 0, placed.output
    points = json.loads((tmp_path / "onto.json").read_text())["points"]
    assert len(points) == 4
    assert all(0 < one["value"] <= 1 for one in points)


def test_the_command_line_maps_codes(served: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "codes.npy", DIGITS[:40])
    np.save(tmp_path / "value.npy", load_digits().target[:40])
    made = run(
        tmp_path / "codes.npy", "--method", "pca", "-o", tmp_path / "map.png",
        "--color", tmp_path / "value.npy", "--points", tmp_path / "map.npz",
        "--server", served.grpc,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    saved = pellucid.load_map(tmp_path / "map.npz")
    assert np.array_equal(saved.codes, DIGITS[:40])
    again = run(
        tmp_path / "codes.npy", "--method", "pca", "-o", tmp_path / "onto.png",
        "--onto", tmp_path / "map.npz", "--json", tmp_path / "onto.json", "--server", served.grpc,
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    points = json.loads((tmp_path / "onto.json").read_text())["points"]
    placed = np.array([[one["x"], one["y"]] for one in points])
    np.testing.assert_allclose(placed, saved.points, rtol=1e-3, atol=1e-3)


def test_what_is_wrong_with_a_command(served: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    Image.fromarray(photo("cat")[:96, :96]).save(tmp_path / "one" / "cat.png")
    (tmp_path / "bad").mkdir()
    for place in range(4):
        (tmp_path / "bad" / f"{place}.png").write_bytes(b"none")
    np.save(tmp_path / "codes.npy", DIGITS[:9])
    pellucid.SavedMap(DIGITS[:9], DIGITS[:9, 20:22], ("",) * 9, {"model": "other"}, "0" * 12).save(
        tmp_path / "other.npz"
    )
    for arguments, code, complaint in (
        (["empty"], 2, "there is no photo in"),
        (["one"], 1, "is 1: there is no map to make"),
        (["bad"], 1, "is 0.png"),
        ([folder, "--perplexity", "5"], 1, "t_sne.perplexity: is 5; must be 1 to 2.333"),
        ([folder, "--method", "som"], 2, "--method: is 'som'; must be tsne, umap, pca"),
        ([folder, "-p", "steps=3"], 2, "names are perplexity, early_exaggeration"),
        ([folder, "--onto", tmp_path / "other.npz"], 2, "is of other 000000000000; the server's"),
        (["codes.npy", "--grid", "grid.jpg"], 2, "are for photos"),
        ([folder, "-o", "map.gif"], 2, "must end with"),
        ([folder, "--points", "map.npy"], 2, "must end with .npz"),
        ([folder, "--onto", tmp_path / "codes.npy"], 2, "is no map that was saved here"),
    ):
        source = arguments[0] if arguments[0] is folder else tmp_path / arguments[0]
        made = run(source, *arguments[1:], "--server", served.grpc)
        assert made.exit_code == code, (arguments, made.output)
        assert complaint in made.output, arguments


def test_a_full_queue_and_a_process_that_dies(served: Any) -> None:
    processes = served.server.service._projecting._processes
    usual, processes._most_waiting = processes._most_waiting, 0
    try:
        with (
            pellucid.Client(served.grpc, max_retries=0) as client,
            client.project(DIGITS, step_count=10_000) as making,
        ):
            while next(making).stage != "optimize":
                pass
            with pytest.raises(pellucid.ResourceExhausted) as caught:
                client.project(DIGITS[:9], **SHORT).result()
            assert caught.value.retry_delay_s
            [process] = processes._running.values()
            process.kill()  # as the kernel would
            with pytest.raises(pellucid.ResourceExhausted, match="the system ended its process"):
                making.result()
            assert client.project(DIGITS[:9], **SHORT).result().points.shape == (9, 2)
    finally:
        processes._most_waiting = usual


def test_a_stopping_server_leaves_no_process(make_server: Any) -> None:
    with make_server() as running, pellucid.Client(running.grpc) as client:
        client.project(DIGITS[:9], "pca").result()
        processes = running.server.service._projecting._processes
        assert any(thread.is_alive() for thread in processes._threads)
    assert not any(thread.is_alive() for thread in processes._threads)
    with pytest.raises(Unavailable):
        processes.submit("builtins:print", (), time.monotonic() + 1)
