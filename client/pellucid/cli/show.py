"""Results and errors as people read them, and as JSON."""

import json
import sys
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from ..compare import Comparison
    from ..errors import PellucidError
    from ..folders import FolderResult
    from ..types import (
        EvidenceResult,
        ExplainResult,
        Model,
        ModelSummary,
        Onnx,
        PredictResult,
        Run,
    )


def print_json(response: "Message") -> None:
    from google.protobuf.json_format import MessageToDict

    full = MessageToDict(response, always_print_fields_with_no_presence=True)
    print(json.dumps(_without_bytes(full), indent=2, ensure_ascii=False))


def _without_bytes(value: Any) -> Any:
    """The JSON without the field that holds a tensor's or a file's bytes."""
    if isinstance(value, dict):
        return {k: _without_bytes(v) for k, v in value.items() if k != "data"}
    if isinstance(value, list):
        return [_without_bytes(v) for v in value]
    return value


def print_error(error: "PellucidError") -> None:
    message = " ".join(error.message.split())
    if error.violations and all(v.description in message for v in error.violations):
        message = "the server refuses the request"  # the lines below say all of it
    code = "" if error.code is None else f"{error.code.name}: "
    print(f"pellucid: {code}{message}", file=sys.stderr)
    for violation in error.violations:
        print(f"  {violation.field}: {violation.description}", file=sys.stderr)


def print_predictions(result: "PredictResult") -> None:
    table = Table("label", "probability", "logit", "class")
    for column in table.columns[1:]:
        column.justify = "right"
    for p in result.predictions:
        table.add_row(Text(p.label), f"{p.probability:.2%}", f"{p.logit:.3f}", str(p.class_index))
    print_part(table)
    print_part(timings(result.run))


def print_explanation(result: "ExplainResult", written: list[Path]) -> None:
    from ..compare import target_words

    target, name = result.target, target_words(result)
    parameters = ", ".join(f"{k}={v}" for k, v in result.parameters.items())
    table = Table.grid(padding=(0, 2))
    table.add_row("method", Text(f"{result.method}({parameters})"))
    table.add_row("target", Text(name + (", the top prediction" if target.top_prediction else "")))
    kind = "" if target.score_kind is None else f", {target.score_kind.replace('_', ' ')}"
    table.add_row("score", f"{target.score:.4f}{kind}")
    if result.convergence is not None:
        made = result.convergence
        ended = made.stop.replace("_", " ")
        residual = "" if made.residual is None else f", residual {made.residual:.3g}"
        text = f"{ended}, {made.row_count} rows, error {made.error:.3g}{residual}"
        table.add_row("convergence", text)
    for words in _evidence_words(result.evidence) if result.evidence is not None else ():
        table.add_row(*map(Text, words))
    for warning in result.warnings:
        table.add_row("warning", Text(f"{warning.reason}: {warning.description}"))
    for path in written:
        table.add_row("written", Text(str(path)))
    print_part(table)
    print_part(timings(result.run))


def _evidence_words(evidence: "EvidenceResult") -> Iterator[tuple[str, str]]:
    """Each piece of evidence in a line."""
    if (sums := evidence.completeness) is not None:
        yield (
            "completeness",
            f"the sum is {sums.attribution_sum:.4g}, of {sums.expected_sum:.4g}: "
            f"relative error {sums.relative_error:.2g}",
        )
    if (curves := evidence.curves) is not None:
        areas = f"insertion {curves.map.insertion_area:.3f}, deletion "
        areas += f"{curves.map.deletion_area:.3f}"
        yield "curves", f"{areas}, gain {curves.gain:.3f} over random and centre"
    if (noisy := evidence.stability) is not None:
        least = f"{noisy.least:.2f} at least, {len(noisy.correlations)} noisy images"
        yield "stability", f"rank correlation {noisy.mean:.2f} on average, {least}"
    if (permuted := evidence.randomization) is not None:
        yield (
            "randomization",
            f"rank correlation {permuted.correlation:.2f}, of magnitudes "
            f"{permuted.absolute_correlation:.2f}, with a permuted classifier",
        )
    if (cascade := evidence.cascade) is not None:
        stages = (f"{s.absolute_correlation:.2f} from {s.layer} on" for s in cascade.stages)
        yield "cascade", f"rank correlation of magnitudes, redrawn: {', '.join(stages)}"
    if (agreement := evidence.agreement) is not None:
        others = (
            f"{one.method} {one.correlation:.2f} (top twentieth {one.top_overlap:.0%})"
            for one in agreement.methods
        )
        yield "agreement", f"rank correlation with {', '.join(others)}"


