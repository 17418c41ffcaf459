"""The policy that comes with the package: whole, small, without torch, and it does what it is told."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install onnxruntime")
pytest.importorskip("vla_ros.sim.world")  # Not "mujoco": MUJOCO_GL is chosen first.

from vla_ros.config import package_share
from vla_ros.contract import canonical_hash, load_contract
from vla_ros.errors import InstructionError
from vla_ros.evaluation.parallel_rollouts import run_attempts
from vla_ros.evaluation.rollout_settings import RolloutSettings
from vla_ros.evaluation.task_suites import draw_attempts
from vla_ros.instruction import VOCABULARY
from vla_ros.policies.checkpoint import read_checkpoint
from vla_ros.policies.registry import load_policy_config, make_policy

FOLDER = package_share() / "config" / "policies" / "flow_vla"


def test_it_is_under_ten_megabytes_and_of_the_contract_that_is_beside_it() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 10e6
    contract = read_checkpoint(FOLDER).contract
    assert canonical_hash(contract) == canonical_hash(load_contract("small_vla"))


def test_it_knows_the_words_of_every_instruction() -> None:
    assert set(VOCABULARY) <= set(read_checkpoint(FOLDER).card.spec.vocabulary)


def test_a_word_that_it_never_met_is_told_and_not_guessed() -> None:
    policy, _ = make_policy(load_policy_config("flow_vla"))
    with pytest.raises(InstructionError, match="banana"):
        policy.reset("pick up the red banana", 0)


def test_it_runs_without_torch() -> None:
    program = """
import sys
sys.modules["torch"] = sys.modules["safetensors"] = None
from vla_ros.policies.registry import load_policy_config, make_policy
policy, _ = make_policy(load_policy_config("flow_vla"))
policy.reset("pick up the red block", 0)
print(policy.runtime)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "onnx"


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("robot", ["panda", "ur5e"])
def test_it_does_what_it_is_told_and_nothing_without_seeing(robot: str) -> None:
    """Scenes that it was never trained on, in one process; `vla-ros eval` has figures that mean more."""
    settings = RolloutSettings(robot, f"{robot}_table", load_policy_config("flow_vla"), "varied", time_limit_s=15.0)
    asked = [attempt for suite in ("reach", "pick") for attempt in draw_attempts(suite, "varied", range(900, 904))]
    seeing = run_attempts(settings, asked)
    assert sum(figures.outcome == "success" for figures in seeing) >= 6
    assert sum(figures.limit_violations for figures in seeing) == 0
    blind = run_attempts(replace(settings, is_blind=True), asked[4:])
    assert sum(figures.outcome == "success" for figures in blind) <= 1
