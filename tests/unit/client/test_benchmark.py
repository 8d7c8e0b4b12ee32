"""Evidence over a folder: pointing and intervals by hand, truth.json, the report."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pellucid import BadArgument, Box, Client, benchmark
from pellucid.folders import photos_in
from pellucid.v1 import data_pb2, evidence_pb2, inference_pb2

from .conftest import FakeServer, encode, explained, measured, tensor

PHOTO = encode(np.full((40, 60, 3), 90, np.uint8), "PNG")
"""40 pixels high and 60 wide."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    path.mkdir()
    for name in ("b.png", "a.PNG"):
        (path / name).write_bytes(PHOTO)
    (path / "notes.txt").write_text("not a photo")
    return path


def tell(folder: Path, truth: Any) -> None:
    text = truth if isinstance(truth, str) else json.dumps(truth)
    (folder / "truth.json").write_text(text)


# Pointing.

SEEN = Box(10, 0, 40, 40)
"""A map of 4 × 4 has pixels of 10, whose centres are at x 15, 25, 35, 45 and y 5, 15, 25, 35."""


def peak(row: int, column: int) -> np.ndarray[Any, Any]:
    importance = np.zeros((4, 4), np.float32)
    importance[row, column] = 1
    return importance


@pytest.mark.parametrize(
    ("place", "hit"),
    [((0, 0), True), ((0, 1), True), ((0, 2), False), ((1, 0), False), ((3, 3), False)],
)
def test_pointing_by_hand(place: tuple[int, int], hit: bool) -> None:
    assert benchmark.pointing(peak(*place), SEEN, [Box(12, 0, 20, 10)]) == (hit, 2 / 16)


def test_a_pixel_is_in_a_box_by_its_centre() -> None:
    for x_px, hit in ((15, True), (15.01, False)):
        assert benchmark.pointing(peak(0, 0), SEEN, [Box(x_px, 0, 30, 10)])[0] is hit
    # The right edge is not of the box.
    for width_px, hit in ((5, False), (5.01, True)):
        assert benchmark.pointing(peak(0, 0), SEEN, [Box(10, 0, width_px, 10)])[0] is hit


def test_any_box_counts_and_overlaps_count_once() -> None:
    boxes = [Box(10, 0, 20, 10), Box(20, 0, 20, 10), Box(40, 30, 10, 10)]
    assert benchmark.pointing(peak(3, 3), SEEN, boxes) == (True, 4 / 16)


def test_of_equal_maxima_the_first_counts() -> None:
    flat = np.ones((4, 4), np.float32)
    assert benchmark.pointing(flat, SEEN, [Box(10, 0, 10, 10)])[0]
    assert not benchmark.pointing(flat, SEEN, [Box(20, 0, 30, 40)])[0]


# Intervals.


def test_an_interval_by_hand() -> None:
    # Two values: a resample's mean is 0 or 1 with a quarter each, which the ends are.
    assert benchmark.interval([0, 1]) == benchmark.Interval(0.5, 0.0, 1.0, 2)
    assert benchmark.interval([3, 3, 3]) == benchmark.Interval(3, 3, 3, 3)
    assert benchmark.interval([2]) == benchmark.Interval(2, None, None, 1)
    assert benchmark.interval([float("nan"), 2, float("inf")]) == benchmark.interval([2])
    assert benchmark.interval([]) is benchmark.interval([float("nan")]) is None


def test_an_interval_is_as_wide_as_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400).tolist()
    found = benchmark.interval(values)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    half = 1.96 * float(np.std(values)) / 20
    assert found.mean == pytest.approx(np.mean(values))
    assert found.low == pytest.approx(found.mean - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.mean + half, abs=0.1 * half)
    assert benchmark.interval(values) == found


# truth.json.


def read(folder: Path) -> tuple[str, dict[str, benchmark.Truth]]:
    return benchmark.read_truth(
        folder, {path.name: path.read_bytes() for path in photos_in(folder)}
    )


