"""Whether torch can run where a policy's parameters say. Imports torch."""

from __future__ import annotations

import torch

from vla_ros.errors import ConfigError


def find_device(name: str, where: str) -> torch.device:
    """The device of that name.

    Args:
        name: as torch has it, such as `cpu` or `cuda:1`.
        where: file and key, for the error text.

    Raises:
        ConfigError: if torch knows no such device, or sees none here.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(where, str(error).splitlines()[0], "cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(where, f"{name}: torch sees no CUDA here", "use cpu")
    return device
