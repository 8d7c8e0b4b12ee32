"""The indices of a server, by the models that they were made with."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import FailedPrecondition, Violation
from ..models.registry import Model
from .folder import Index
from .manifest import BadIndex

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RefusedIndex:
    """A folder that is not served, and why.

    Attributes:
        model: Whose it would be; "" where it does not say.
    """

    folder: Path
    model: str
    reason: str


@dataclass(frozen=True)
class Indices:
    """What is mounted, one index a model, and what is not."""

    mounted: Mapping[str, Index] = field(default_factory=dict)
    refused: tuple[RefusedIndex, ...] = ()

    def find(self, model: Model) -> Index:
        """The index of a model.

        Raises:
            FailedPrecondition: None is mounted; the message says how to have one.
        """
        index = self.mounted.get(model.name)
        if index is not None:
            return index
        why = [
            f" ({one.folder.name} is not served: {one.reason})"
            for one in self.refused
            if one.model in ("", model.name)
        ]
        how = (
            f"no index of {model.name} is mounted{''.join(why)}; `pellucid index PHOTOS "
            f"--model {model.name} --out DIR` makes one, and `pellucid serve --index DIR` mounts it"
        )
        raise FailedPrecondition(f"model: {how}", violations=[Violation("model", how)])


def mount(folders: Sequence[Path], models: Mapping[str, Model]) -> Indices:
    """Opens indices; what cannot be served says why, and is logged.

    Args:
        folders: Of finished indices.
        models: The loaded ones, by name.
    """
    mounted: dict[str, Index] = {}
    refused: list[RefusedIndex] = []
    for folder in folders:
        model = ""
        try:
            index = Index(folder)
            model = index.model
            _check(index, models, mounted)
        except BadIndex as error:
            log.error("index %s is not served: %s", folder, error)
            refused.append(RefusedIndex(folder, model, str(error)))
            continue
        log.info(
            "index %s of %d photos for %s: %s", index.version, index.photo_count, model, folder
        )
        mounted[model] = index
    return Indices(mounted, tuple(refused))


def _check(index: Index, models: Mapping[str, Model], mounted: Mapping[str, Index]) -> None:
    """Raises BadIndex where a model of the server would not have made it."""
    model = models.get(index.model)
    if model is None:
        raise BadIndex(f"its model, {index.model}, is not loaded")
    if index.model_version != model.version:
        raise BadIndex(
            f"it was made with version {index.model_version} of {index.model}; version "
            f"{model.version} is loaded"
        )
    for name, served_as in (
        ("architecture", model.architecture),
        ("precision", model.precision.value),
    ):
        if index.about[name] != served_as:
            raise BadIndex(
                f"it was made with {name} {index.about[name]} of {index.model}; {served_as} is "
                "loaded"
            )
    steps = {k: list(v) if isinstance(v, tuple) else v for k, v in _steps(model).items()}
    kept = index.about["preprocessing"]
    for name in sorted(kept.keys() | steps.keys()):
        value, served = kept.get(name), steps.get(name)
        if served != value:
            raise BadIndex(f"its photos were preprocessed with {name} {value}, not {served}")
    if index.model in mounted:
        raise BadIndex(f"another index of {index.model} is mounted: {mounted[index.model].version}")


def _steps(model: Model) -> dict[str, object]:
    return asdict(model.preprocessing)
