"""What is asked for a stylized image, and what the command line says of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pellucid import BadArgument, PhotoNotFound
from pellucid._stylize import stylize_request
from pellucid.cli import app
from pellucid.v1 import stylize_pb2
from PIL import Image
from typer.testing import CliRunner

PHOTO = np.zeros((4, 6, 3), np.uint8)
NONE: dict[str, Any] = {
    "mask": None,
    "start_image": None,
    "content_layers": None,
    "style_layers": None,
    "model": "",
    "format": None,
    "include_pixels": False,
    "resume_from": None,
    "parameters": {},
}


def asked(styles: Any, method: str = "fast") -> tuple[dict[str, float], list[Any], list[float]]:
    """Names with their weights, pictures, and their weights; of none 1."""
    spec, photos = stylize_request(PHOTO, styles, method=method, **NONE)
    assert photos[0][0] is spec.content

    def weight(one: stylize_pb2.NamedStyle | stylize_pb2.StylePicture) -> float:
        return one.weight if one.HasField("weight") else 1.0

    names = {one.name: weight(one) for one in spec.fast.styles}
    return names, [photo for _, photo in photos[1:]], [weight(one) for one in spec.styles]


def test_names_are_told_from_files_by_their_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not by what lies in the folder that one happens to be in."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PHOTO).save("3", "PNG")
    assert asked("3") == ({"3": 1}, [], [])
    assert asked(["3", ("starry night", 0.5)]) == ({"3": 1, "starry night": 0.5}, [], [])
    for file in ("./3", Path("3"), "a.png", "styles/a", PHOTO):
        names, [picture], weights = asked([file])
        assert (names, weights) == ({}, [1])
        assert picture is file
    assert asked("3", "neural") == ({}, ["3"], [1])


@pytest.mark.parametrize("weight", [2.0, 2])
def test_one_style_with_its_weight(weight: float) -> None:
    assert asked(("a.png", weight)) == ({}, ["a.png"], [2])
    assert asked(("a.png", weight), "neural") == ({}, ["a.png"], [2])
    assert asked(("3", weight)) == ({"3": 2}, [], [])
    assert asked(("a.png", "b.png")) == ({}, ["a.png", "b.png"], [1, 1])


def test_what_is_for_the_other_method() -> None:
    with pytest.raises(PhotoNotFound, match=r"styles\[1\]: there is no file 19; .*method='fast'"):
        asked(["a.png", "19"], "neural")
    for name in ("start_image", "content_layers", "style_layers", "resume_from"):
        with pytest.raises(BadArgument, match=f"^{name}: is for method='neural'"):
            stylize_request(PHOTO, "3", method="fast", **(NONE | {name: b"1"}))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("--style 19", "styles[0]: there is no file 19; if it is the name of a style"),
        ("--style a.png --strength 0.5", "--strength: needs --fast"),
        ("--style 19 --fast --steps 3", "--steps: is not for --fast"),
        ("--style 19 --fast --scales 2", "--scales: is not for --fast"),
        ("--style 19 --fast --video a.gif", "--video: is not for --fast"),
        ("--style 19 --fast --frame-every 2", "--frame-every: is not for --fast"),
        ("--style 19 --fast --start a.png", "--start: is not for --fast"),
        ("--style 19 --fast --content-layer a", "--content-layer: is not for --fast"),
        ("--style 19 --fast --style-layer a=2", "--style-layer: is not for --fast"),
        ("--style 19 --fast --model resnet18", "--model: is not for --fast"),
    ],
)
def test_the_command_names_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PHOTO).save("cat.png")
    result = CliRunner().invoke(app, ["stylize", "cat.png", *given.split()])
    assert result.exit_code == (1 if "no file" in says else 2)
    assert f"pellucid: {says}" in result.stderr
