"""YAML to dataclasses: what is refused, and that the refusal names file, key and mend in one line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from vla_ros.config import build, config_names, find_config, load, package_share
from vla_ros.errors import ConfigError, UnknownNameError


@dataclass(frozen=True)
class Wheel:
    radius_m: float
    spokes: int = 36

    def __post_init__(self) -> None:
        if self.radius_m < 0:
            raise ValueError(f"radius_m {self.radius_m} is negative")


@dataclass(frozen=True)
class Bicycle:
    name: str
    front: Wheel
    kind: Literal["road", "city"] = "road"
    gears: tuple[int, ...] = ()
    frame_m: tuple[float, float] = (0.0, 0.0)
    bell: bool = False
    load_kg: float | None = None
    extras: dict[str, float] = field(default_factory=dict)


def bicycle(**changes: Any) -> dict[str, Any]:
    return {"name": "red", "front": {"radius_m": 0.3}} | changes


def test_values_arrive_with_the_declared_types() -> None:
    data = bicycle(kind="city", gears=[1, 2], frame_m=[1, 2.5], bell=True, load_kg=20, extras={"lamp": 1})
    made = build(Bicycle, data, "b.yaml")
    assert made == Bicycle("red", Wheel(0.3), "city", (1, 2), (1.0, 2.5), True, 20.0, {"lamp": 1.0})
    assert isinstance(made.frame_m[0], float)
    assert isinstance(made.load_kg, float)
    assert isinstance(made.extras["lamp"], float)


def test_absent_keys_take_their_defaults_and_null_stands_for_none() -> None:
    assert build(Bicycle, bicycle(load_kg=None), "b.yaml") == Bicycle("red", Wheel(0.3))


def test_a_zero_stays_a_zero_and_is_not_taken_as_absent() -> None:
    made = build(Bicycle, bicycle(front={"radius_m": 0, "spokes": 0}, load_kg=0), "b.yaml")
    assert (made.front.radius_m, made.front.spokes, made.load_kg) == (0.0, 0, 0.0)


@pytest.mark.parametrize(
    ("changes", "where", "says"),
    [
        ({"nmae": "x"}, "b.yaml", "unknown key 'nmae'; did you mean 'name'?"),
        ({"front": {"radius_m": 0.3, "spoke": 3}}, "b.yaml: front", "unknown key 'spoke'; did you mean 'spokes'?"),
        ({"front": {}}, "b.yaml: front", "key 'radius_m' is missing"),
        ({"front": {"radius_m": "big"}}, "b.yaml: front: radius_m", "expected float, found 'big'"),
        ({"front": {"radius_m": True}}, "b.yaml: front: radius_m", "expected float, found True"),
        ({"front": {"radius_m": -1.0}}, "b.yaml: front", "radius_m -1.0 is negative"),
        ({"front": {"radius_m": 0.3, "spokes": True}}, "b.yaml: front: spokes", "expected int, found True"),
        ({"front": {"radius_m": 0.3, "spokes": 3.0}}, "b.yaml: front: spokes", "expected int, found 3.0"),
        ({"front": 3}, "b.yaml: front", "expected a mapping, found 3"),
        ({"bell": 1}, "b.yaml: bell", "expected bool, found 1"),
        ({"name": None}, "b.yaml: name", "expected str, found None"),
        ({"kind": "rod"}, "b.yaml: kind", "'rod' isn't a choice; choose from: road, city"),
        ({"gears": 3}, "b.yaml: gears", "expected a list, found 3"),
        ({"gears": [1, "two"]}, "b.yaml: gears[1]", "expected int, found 'two'"),
        ({"frame_m": [1.0]}, "b.yaml: frame_m", "has 1 items, needs 2"),
        ({"extras": [1]}, "b.yaml: extras", "expected a mapping, found [1]"),
        ({"extras": {"lamp": "x"}}, "b.yaml: extras.lamp", "expected float, found 'x'"),
        ({"load_kg": "x"}, "b.yaml: load_kg", "expected float, found 'x'"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(changes: dict[str, Any], where: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Bicycle, bicycle(**changes), "b.yaml")
    assert caught.value.where == where
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"b\.yaml: key 'front' is missing"):
        build(Bicycle, {"name": "red"}, "b.yaml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("radius_m: [1, 2\nspokes: 3", "isn't YAML"),
        ("", "holds NoneType"),
        ("- 1", "holds list"),
        ("radius_m: 1.0\nspoke: 3", "unknown key 'spoke'; did you mean 'spokes'?"),
        ("radius_m: \xff", "isn't YAML"),
        ("? [1, 2]\n: 3", "a key isn't a word"),
        ("radius_m: 2020-02-30", "isn't YAML (day is out of range for month"),
        ("radius_m: !!float wide", "isn't YAML"),
        ("radius_m: " + "9" * 5000, "isn't YAML"),
        ("radius_m: " + "9" * 400, "radius_m: is too large for a float"),
        ("radius_m: " + "[" * 3000 + "]" * 3000, "isn't YAML"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line_with_its_path(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "wheel.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load(Wheel, path)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can't be read \(No such file"):
        load(Wheel, tmp_path / "none.yaml")


def test_a_name_a_path_and_nothing_else_are_found(tmp_path: Path) -> None:
    assert find_config("robots", "panda") == package_share() / "config" / "robots" / "panda.yaml"
    own = tmp_path / "own.yaml"
    own.write_text("name: own", encoding="utf-8")
    assert find_config("robots", str(own)) == own
    with pytest.raises(ConfigError, match=r"no such file; give a path that exists or one of: .*panda"):
        find_config("robots", str(tmp_path / "none.yaml"))
    with pytest.raises(UnknownNameError, match=r"unknown robot 'pandas'; did you mean 'panda'\?"):
        find_config("robots", "pandas")
    with pytest.raises(UnknownNameError, match="unknown policy 'none'"):
        find_config("policies", "none")
    with pytest.raises(ConfigError, match="can't be looked up"):
        find_config("policies", "long" * 2000 + ".yaml")
    with pytest.raises(ConfigError, match="home folder of nobody"):
        find_config("policies", "~no_such_user/own.yaml")


def test_true_is_not_the_choice_one_though_python_says_they_are_equal() -> None:
    @dataclass(frozen=True)
    class Bell:
        rings: Literal[0, 1]

    with pytest.raises(ConfigError, match="True isn't a choice"):
        build(Bell, {"rings": True}, "b.yaml")
    assert repr(build(Bell, {"rings": 1.0}, "b.yaml").rings) == "1"


def test_config_names_are_the_files_in_the_folder() -> None:
    names = config_names("robots")
    assert {"panda", "ur5e"} <= set(names)
    assert names == sorted(names)
    assert config_names("no_such_folder") == []
