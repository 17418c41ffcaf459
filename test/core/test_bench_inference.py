"""The benchmark of inference: what its figures mean, and when they are worth nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from vla_ros.benchmarks.options import Options
from vla_ros.benchmarks.policies import inference
from vla_ros.benchmarks.policies.inference import RuntimeTimes, time_runtimes
from vla_ros.benchmarks.timing import Spread


def spread(median: float) -> Spread:
    return Spread(median, 0.9 * median, 1.1 * median)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the benchmark on times that are made up."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from vla_ros.policies import export

    def run(control: float) -> Any:
        times = RuntimeTimes(spread(0.030), spread(0.010), spread(2.9), spread(control))
        monkeypatch.setattr(inference, "write_random_checkpoint", lambda *given: None)
        monkeypatch.setattr(export, "export_onnx", lambda folder: folder)
        monkeypatch.setattr(inference, "time_runtimes", lambda *given: times)
        return inference.run(Options(is_quick=True))

    return run


def test_inference_is_held_against_the_time_for_which_its_answer_is_executed(measured: Any) -> None:
    result = measured(1.0)
    # 10 ms for 4 steps of 0.1 s.
    assert result.figures == {"infer_over_period": pytest.approx(0.025), "ort_speedup": pytest.approx(2.9)}
    assert result.details["torch_ms"]["median"] == pytest.approx(30.0)


def test_an_uneven_machine_voids_the_comparison_and_says_so(measured: Any) -> None:
    result = measured(1.5)
    assert result.figures["ort_speedup"] is None
    assert "uneven" in result.problems[0]


def test_both_runtimes_are_timed_and_torch_keeps_its_threads(tiny_checkpoints: Any, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoints.get("bc", is_exported=True), folder)
    before = torch.get_num_threads()
    told: list[float] = []
    times = time_runtimes(folder, 20, 0, Options(progress=lambda part, fraction: told.append(fraction)))
    assert 0.0 < times.onnx_s.median < 1.0
    assert 0.0 < times.torch_s.median < 1.0
    assert torch.get_num_threads() == before
    assert told == sorted(told)
    assert told[-1] <= 1.0
