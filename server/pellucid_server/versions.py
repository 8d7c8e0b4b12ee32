"""Versions of the software that decides a result's bits."""

from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import torch


def _versions() -> Mapping[str, str]:
    packages = ("pellucid", "torch", "torchvision", "timm", "numpy", "pillow", "scikit-image")
    versions = {package: version(package) for package in packages}
    for package in ("onnxruntime", "onnxruntime-gpu"):
        with suppress(PackageNotFoundError):
            versions["onnxruntime"] = version(package)
    versions["cpu"] = torch.backends.cpu.get_cpu_capability()
    if torch.version.cuda:
        versions["cuda"] = torch.version.cuda
    return versions


VERSIONS = _versions()
