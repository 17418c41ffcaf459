"""One formula for NumPy arrays and torch tensors: functions of geometry are written against the array's own module.

torch understands NumPy's keywords (`axis`, `keepdims`), so a formula mostly reads the same for both. torch is never
imported here: where nobody has, no array is a tensor.
"""

from __future__ import annotations

import sys
from typing import Any, TypeVar

import numpy as np

# A NumPy array or a torch tensor; what comes out is of the kind that went in. NumPy works in float64, a tensor keeps
# its precision and device.
Array = TypeVar("Array", bound=Any)


def with_namespace(array: Any) -> tuple[Any, Any]:
    """The module that has functions for an array, `numpy` or `torch`, and the array in floating point."""
    if not isinstance(array, np.ndarray):
        torch = sys.modules.get("torch")
        if isinstance(array, getattr(torch, "Tensor", ())):
            return torch, array
    return np, np.asarray(array, dtype=np.float64)


def as_like(values: Any, array: Any) -> Any:
    """Numbers as an array of another's kind, precision and device."""
    xp, array = with_namespace(array)
    if xp is np:
        return np.asarray(values, dtype=np.float64)
    return xp.as_tensor(values, dtype=array.dtype, device=array.device)


def as_constant(array: Array) -> Array:
    """The same numbers, of which no derivative is taken."""
    return array if isinstance(array, np.ndarray) else array.detach()
