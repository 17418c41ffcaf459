"""`vla-ros contract`: what it prints, and its exit codes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vla_ros.cli import main
from vla_ros.config import package_share
from vla_ros.contract import load_contract
from vla_ros.policies.normalisation import Statistics
from vla_ros.policies.statistics_file import CheckpointStatistics

CONTRACTS = package_share() / "config" / "contracts"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["contract", *words])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def data(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code, text = run(capsys, *words, "--json")
    return code, json.loads(text.splitlines()[-1])


def test_show_prints_hash_and_where_each_entry_lies(capsys) -> None:
    code, text = run(capsys, "show", "droid_joint", "--robot", "panda")
    assert code == 0
    assert f"interface_hash: {load_contract('droid_joint').interface_hash}" in text
    assert "action.joint_scale_rad: 0.2" in text
    assert "state layout: joint_positions 7 [0:7], gripper 1 [7:8]" in text
    assert "action layout: joints 7 [0:7], gripper 1 [7:8]" in text


def test_show_without_a_robot_leaves_its_joints_open(capsys) -> None:
    _, text = run(capsys, "show", "droid_joint")
    assert "state layout: joint_positions joints, gripper 1" in text
    assert "--robot NAME counts" in text
    code, found = data(capsys, "show", "libero", "--robot", "ur5e")
    assert code == 0
    assert found["contract"]["action"]["rotation_scale_rad"] == 0.5
    assert found["state_layout"] == [
        {"name": "tcp_pose", "begin": 0, "width": 6}, {"name": "gripper", "begin": 6, "width": 2},
    ]  # fmt: skip


def test_diff_prints_the_lines_and_fails_where_there_are_any(capsys) -> None:
    code, text = run(capsys, "diff", "droid_tool", "droid_joint")
    assert code == 1
    assert "action.space: tool != joint" in text.splitlines()
    assert run(capsys, "diff", "libero", str(CONTRACTS / "libero.yaml"))[0] == 0
    code, found = data(capsys, "diff", "libero", "libero")
    assert (code, found["same"], found["differences"]) == (0, True, [])


def write_contract(path: Path, **action: Any) -> None:
    data = yaml.safe_load((CONTRACTS / "tool_delta_visual.yaml").read_text())
    data["action"].update(action)
    path.write_text(yaml.safe_dump(data))


def write_statistics(path: Path, state: int = 8) -> None:
    rng = np.random.default_rng(0)
    vectors = [Statistics.from_samples(rng.normal(size=(9, width))) for width in (state, 7)]
    CheckpointStatistics(*vectors, "blocks", load_contract("tool_delta_visual").interface_hash).save(path)


CHECK = ("check", "--rig", "panda_table", "--contract", "tool_delta_visual")


def test_check_of_what_fits_says_so(capsys, tmp_path: Path) -> None:
    shutil.copy(CONTRACTS / "tool_delta_visual.yaml", tmp_path / "contract.yaml")
    write_statistics(tmp_path / "statistics.json")
    code, text = run(capsys, *CHECK, "--checkpoint", str(tmp_path))
    assert code == 0, text
    assert "fits rig panda_table with robot panda" in text
    code, found = data(capsys, *CHECK, "--statistics", str(tmp_path / "statistics.json"))
    assert code == 0
    assert found["fits"]
    assert len(next(iter(found["stats_hash"].values()))) == 16


def test_check_prints_where_a_checkpoint_differs(capsys, tmp_path: Path) -> None:
    write_contract(tmp_path / "contract.yaml", composition="tcp")
    write_statistics(tmp_path / "statistics.json", state=5)
    code, text = run(capsys, *CHECK, "--checkpoint", str(tmp_path))
    assert code == 1
    assert "checkpoint: action.composition: base != tcp" in text
    assert "statistics of state have 5 entries, contract tool_delta_visual has 8" in text
    assert "doesn't fit rig panda_table" in text


def test_check_names_a_camera_that_the_rig_lacks(capsys, tmp_path: Path) -> None:
    contract = yaml.safe_load((CONTRACTS / "libero.yaml").read_text())
    contract["observation"]["images"]["image"]["camera"] = "ceiling"
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(contract))
    code, found = data(capsys, "check", "--rig", "panda_table", "--contract", str(tmp_path / "other.yaml"))
    assert code == 1
    assert any("'ceiling'" in line for line in found["mismatches"])


def test_check_names_scales_for_another_arm_and_a_missing_file(capsys, tmp_path: Path) -> None:
    contract = yaml.safe_load((CONTRACTS / "aloha_joints.yaml").read_text())
    contract["action"]["scales"] = [1.0] * 6
    path = tmp_path / "contract.yaml"
    path.write_text(yaml.safe_dump(contract))
    code, text = run(capsys, "check", "--rig", "panda_table", "--contract", str(path), "--checkpoint", str(tmp_path))
    assert code == 1
    assert "scales has 6 entries, robot panda has 7 joints" in text
    assert "normalises, and there is no" in text
    assert run(capsys, "check", "--rig", "ur5e_table", "--contract", str(path))[0] == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("show", "libreo"), "did you mean 'libero'"),
        ((*CHECK, "--checkpoint", "/nowhere"), "holds no contract.yaml"),
        ((*CHECK, "--statistics", "/nowhere.json"), "can't be read"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_line_with_exit_code_2(capsys, words: tuple[str, ...], text: str) -> None:
    code, said = run(capsys, *words)
    assert code == 2
    assert text in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("words", [("contract",), ("contract", "show"), ("contract", "diff"), ("contract", "check")])
def test_help_has_an_example(capsys, words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*words, "--help"])
    assert exit_.value.code == 0
    assert f"example:\n  vla-ros {' '.join(words)}" in capsys.readouterr().out


def test_a_bare_flange_lacks_the_gripper_that_a_contract_uses() -> None:
    from vla_ros.commands.contract import _robot_mismatches
    from vla_ros.robots.config import load_robot

    bare = dataclasses.replace(load_robot("panda"), gripper=None)
    (line,) = _robot_mismatches(bare, load_contract("libero"))
    assert "has a gripper in ['gripper', 'action'], robot panda has none" in line
