"""Exports a checkpoint and says what is gained by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vla_ros.errors import VlaRosError
from vla_ros.policies.packages import packages_for


def export(folder: Path, calls: int, half: Path | None = None) -> dict[str, Any]:
    """Writes model.onnx into a checkpoint's folder and times it against torch.

    Args:
        folder: the checkpoint's.
        calls: of each, interleaved.
        half: where to write a copy whose weights are rounded to float16, and to export that instead; None for none.

    Returns:
        `path`, `size_mb`, medians `torch_ms` and `onnx_ms` on one thread each, and their ratio `ort_speedup`.

    Raises:
        VlaRosError: see `vla_ros.policies.export.export_onnx`.
    """
    if calls < 1:
        raise VlaRosError(f"--calls {calls}: at least 1")
    with packages_for("exporting to ONNX"):
        from vla_ros.benchmarks.policies.inference import time_runtimes
        from vla_ros.policies.architectures.saving import round_to_half
        from vla_ros.policies.checkpoint import read_checkpoint
        from vla_ros.policies.export import export_onnx
        from vla_ros.policies.torch_model import load_model, save_policy
    if half is not None:
        checkpoint = read_checkpoint(folder)
        model = load_model(checkpoint)
        round_to_half(model)
        save_policy(half, model, checkpoint.contract, checkpoint.statistics)
        folder = half
    path = export_onnx(folder)
    times = time_runtimes(folder, calls, seed=0)
    return {
        "path": str(path),
        "size_mb": path.stat().st_size / 1e6,
        "torch_ms": 1e3 * times.torch_s.median,
        "onnx_ms": 1e3 * times.onnx_s.median,
        "ort_speedup": times.speedup.median,
    }
