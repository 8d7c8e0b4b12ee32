"""The oracle tables at the networks' own size, 224 px: `make tables` writes TABLES.md.

Float64 errors are ‖a-b‖₂/‖b‖₂ against hooks on the autograd nodes of the untouched network,
and occlusion's the largest difference from a loop over max|score|.
"""

import platform
from pathlib import Path

import torch
from pellucid_server.engine.rows import ClassTarget
from pellucid_server.methods.explain.gradients import Deconvnet, Gradient, GuidedBackprop
from pellucid_server.methods.explain.occlusion import Occlusion
from pellucid_server.models.registry import Precision
from rich.progress import Progress

from tests.harness import NETWORKS, Runner, model, photo_input, relative_error, running, untouched
from tests.oracle import onnx_parity
from tests.oracle.explanations import ORACLES, compare
from tests.oracle.graph import hooked_gradient
from tests.oracle.networks import LAYERS
from tests.oracle.networks import SIDE_PX as SMALL_PX
from tests.oracle.replay import compare_precisions

SIDE_PX = 224
TARGET = 285
PHOTOS = ("cat", "coffee")
METHODS = {"gradient": Gradient(), "deconvnet": Deconvnet(), "guided_backprop": GuidedBackprop()}


def rule_error(runner: Runner, name: str, rule: str, photo: str) -> tuple[float, int]:
    image = photo_input(photo, name, SIDE_PX)
    served = model(name, Precision.FLOAT64, SIDE_PX)
    done = runner.run(served, METHODS[rule], image, ClassTarget(TARGET))
    expected, gate_count = hooked_gradient(
        untouched(name, SIDE_PX), image, lambda logits: logits[0, TARGET], rule
    )
    return relative_error(done.result.attribution, expected), gate_count


def occlusion_error(runner: Runner, name: str, photo: str) -> float:
    window_px = 112
    image = photo_input(photo, name, SIDE_PX)
    served = model(name, Precision.FLOAT64, SIDE_PX)
    method = Occlusion(window_px, window_px, "mean", 1.0)
    done = runner.run(served, method, image, ClassTarget(TARGET))
    network, worst, largest = untouched(name, SIDE_PX), 0.0, 0.0
    with torch.no_grad():
        score = float(network(image[None])[0, TARGET])
        for place, fall in enumerate(done.result.falls.values.flatten().tolist()):
            top, left = (window_px * step for step in divmod(place, 2))
            covered = image.clone()
            covered[:, top : top + window_px, left : left + window_px] = 0
            covered_score = float(network(covered[None])[0, TARGET])
            worst = max(worst, abs(fall - (score - covered_score)))
            largest = max(largest, abs(score), abs(covered_score))
    return worst / largest


def explanations() -> list[str]:
    """The table of every method on every network."""
    reasons: dict[str, int] = {}
    table = [
        "## Every method, float64, against independent code",
        "",
        f"At {SMALL_PX} px, target: the top class. Captum where it is right, pytorch-grad-cam's "
        "weighting,",
        "Zennit, plain autograd and loops elsewhere: see explanations.py. Bound: 1e-9. A number in",
        "brackets: refused, for the reason below.",
        "",
        f"| method | {' | '.join(LAYERS)} |",
        f"| --- |{' --- |' * len(LAYERS)}",
    ]
    columns = []
    with running() as runner, Progress() as progress:
        task = progress.add_task("methods", total=len(LAYERS) * len(ORACLES))
        for name in LAYERS:
            column = []
            for method in ORACLES:
                found = compare(runner, name, method)
                if isinstance(found, str):
                    column.append(f"[{reasons.setdefault(found, len(reasons) + 1)}]")
                else:
                    column.append(f"{found:.1e}")
                progress.advance(task)
            columns.append(column)
    for method, *cells in zip(ORACLES, *columns, strict=True):
        table.append(f"| {method} | {' | '.join(cells)} |")
    return [*table, "", *(f"{number}. {reason}" for reason, number in reasons.items())]


def main() -> None:
    lines = [
        "# Oracle tables",
        "",
        f"Made by `make tables` at {SIDE_PX} px with torch {torch.__version__} on "
        f"{platform.machine()}, target {TARGET}, photos {' and '.join(PHOTOS)}.",
        "",
        "## float64 against the untouched network",
        "",
        "The worse of the photos. Bound: 1e-9.",
        "",
        "| network | gates | gradient | deconvnet | guided_backprop | occlusion |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    precise: list[str] = []
    with running() as runner, Progress() as progress:
        task = progress.add_task("oracles", total=len(NETWORKS))
        for name in NETWORKS:
            errors, gate_count = [], 0
            for rule in METHODS:
                found = [rule_error(runner, name, rule, photo) for photo in PHOTOS]
                errors.append(max(error for error, _ in found))
                gate_count = found[0][1]
            errors.append(max(occlusion_error(runner, name, photo) for photo in PHOTOS))
            cells = " | ".join(f"{error:.1e}" for error in errors)
            lines.append(f"| {name} | {gate_count} | {cells} |")
            for photo in PHOTOS:
                compared = compare_precisions(runner, name, photo, SIDE_PX)
                precise.append(
                    f"| {name} | {photo} | {compared.replayed_error:.1e} | "
                    f"{compared.free_error:.1e} | {compared.flip_count} |"
                )
            model.cache_clear()
            untouched.cache_clear()
            progress.advance(task)
    lines += ["", *explanations()]
    with running() as runner:
        lines += ["", *onnx_parity.table(runner)]
    lines += [
        "",
        "## float32 against float64",
        "",
        "Replayed: float64 with the gate decisions of the float32 run (bound 1e-5). Free: float64",
        "with its own, of which as many differ as are counted.",
        "",
        "| network | photo | replayed | free | flipped |",
        "| --- | --- | --- | --- | --- |",
        *precise,
        "",
    ]
    (Path(__file__).parent / "TABLES.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
