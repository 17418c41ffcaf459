"""YAML that keeps its comments, and files that nobody asked to be overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vla_ros.calibration.yaml_text import difference, set_values
from vla_ros.commands.calibrate.writing import destination, rounded, write
from vla_ros.config import build, package_share
from vla_ros.contract import Rig, load_rig
from vla_ros.errors import ConfigError, VlaRosError
from vla_ros.robots.config import RobotConfig, load_robot

TEXT = """\
# Our cell.
cameras:
  base:  # above the table
    topic: a/image
    K: null   # not calibrated
    mount: {parent: base, position_m: [0.0, 0.1, 0.2]}
    distortion:
      - 0.1
      - 0.2
  # the one on the hand
  wrist:
    topic: b/image

# below all
table: 0.0
"""


def comments(text: str) -> list[str]:
    return [line.partition("#")[2] for line in text.splitlines() if "#" in line]


def test_values_are_replaced_and_added_and_comments_stay() -> None:
    K = [1.5, 0.0, -2.0]
    after = set_values(
        TEXT,
        {
            ("cameras", "base", "K"): K,
            ("cameras", "base", "mount", "position_m"): [1.0, 2.0, 3.0],
            ("cameras", "base", "mount", "rpy_rad"): [0.0, 0.0, 1e-7],
            ("cameras", "base", "distortion"): [],
            ("cameras", "wrist", "source", "latency_s"): 0.04,
            ("more",): True,
        },
        "cell.yaml",
    )
    data = yaml.safe_load(after)
    assert data["cameras"]["base"] == {
        "topic": "a/image",
        "K": K,
        "mount": {"parent": "base", "position_m": [1.0, 2.0, 3.0], "rpy_rad": [0.0, 0.0, 1e-7]},
        "distortion": [],
    }
    assert data["cameras"]["wrist"] == {"topic": "b/image", "source": {"latency_s": 0.04}}
    assert data["table"] == 0.0
    assert data["more"] is True
    assert comments(after) == comments(TEXT)
    # What wasn't to change is there, line by line.
    kept = [
        line for line in TEXT.splitlines() if not any(word in line for word in ("K:", "mount", "- 0", "distortion"))
    ]
    assert [line for line in after.splitlines() if line in kept] == kept


def test_keys_without_a_value_and_empty_mappings_take_one() -> None:
    assert yaml.safe_load(set_values("a:\nb: {}\n", {("a",): 1.0, ("b", "c"): 2}, "x")) == {"a": 1.0, "b": {"c": 2}}


def test_every_shipped_file_can_be_edited() -> None:
    for path in sorted((package_share() / "config" / "rigs").glob("*.yaml")):
        text, rig = path.read_text(), load_rig(path.stem)
        values = {("cameras", name, "mount", "rpy_rad"): [0.1, 0.2, 0.3] for name in rig.cameras}
        values |= {("cameras", name, "K"): [1.0] * 9 for name in rig.cameras}
        after = set_values(text, values, str(path))
        assert comments(after) == comments(text)
        assert all(camera.K == (1.0,) * 9 for camera in build(Rig, yaml.safe_load(after), "x").cameras.values())
    for path in sorted((package_share() / "config" / "robots").glob("*.yaml")):
        text = path.read_text()
        after = set_values(text, {("command", "latency_s", "position"): 0.031}, str(path))
        assert comments(after) == comments(text)
        robot = build(RobotConfig, yaml.safe_load(after), "x")
        assert robot.command.using("position").delay_s == pytest.approx(0.031)


def test_a_form_that_would_change_its_meaning_is_left_alone() -> None:
    anchored = "a: &x {b: 1}\nc: *x\n"
    with pytest.raises(ConfigError, match="by hand"):
        set_values(anchored, {("c", "b"): 2}, "x")
    with pytest.raises(ConfigError, match="mapping"):
        set_values("a: 1\n", {("a", "b"): 2}, "x")


def test_difference_names_both_files_and_the_changed_line() -> None:
    text = difference("a: 1\nb: 2\n", "a: 1\nb: 3\n", "old.yaml", "new.yaml")
    assert text.splitlines()[:2] == ["--- old.yaml", "+++ new.yaml"]
    assert "-b: 2" in text
    assert "+b: 3" in text


def test_nothing_is_overwritten_that_nobody_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "cell.yaml"
    mine.write_text((package_share() / "config" / "rigs" / "panda_table.yaml").read_text())
    before = mine.read_text()

    def check(data: object, where: str) -> Rig:
        return build(Rig, data, where)

    to = destination("rigs", str(mine), None, False)
    assert to.path == tmp_path / "cell.calibrated.yaml"
    written = write(to, {("table_height_m",): 0.1}, check)
    assert mine.read_text() == before
    assert load_rig(str(written.path)).table_height_m == 0.1
    assert "+table_height_m: 0.1" in written.difference
    with pytest.raises(VlaRosError, match="is there already"):
        destination("rigs", str(mine), None, False)
    # Going on from the new file, in place.
    again = destination("rigs", str(written.path), None, True)
    write(again, {("table_height_m",): 0.2}, check)
    assert load_rig(str(written.path)).table_height_m == 0.2
    # A name's file is the package's: the new one comes here.
    assert destination("rigs", "ur5e_table", None, False).path == Path("ur5e_table.calibrated.yaml")
    assert destination("rigs", "ur5e_table", tmp_path, False).path == tmp_path / "ur5e_table.calibrated.yaml"
    with pytest.raises(VlaRosError, match="one of them"):
        destination("rigs", str(mine), tmp_path / "x.yaml", True)


def test_what_bringup_could_not_read_is_not_written(tmp_path: Path) -> None:
    to = destination("rigs", "panda_table", tmp_path / "new.yaml", False)
    with pytest.raises(ConfigError, match="K has 2 numbers"):
        write(to, {("cameras", "base", "K"): [1.0, 2.0]}, lambda data, where: build(Rig, data, where))
    assert not (tmp_path / "new.yaml").exists()


def test_latency_of_an_interface_counts_for_that_one_alone() -> None:
    command = load_robot("fr3").command
    late = build(type(command), {**vars(command), "alternatives": {}, "latency_s": {"trajectory": 0.02}}, "x")
    assert late.delay_s == pytest.approx(command.trajectory_lead_s + 0.02)
    assert load_robot("fr3").command.delay_s == command.lead_s
    with pytest.raises(ConfigError, match="aren't interfaces"):
        build(type(command), {**vars(command), "latency_s": {"servoj": 0.02}}, "x")
    with pytest.raises(ConfigError, match=r"isn't in \[0, 1\)"):
        build(type(command), {**vars(command), "latency_s": {"trajectory": -0.1}}, "x")


def test_numbers_have_no_minus_before_zero() -> None:
    assert str(rounded([-1e-9, 0.12345678], 3)) == "[0.0, 0.123]"
