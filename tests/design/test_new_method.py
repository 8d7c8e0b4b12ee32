"""The README's guide, followed: a method that did not exist is added to a copy of the tree.

What is edited here is all that may have to be: the contract and its stubs, a file of the
method's own, and its line in wire. Whatever else had to know of it would fail below.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

MESSAGE = """
// Half of the gradient, or another share of it.
message Toy {
  // The share: 0.25 to 8. Optional, 0.5 by default.
  optional double share = 1;
}

// Why a map may mislead.
"""

METHOD = '''
"""A share of the gradient."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ...engine.rows import Lane, Program, Rows, Target, Want
from ...models.registry import Model
from ..parameters import number
from .explanation import ExplainMethod, Explanation, resolved


@dataclass(frozen=True)
class Toy(ExplainMethod):
    """A share of d score / d input."""

    share: float = number(0.5, 0.25, 8.0)

    name: ClassVar[str] = "toy"
    color_scale: ClassVar[Literal["signed", "absolute"]] = "signed"

    def row_counts(self, model: Model, target: Target) -> Mapping[Lane, int]:
        return {Lane.GRADIENT: 1}

    def program(self, model: Model, image: Tensor, target: Target) -> Program[Explanation]:
        traces = yield Rows(image[None], target, Want.GRADIENT)
        return Explanation(
            self.share * traces.gradient[0], resolved(target, traces), float(traces.scores[0])
        )
'''

USE = '''
import time
import pytest
import torch
from pellucid import _wire
from pellucid.v1 import inference_pb2
from pellucid_server import wire
from pellucid_server.api import forms, openapi
from pellucid_server.engine.costs import Costs
from pellucid_server.errors import InvalidArgument
from pellucid_server.models.registry import Registry
from tests.harness import model, photo, running

call = wire.Call("", time.monotonic() + 60)
registry = Registry([model("resnet18", side_px=32)])
limits = wire.Limits(10**7, (1, 2), 0, None, b"")


def asked(method, **parameters):
    """As the SDK asks."""
    return _wire.explain_request(
        photo("cat"), method, target=281, against=None, score=None, model="",
        outputs=["attribution"], bucket_size=1, until=None, evidence=None, rendering={},
        method_parameters=parameters,
    )


def explained(request):
    asked = wire.read_explain(request, call, registry, limits)
    done = engine.engine.submit(asked.spec).future.result(60)
    return wire.write_explain(asked.spec, asked.view, done)


with running(buckets=(1, 2)) as engine:
    gradient, half, triple = (
        _wire.explain_result(explained(asked(*method, **parameters)))
        for method, parameters in (
            (("gradient",), {}), (("toy",), {}), (("toy",), {"share": 3.0})
        )
    )
    assert gradient.attribution.any()
    assert (half.attribution == gradient.attribution * 0.5).all()
    assert (triple.attribution == gradient.attribution * 3).all()
    assert half.parameters == {"share": 0.5}
    assert triple.receipt.fields["explain"]["toy"] == {"share": 3.0}
    assert _wire.replay_request(triple.receipt, photo("cat"))[2].toy.share == 3.0

with pytest.raises(InvalidArgument, match="toy.share: is 9.0; must be 0.25 to 8"):
    wire.read_explain(asked("toy", share=9.0), call, registry, limits)

assert _wire.parameter("toy", "share=2") == ("share", 2.0)
form = inference_pb2.ExplainRequest()
parts = {"method": "toy", "share": "0.75"}
names = [f'name="{name}"\\r\\n\\r\\n{text}' for name, text in parts.items()]
names.append('name="image"; filename="a"\\r\\n\\r\\na')
body = "".join(f"--x\\r\\nContent-Disposition: form-data; {name}\\r\\n" for name in names)
body += "--x--\\r\\n"
forms.read(form, body.encode(), b"x", [])
assert form.toy.share == 0.75
assert "Toy" in openapi.document(1)["components"]["schemas"]
listed = wire.write_model("resnet18", registry, lambda _: Costs((1,), 100.0)).methods
assert [method.supported for method in listed if method.method == "toy"] == [True]
'''


def replace_once(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text()
    assert text.count(old) == count
    path.write_text(text.replace(old, new))


def test_a_method_is_added_where_the_guide_says(tmp_path: Path) -> None:
    for folder in ("proto", "client", "server"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    contract = tmp_path / "proto/pellucid/v1/inference.proto"
    replace_once(contract, "\n// Why a map may mislead.\n", MESSAGE)
    last = "    AttentionRollout attention_rollout = 35;\n"
    replace_once(contract, last, f"{last}    // A share of the gradient.\n    Toy toy = 99;\n", 2)
    out = [f"--{kind}_out={tmp_path / 'client'}" for kind in ("python", "pyi", "grpc_python")]
    protos = [str(path) for path in sorted(contract.parent.glob("*.proto"))]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={tmp_path / 'proto'}"]
    subprocess.run([*protoc, *out, *protos], check=True)
    package = tmp_path / "server/pellucid_server"
    (package / "methods/explain/toy.py").write_text(METHOD)
    requests = package / "wire/requests.py"
    replace_once(
        requests,
        "        AttentionRollout,\n    )",
        "        AttentionRollout,\n        Toy,\n    )",
    )
    replace_once(
        requests,
        "from ..methods.predict import Predict\n",
        "from ..methods.explain.toy import Toy\nfrom ..methods.predict import Predict\n",
    )
    paths = [tmp_path / "client", tmp_path / "server", ROOT]
    subprocess.run(
        [sys.executable, "-c", USE],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
    )
