"""`vla-ros eval --mode ros`: the policy that comes with the package, through the whole stack in real time."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vla_ros.sim.world")
pytest.importorskip("onnxruntime")
pytest.importorskip("av")

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.slow]


def test_the_small_vla_reaches_in_the_stack_what_it_is_told(processes, tmp_path) -> None:
    command = ("eval", "--policy", "flow_vla", "--robot", "panda", "--task", "reach", "--episodes", "2")
    process = processes.start_command(*command, "--seed", "900", "--mode", "ros", "--json", "--out", str(tmp_path))
    process.wait(170)
    assert process.returncode == 0, process.text
    summary = json.loads(process.text.splitlines()[-1])
    assert summary["mode"] == "ros"
    figures = summary["policies"]["flow_vla"]["all"]
    assert figures["episodes"] == 2
    # On a machine that is busy with something else one may come too late.
    assert figures["successes"] >= 1
    assert figures["limit_violations"] == 0
    assert figures["chunks"]["sent"] > 4
    assert (tmp_path / "index.html").is_file()
