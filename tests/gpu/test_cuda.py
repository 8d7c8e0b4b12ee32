"""The promises that are kept on the CPU, on a CUDA device. Skipped where there is none."""

import itertools
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest
import torch
from pellucid_server.engine.device import TorchDevice
from pellucid_server.engine.rows import ClassTarget, NeuronTarget, Rows, TopTarget, Want
from pellucid_server.errors import InvalidArgument
from pellucid_server.methods.explain.gradients import Deconvnet, Gradient, GuidedBackprop
from pellucid_server.methods.explain.occlusion import Occlusion
from pellucid_server.methods.predict import Predict
from pellucid_server.models.network import OUTPUT
from pellucid_server.models.onnx.file import Expected, read_onnx
from pellucid_server.models.onnx.runtime import Runtime
from pellucid_server.models.registry import Model, Precision, load_folder, load_model

from tests.exports import SIDE_PX, exported, write_network
from tests.harness import NETWORKS, PHOTOS, Runner, photo_input, relative_error, running, untouched
from tests.oracle.graph import hooked_gradient

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

COARSE = Occlusion(window_px=48, stride_px=48, fill="mean", blur_sigma_px=1.0)
RULES = {"gradient": Gradient(), "deconvnet": Deconvnet(), "guided_backprop": GuidedBackprop()}


def on_gpu(name: str, precision: Precision = Precision.FLOAT32) -> Model:
    return load_model(name, device=torch.device("cuda"), precision=precision, side_px=96)


@pytest.fixture(scope="module")
def gpu() -> Iterator[Runner]:
    with running(TorchDevice(torch.device("cuda"))) as runner:
        yield runner


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NETWORKS)
def test_rules_equal_hooks_on_autograd_nodes(gpu: Runner, name: str, rule: str) -> None:
    image = photo_input("cat", name)
    served = on_gpu(name, Precision.FLOAT64)
    done = gpu.run(served, RULES[rule], image, ClassTarget(285))
    expected, _ = hooked_gradient(untouched(name), image, lambda logits: logits[0, 285], rule)
    assert relative_error(done.result.attribution, expected) <= 1e-9


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18"])
def test_bits_do_not_depend_on_neighbours(name: str) -> None:
    served = on_gpu(name)
    targets = (TopTarget(), ClassTarget(285), NeuronTarget(served.network.layers[20].name, 3))
    calls: list[Any] = [
        (method, photo_input(photo, name).float(), target)
        for method, photo, target in itertools.islice(
            zip(
                itertools.cycle((*RULES.values(), COARSE)),
                itertools.cycle(PHOTOS),
                itertools.cycle(targets),
            ),
            64,
        )
    ]
    with running(TorchDevice(torch.device("cuda")), buckets=(16,)) as runner:
        with runner.held():
            jobs = [runner.submit(served, *call) for call in calls]
        wait([job.future for job in jobs], timeout=120)
        for job, call in zip(jobs, calls, strict=True):
            alone = runner.run(served, *call).result
            assert torch.equal(job.future.result().result.attribution, alone.attribution)


def test_a_row_that_is_not_finite_fails_alone(gpu: Runner) -> None:
    served = on_gpu("resnet18")
    huge, fine = torch.full((3, 96, 96), 3e38), photo_input("cat", "resnet18").float()
    with gpu.held():
        bad = gpu.submit(served, Gradient(), huge, ClassTarget(1), bucket_size=8)
        good = [
            gpu.submit(served, Gradient(), fine, ClassTarget(k), bucket_size=8) for k in range(7)
        ]
    with pytest.raises(InvalidArgument, match="not finite"):
        bad.future.result(60)
    alone = gpu.run(served, Gradient(), fine, ClassTarget(3), bucket_size=8).result
    assert torch.equal(good[3].future.result(60).result.attribution, alone.attribution)


def test_a_launch_does_not_wait_for_its_batch() -> None:
    """What is looked at of batch n is looked at while batch n+1 runs."""
    device = TorchDevice(torch.device("cuda"))
    assert device.pipelined
    served = on_gpu("efficientnet_lite0")
    image = photo_input("cat", "efficientnet_lite0").float()
    rows = Rows(image.to("cuda").expand(16, -1, -1, -1), TopTarget(), Want.GRADIENT)
    device.land(device.launch(served.network, [(rows, k) for k in range(16)], 16))
    flights = [device.launch(served.network, [(rows, k) for k in range(16)], 16) for _ in range(4)]
    assert not flights[-1].landed.query()
    device.land(flights[-1])
    with running(device) as runner:
        runner.engine.warm_up(served)
        jobs = [runner.submit(served, Predict(5, False), image) for _ in range(64)]
        results = [job.future.result(60).result.logits for job in jobs]
    assert all(torch.isfinite(logits).all() for logits in results)
    assert all(logits.device.type == "cpu" for logits in results)


def test_float32_is_not_tf32() -> None:
    TorchDevice(torch.device("cuda"))
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("batch_size", [None, 3])
def test_an_onnx_file_beside_its_conversion(batch_size: int | None, tmp_path: Path) -> None:
    """By whichever provider ONNX Runtime has here; a row's bits are its own."""
    data = exported("resnet18", batch_size=batch_size)
    on = load_folder(write_network(tmp_path / "net", "resnet18", data), device=torch.device("cuda"))
    assert on.onnx is not None
    assert on.onnx.provider in ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert on.onnx.parity is not None
    images = torch.stack([photo_input(name, "resnet18") for name in PHOTOS]).float().cuda()
    logits = on.network.forward(images)[OUTPUT]
    converted = on.network.forward(images.clone().requires_grad_())[OUTPUT].detach()
    assert relative_error(logits.cpu(), converted.cpu()) < 1e-4
    turned = on.network.forward(images.flip(0))[OUTPUT].flip(0)
    assert torch.equal(logits, turned)


@pytest.mark.parametrize("batch_size", [None, 3])
def test_the_cuda_provider_of_onnx_runtime(batch_size: int | None) -> None:
    """It is the one that is used, and makes the CPU's logits, with bits that are a row's own."""
    data = exported("resnet18", batch_size=batch_size)
    file = read_onnx(data, Expected(SIDE_PX, SIDE_PX))
    on, host = (Runtime(file, torch.device(kind)) for kind in ("cuda", "cpu"))
    assert (on.provider, host.provider) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert on.class_count == host.class_count == 1000
    images = torch.stack([photo_input(name, "resnet18") for name in PHOTOS]).float()
    logits = on(images.cuda())
    assert logits.device.type == "cuda"
    assert relative_error(logits.cpu(), host(images)) < 1e-4
    assert torch.equal(on(images.cuda()), logits)
    assert torch.equal(on(images.flip(0).cuda()).flip(0), logits)
