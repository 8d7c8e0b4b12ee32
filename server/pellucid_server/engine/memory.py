"""Running out of memory, on whichever device."""

import torch

_CPU_ALLOCATOR = "DefaultCPUAllocator: can't allocate memory"
"""What torch says in the plain RuntimeError that it raises on the CPU."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, and not that there is a bug."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and _CPU_ALLOCATOR in str(error)
    )
