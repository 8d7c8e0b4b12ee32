"""Films, read back."""

import sys
from pathlib import Path

import av
import imageio.v3 as imageio
import numpy as np
import pellucid
import pytest
from pellucid import film
from pellucid.cli import app
from PIL import Image
from typer.testing import CliRunner

COLORS = [(200, 30, 20), (20, 180, 40), (40, 60, 220)]
SIZES = [(32, 20), (48, 30), (65, 41)]


@pytest.fixture
def pictures() -> list[Image.Image]:
    """Plain ones, each larger than the one before, as octaves are."""
    return [Image.new("RGB", size, color) for size, color in zip(SIZES, COLORS, strict=True)]


def test_a_gif_is_of_the_last_pictures_size(pictures: list[Image.Image], tmp_path: Path) -> None:
    film.write_film(tmp_path / "a.gif", pictures)
    back = imageio.imread(tmp_path / "a.gif", plugin="pillow", mode="RGB")
    assert back.shape == (3, 41, 65, 3)
    assert np.abs(back.mean((1, 2)) - COLORS).max() < 5
    with Image.open(tmp_path / "a.gif") as opened:
        assert opened.info["duration"] == film.FRAME_MS
        assert opened.info["loop"] == 0


def test_an_mp4_is_what_every_player_plays(pictures: list[Image.Image], tmp_path: Path) -> None:
    film.write_film(tmp_path / "a.MP4", pictures)
    back = imageio.imread(tmp_path / "a.MP4", plugin="pyav")
    assert back.shape == (3, 40, 64, 3)
    assert np.abs(back.mean((1, 2)) - COLORS).max() < 8
    with av.open(tmp_path / "a.MP4") as container:
        [stream] = container.streams.video
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 12.5


def test_one_picture_is_a_film_too(pictures: list[Image.Image], tmp_path: Path) -> None:
    for name in ("a.gif", "a.mp4"):
        film.write_film(tmp_path / name, pictures[:1])
        assert imageio.imread(tmp_path / name, index=0).shape[:2] == (20, 32)


def test_names_and_places_that_are_wrong(pictures: list[Image.Image], tmp_path: Path) -> None:
    with pytest.raises(pellucid.BadArgument, match=r"a\.avi: must end with \.gif, \.mp4"):
        film.write_film(tmp_path / "a.avi", pictures)
    for name in ("a.gif", "a.mp4"):
        with pytest.raises(OSError, match=r"\[Errno 2\]"):
            film.write_film(tmp_path / "nowhere" / name, pictures)


def test_without_imageio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pellucid.film")
    monkeypatch.delattr(pellucid, "film")
    monkeypatch.setitem(sys.modules, "imageio.v3", None)
    result = CliRunner().invoke(app, ["optimize", "class", "1", "--video=a.gif"])
    assert result.exit_code == 1
    assert result.stderr == "pellucid: videos need imageio: pip install 'pellucid[video]'\n"