def test_truth(folder: Path) -> None:
    assert read(folder) == ("", {})
    tell(folder, {"model": "planted", "b.png": {"target": 3, "boxes": [[0, 0, 60, 40]]}})
    assert read(folder) == ("planted", {"b.png": benchmark.Truth(3, (Box(0, 0, 60, 40),))})
    tell(folder, {"a.PNG": {"target": "cat", "boxes": [[1.5, 2, 3, 4], [5, 6, 7, 8]]}})
    _, truth = read(folder)
    assert truth["a.PNG"] == benchmark.Truth("cat", (Box(1.5, 2, 3, 4), Box(5, 6, 7, 8)))
    tell(folder, {"a.PNG": {"boxes": [[0, 0, 1, 1]]}})
    assert read(folder)[1]["a.PNG"].target is None


BOX = [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ("{", r"truth.json: is not JSON: "),
        ([], r"truth.json: must be an object with an entry for each photo"),
        ({"model": 3}, r"truth.json: model: is 3; must be a name"),
        ({"c.png": {"boxes": [BOX]}}, r"names 'c.png'; there is no such photo in the folder"),
        ({"notes.txt": {"boxes": [BOX]}}, r"names 'notes.txt'; there is no such photo"),
        ({"b.png": [BOX]}, r"b.png: is \[\[0, 0, 1, 1\]\]; must have boxes, and may have a tar"),
        ({"b.png": {"target": 3}}, r"b.png: is {'target': 3}; must have boxes"),
        ({"b.png": {"boxes": [BOX], "label": "x"}}, r"must have boxes, and may have a target"),
        ({"b.png": {"target": 1.5, "boxes": [BOX]}}, r"target: is 1.5; must be a class index or"),
        ({"b.png": {"target": True, "boxes": [BOX]}}, r"target: is True; must be a class"),
        ({"b.png": {"boxes": []}}, r"boxes: is \[\]; must be at least one box in a list"),
        ({"b.png": {"boxes": BOX}}, r"boxes: is 0; must be \[x, y, width, height\] in pixels"),
        ({"b.png": {"boxes": [[0, 0, 1]]}}, r"boxes: is \[0, 0, 1\]; must be \[x, y, width"),
        ({"b.png": {"boxes": [[0, 0, 1, "1"]]}}, r"must be \[x, y, width, height\]"),
        ({"b.png": {"boxes": [[0, 0, 0, 1]]}}, r"width and height must be more than 0"),
        ({"b.png": {"boxes": [[-1, 0, 2, 2]]}}, r"must be inside the photo of 60 × 40 pixels"),
        ({"b.png": {"boxes": [[59, 0, 2, 2]]}}, r"must be inside the photo of 60 × 40 pixels"),
        ({"b.png": {"boxes": [[0, 39, 2, 2]]}}, r"must be inside the photo of 60 × 40 pixels"),
        ('{"b.png": {"boxes": [[0, 0, NaN, 2]]}}', r"must be \[x, y, width, height\]"),
    ],
)
def test_truths_that_are_refused(
    server: FakeServer, folder: Path, truth: Any, message: str
) -> None:
    tell(folder, truth)
    with Client(server.address) as client, pytest.raises(BadArgument, match=message):
        benchmark.measure(client, folder)
    assert not server.requests


def test_folders_that_are_refused(server: FakeServer, tmp_path: Path) -> None:
    with Client(server.address) as client:
        with pytest.raises(BadArgument, match=r"there is no photo in .* end with \.jpg"):
            benchmark.measure(client, tmp_path)
        with pytest.raises(BadArgument, match="is not a folder"):
            benchmark.measure(client, tmp_path / "nowhere")
    (tmp_path / "a.png").write_bytes(b"not a photo")
    tell(tmp_path, {"a.png": {"boxes": [BOX]}})
    with Client(server.address) as client, pytest.raises(BadArgument, match="read as a photo"):
        benchmark.measure(client, tmp_path)


# The report.


def answer(place: tuple[int, int], **numbers: float) -> inference_pb2.ExplainResponse:
    """A signed map with its maximum at a place, over the photo's left 40 × 40 pixels."""
    attribution = peak(*place)[None]
    attribution[0, 3, 0] = -9  # the largest magnitude is not what a signed map points at
    return explained(
        "gradient",
        attribution=tensor(attribution),
        input_box=data_pb2.Box(width_px=40, height_px=40),
        evidence=measured(**numbers),
    )


