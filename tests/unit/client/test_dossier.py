"""All that shows what a unit is after, put together from what a client is told."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pellucid import BadArgument, FailedPrecondition, Neuron, _wire, dossier, types
from pellucid.v1 import model_pb2
from PIL import Image

SIDE_PX = 8
MEAN, STD = (0.5, 0.25, 0.125), (0.5, 2.0, 4.0)


def model(*, gated: bool = True) -> types.Model:
    response = model_pb2.GetModelResponse(
        name="lite",
        ready=True,
        preprocessing=model_pb2.Preprocessing(
            height_px=SIDE_PX, width_px=SIDE_PX, mean=MEAN, std=STD
        ),
        layers=[
            model_pb2.Layer(
                name="maps",
                shape=[5, 4, 4],
                targetable=True,
                grid=[4, 4],
                layout=model_pb2.LAYOUT_MAPS,
            ),
            model_pb2.Layer(
                name="last",
                shape=[4, 4, 6],
                targetable=True,
                grid=[4, 4],
                layout=model_pb2.LAYOUT_MAPS_CHANNELS_LAST,
            ),
            model_pb2.Layer(
                name="dense", shape=[3], targetable=True, layout=model_pb2.LAYOUT_CHANNELS
            ),
            model_pb2.Layer(name="other", shape=[3, 2]),
        ],
        methods=[
            model_pb2.MethodSupport(method="guided_backprop", supported=gated, reason="no gates"),
            model_pb2.MethodSupport(method="deconvnet", supported=gated, reason="no gates"),
        ],
    )
    return _wire.model(response)


def picture(seed: int, side_px: int = SIDE_PX) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (side_px, side_px, 3), np.uint8)
    )


class FakeClient:
    """A server's answers, made by hand."""

    def __init__(self, known: types.Model | None = None) -> None:
        self.known = known or model()
        self.explained: list[tuple[Any, str, dict[str, Any]]] = []
        self.optimized: list[tuple[Any, dict[str, Any]]] = []
        self.no_index = self.no_optimization = self.no_explanation = False
        numbers = np.arange(3.0 * SIDE_PX**2, dtype=np.float32)
        self.attribution = numbers.reshape(3, SIDE_PX, SIDE_PX)

    def get_model(self, name: str = "", *, timeout_s: float | None = None) -> types.Model:
        return self.known

    def optimize(self, objectives: Neuron, **options: Any) -> Any:
        self.optimized.append((objectives, options))
        if self.no_optimization:
            raise FailedPrecondition("no image can be made")
        best = SimpleNamespace(image=picture(9, 16), score=4.25)
        return SimpleNamespace(result=lambda: SimpleNamespace(best=best))

    def top_patches(self, layer: str, channel: int, **options: Any) -> Any:
        if self.no_index:
            raise FailedPrecondition("no index is mounted")
        assert options["include_photos"]
        patches = [
            SimpleNamespace(
                photo=f"{n}.jpg",
                activation=10.0 - n,
                y=n,
                x=3 - n,
                box=types.Box(x_px=n, y_px=2, width_px=3, height_px=4),
                image=picture(n).crop((n, 2, n + 3, 6)),
                input=picture(n),
            )
            for n in range(min(3, options["top_k"]))
        ]
        return SimpleNamespace(
            patches=patches, edges=np.array([0.0, 5, 10]), counts=np.array([1, 2])
        )

    def explain(self, photo: Any, method: str, **options: Any) -> Any:
        self.explained.append((photo, method, options))
        if self.no_explanation:
            raise FailedPrecondition("not this time")
        return SimpleNamespace(attribution=self.attribution)


def test_patches_are_explained_where_they_excite_the_unit() -> None:
    client = FakeClient()
    made = dossier.unit(client, "maps", 4, step_count=7)
    assert made.missing == ()
    assert made.method == "guided_backprop"
    assert client.optimized[0][0] == Neuron("maps", 4)
    assert client.optimized[0][1]["preset"] == "olah"
    assert client.optimized[0][1]["step_count"] == 7
    by_target = {options["target"]: photo for photo, _, options in client.explained}
    assert set(by_target) == {Neuron("maps", 4, n, 3 - n) for n in range(3)}
    seen = np.asarray(picture(1)) / 255
    expected = (seen - np.array(MEAN)) / np.array(STD)
    sent = by_target[Neuron("maps", 4, 1, 2)]
    assert sent.dtype == np.float32
    np.testing.assert_allclose(sent, expected.transpose(2, 0, 1), rtol=1e-6)
    for n, cut in enumerate(made.explanations):
        assert cut is not None
        assert np.array_equal(cut, client.attribution[:, 2:6, n : n + 3])