def print_comparison(comparison: "Comparison", written: Path | None) -> None:
    from ..compare import COLUMNS, target_words

    table = Table(*COLUMNS)
    for line in comparison.table():
        table.add_row(*map(Text, line))
    print_part(table)
    ranking = comparison.ranking()
    if not ranking:
        return
    about = Table.grid(padding=(0, 2))
    about.add_row("target", Text(target_words(ranking[0].result)))
    best = comparison.best
    about.add_row(
        "believe first", "none: there is a doubt of each" if best is None else best.method
    )
    if written is not None:
        about.add_row("written", Text(str(written)))
    print_part(about)


def print_folder(found: "FolderResult") -> None:
    for entry in found.failed:
        error = entry["error"]
        print_part(Text(f"{entry['photo']}: {error['code']}: {error['message']}"))
    done = len(found.entries) - len(found.failed)
    earlier = f", {found.earlier_count} of all in earlier runs" if found.earlier_count else ""
    print_part(Text(f"{done} explained, {len(found.failed)} failed{earlier}"))
    print_part(Text(f"written  {found.manifest}"))


def timings(run: "Run") -> Text:
    return Text(
        f"{run.model} {run.model_version} on {run.device}, {run.precision}: "
        f"decode {run.decode_ms:.1f} ms, queue {run.queue_ms:.1f} ms, "
        f"run {run.run_ms:.1f} ms, render {run.render_ms:.1f} ms"
    )


def print_models(summaries: "tuple[ModelSummary, ...]") -> None:
    table = Table("name", "version", "ready")
    for summary in summaries:
        ready = "yes" if summary.ready else f"no: {summary.reason}"
        table.add_row(Text(summary.name), summary.version, Text(ready))
    print_part(table)


def print_model(model: "Model") -> None:
    made = model.preprocessing
    about = Table.grid(padding=(0, 2))
    about.add_row("name", Text(model.name))
    about.add_row("version", model.version)
    about.add_row("ready", Text("yes" if model.ready else f"no: {model.reason}"))
    about.add_row("architecture", Text(model.architecture))
    about.add_row("computes in", f"{model.precision} on {model.device}")
    about.add_row("input", f"{made.height_px} × {made.width_px} px, {made.interpolation}")
    about.add_row("classes", str(len(model.labels)))
    about.add_row("rectifiers", str(model.gate_count))
    if model.onnx is not None:
        _add_onnx(about, model.onnx)
    methods = Table("method", "supported", "rows", "anytime", "evidence")
    for support in model.methods:
        methods.add_row(
            support.method,
            Text("yes" if support.supported else support.reason),
            str(support.row_count) if support.supported else "",
            "yes" if support.anytime else "",
            ", ".join(support.evidence),
        )
    layers = Table("layer", "type", "shape", "target", "note")
    for layer in model.layers:
        shape = " × ".join(map(str, layer.shape))
        targetable = "yes" if layer.targetable else "no"
        layers.add_row(Text(layer.name), layer.type, shape, targetable, Text(layer.note))
    costs = Table("lane", "bucket", "milliseconds a row")
    for cost in model.costs:
        costs.add_row(cost.lane, str(cost.bucket_size), f"{cost.row_ms:.2f}")
    for part in (about, methods, costs, layers):
        print_part(part)


def _add_onnx(about: Table, onnx: "Onnx") -> None:
    about.add_row("ONNX", f"opset {onnx.opset}, {onnx.provider or 'converted to torch'}")
    if onnx.fixed_batch_size:
        about.add_row("batches", f"of {onnx.fixed_batch_size} images, which the file fixes")
    if onnx.parity is None:
        about.add_row("white box", Text(f"no: {onnx.white_box_refusal}"))
    else:
        about.add_row("white box", f"yes: logits differ by {onnx.parity:.1e} (relative)")
    for note in onnx.notes:
        about.add_row("note", Text(note))


_PIPE_COLUMNS = 1000


def print_part(part: Table | Text) -> None:
    if isinstance(sys.stdout, TextIOWrapper):  # a file's name may be no text
        sys.stdout.reconfigure(errors="backslashreplace")
    console = Console(soft_wrap=True)
    if not console.is_terminal:  # a pipe is as wide as what goes through it
        console.width = _PIPE_COLUMNS
    console.print(part)