def test_report(server: FakeServer, folder: Path) -> None:
    server.by_method["gradient"] = answer((0, 0), insertion_area=0.625)
    server.by_method["rise"] = answer((3, 3), insertion_area=0.875)
    server.by_method["attention_rollout"] = "a <bug>"
    tell(folder, {"model": "planted", "b.png": {"target": 2, "boxes": [[0, 0, 10, 20]]}})
    progress: list[tuple[int, int]] = []
    with Client(server.address) as client:
        report = benchmark.measure(
            client, folder, on_progress=lambda *counts: progress.append(counts)
        )
    assert progress == [(n, 6) for n in range(1, 7)]
    assert {one.model for one in server.requests} == {"planted"}
    explains = [one for one in server.requests if isinstance(one, inference_pb2.ExplainRequest)]
    assert sum(one.target.class_index == 2 for one in explains) == 3

    assert list(report.table) == ["rise", "gradient", "attention_rollout", "shuffled", "chance"]
    assert report.table["gradient"]["gain"] == benchmark.Interval(0.125, 0.125, 0.125, 2)
    assert report.table["gradient"]["pointing"] == benchmark.Interval(1, None, None, 1)
    assert report.table["rise"]["pointing"].mean == 0
    assert report.table["chance"]["pointing"].mean == 2 / 16
    assert report.table["shuffled"]["pointing"].mean in (0, 1)
    assert report.table["attention_rollout"] == {}
    assert set(report.charts) == {"rise", "gradient"}
    assert report.photos["b.png"]["methods"]["attention_rollout"] == {"error": "a <bug>"}

    page, results = report.save(folder / "out" / "report")
    fields = json.loads(results.read_text())
    assert fields["methods"]["rise"]["insertion"]["mean"] == 0.875
    assert fields["photos"]["b.png"]["methods"]["gradient"]["pointing"] is True
    assert "pointing" not in fields["photos"]["a.PNG"]["methods"]["gradient"]
    assert fields["modelVersion"] == "0123456789ab"
    assert fields["photoCount"] == 2
    check(page.read_text())


def check(page: str) -> None:
    """The page is whole, and needs nothing beside it."""
    assert "0.375 [0.375, 0.375]" in page
    assert "a &lt;bug&gt;" in page
    assert "<bug>" not in page
    assert "arXiv:1608.00507" in page

    class Reader(HTMLParser):
        tags: tuple[str, ...] = ()
        sources: tuple[str, ...] = ()

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            self.tags += (tag,)
            self.sources += tuple(v or "" for name, v in attributes if name in ("src", "href"))

    reader = Reader()
    reader.feed(page)
    assert not {"script", "link", "iframe"} & set(reader.tags)
    assert len(reader.sources) == 3  # two charts and the sheet
    assert all(source.startswith("data:image/") for source in reader.sources)
    assert not re.search(r"url\(|@import|https?:", page)


def test_a_report_without_truth(server: FakeServer, folder: Path) -> None:
    with Client(server.address) as client:
        report = benchmark.measure(client, folder, ["gradient"], evidence=("curves",))
    assert list(report.table) == ["gradient"]
    assert set(report.measures) == {"row_count"}  # the fake server sends no evidence
    assert server.requests[1].evidence == evidence_pb2.Evidence(curves=evidence_pb2.Curves())
    assert report.lines() == [("method", "rows"), ("gradient", "1 [1, 1]")]
    assert "Mean curves" not in report.page()


def test_renderings_are_asked_for_while_they_are_shown(
    server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "SHOWN_PHOTOS", 1)
    with Client(server.address) as client:
        benchmark.measure(client, folder, ["gradient"])
    asked = [list(one.outputs) for one in server.requests if hasattr(one, "outputs")]
    rendering = inference_pb2.EXPLAIN_OUTPUT_RENDERING
    assert [rendering in outputs for outputs in asked] == [True, False]
    assert all(inference_pb2.EXPLAIN_OUTPUT_ATTRIBUTION in outputs for outputs in asked)