def test_a_place_that_sees_padding_alone() -> None:
    """Nothing of its photo excites it: there is nothing to show, and nothing to explain."""
    client, given = FakeClient(), FakeClient().top_patches

    def top_patches(layer: str, channel: int, **options: Any) -> Any:
        found = given(layer, channel, **options)
        found.patches[1].box = types.Box(x_px=0, y_px=0, width_px=0, height_px=4)
        found.patches[1].image = None
        return found

    client.top_patches = top_patches
    made = dossier.unit(client, "maps", 2)
    assert [one is None for one in made.explanations] == [False, True, False]
    assert len(client.explained) == 2
    assert not made.missing
    made.sheet()


def test_units_without_places(tmp_path: Path) -> None:
    client = FakeClient()
    made = dossier.unit(client, "dense", 2, patch_count=1)
    assert [options["target"] for _, _, options in client.explained] == [Neuron("dense", 2)]
    made.save(tmp_path / "unit.png")
    with Image.open(tmp_path / "unit.png") as sheet:
        assert sheet.mode == "RGB"
    with pytest.raises(BadArgument, match="must end with"):
        made.save(tmp_path / "unit.txt")


def test_the_sheet_has_all_of_it() -> None:
    whole = dossier.unit(FakeClient(), "maps", 4).sheet(cell_px=64)
    client = FakeClient()
    client.no_index = True
    alone = dossier.unit(client, "maps", 4).sheet(cell_px=64)
    assert alone.width < whole.width  # a picture, and three side by side
    assert alone.height < whole.height
    colors = np.asarray(whole).reshape(-1, 3)
    assert (colors == (70, 110, 160)).all(1).any()  # bars
    assert (np.asarray(alone).reshape(-1, 3) == (150, 40, 40)).all(1).any()  # what is missing


def test_what_fails_is_said_to_be_missing() -> None:
    client = FakeClient()
    client.no_index = True
    made = dossier.unit(client, "maps", 0)
    assert made.missing == ("patches: no index is mounted",)
    assert made.found is None
    assert made.explanations == ()
    client = FakeClient()
    client.no_optimization = client.no_explanation = True
    made = dossier.unit(client, "maps", 0)
    assert made.missing == (
        "optimized image: no image can be made",
        "guided_backprop: not this time",
    )
    assert made.optimized is None
    assert made.explanations == (None,) * 3
    made.sheet()
    made = dossier.unit(FakeClient(model(gated=False)), "maps", 0)
    assert made.missing == ("guided_backprop: no gates",)
    assert made.method == ""
    made.sheet()


def test_where_nothing_can_be_made_the_reason_is_raised() -> None:
    client = FakeClient()
    client.no_index = client.no_optimization = True
    with pytest.raises(FailedPrecondition, match="no image can be made"):
        dossier.unit(client, "maps", 0)


@pytest.mark.parametrize(
    ("layer", "channel", "why"),
    [
        ("nope", 0, "'nope' is not a layer of lite"),
        ("other", 0, "'other' is not a layer of lite that can be a target"),
        ("maps", 5, "is 5; must be 0 to 4"),
        ("last", 6, "is 6; must be 0 to 5"),
        ("dense", -1, "is -1; must be 0 to 2"),
    ],
)
def test_units_that_there_are_not(layer: str, channel: int, why: str) -> None:
    with pytest.raises(BadArgument, match=why):
        dossier.unit(FakeClient(), layer, channel)


def test_a_histogram() -> None:
    """Bars of 1, 0 and 2: half as high, none, and all of the height."""
    chart = np.asarray(
        dossier.histogram(np.array([0.0, 1, 2, 3]), np.array([1, 0, 2]), side_px=160)
    )
    bars = (chart == (70, 110, 160)).all(2)
    heights = bars.sum(0)
    assert set(heights[60:100]) == {0}
    assert heights[20] * 2 == pytest.approx(heights[140], abs=1)
    assert bars.any(0)[11:150].sum() > 80
