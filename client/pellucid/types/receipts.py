"""Results that can be made again."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadArgument

if TYPE_CHECKING:
    from .explanations import ExplainResult
    from .predictions import PredictResult


@dataclass(frozen=True)
class Receipt:
    """All that is needed to make a result again, and to see whether it is the same.

    Attributes:
        fields: The contract's Receipt as JSON has it.
    """

    fields: Mapping[str, Any] = field(repr=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to a JSON file."""
        text = json.dumps(self.fields, indent=2, ensure_ascii=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Receipt":
        """Reads it from a JSON file.

        Raises:
            BadArgument: The file holds no receipt.
            OSError: The file cannot be read.
        """
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadArgument(f"{os.fspath(path)}: is not JSON: {error}") from None
        if not isinstance(fields, dict) or not {"predict", "explain"} & set(fields):
            raise BadArgument(f"{os.fspath(path)}: is not a receipt")
        return cls(fields)


@dataclass(frozen=True, eq=False)
class Replay:
    """A result made again from its receipt.

    Attributes:
        equal: Whether it is equal to the bit.
        difference: Between the two sketches (see Receipt in the contract), relative: the
            Euclidean norm of their difference by that of the first; 0 where they are equal.
        notes: What is not as it was, or was not promised: what may explain a difference.
        result: What came of it.
    """

    equal: bool
    difference: float
    notes: tuple[str, ...]
    result: "PredictResult | ExplainResult" = field(repr=False)
