"""What operators' devices say: keys, axes, HID reports, hands and scripts, and when none of them holds anything."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from vla_ros.config import build, load, load_yaml, package_share
from vla_ros.errors import ConfigError, SensorError
from vla_ros.geometry import rotations, se3
from vla_ros.teleop import joystick, keyboard, pose_stream, script, spacemouse_hid
from vla_ros.teleop.clutch import Clutch, pursuit
from vla_ros.teleop.config import JoyMapping, KeyboardConfig, PoseConfig, TeleopConfig
from vla_ros.teleop.operator_input import OperatorInput, without_deadzone
from vla_ros.teleop.terminal import Terminal
from vla_ros.types import FloatArray

PATH = package_share() / "config" / "teleop.yaml"
CONFIG = load(TeleopConfig, PATH)
KEYS = KeyboardConfig()


# Keyboard


@pytest.mark.parametrize(
    ("text", "keys", "rest"),
    [
        ("wW", ["w", "w"], ""),
        ("\x1b[A\x1b[D\x1bOB", ["up", "left", "down"], ""),
        ("a\x1b", ["a"], "\x1b"),
        ("a\x1b[1;5", ["a"], "\x1b[1;5"),
        ("\x1b[1;5C\x1b[3~w", ["w"], ""),  # Ctrl-Right, Delete: their letters aren't keys
        ("\x1bw", ["w"], ""),  # Alt-w
        ("\x03", ["ctrl-c"], ""),
        ("\x1b[" + "1" * 40, [], ""),
    ],
)
def test_keys_are_told_from_what_a_terminal_sends(text, keys, rest) -> None:
    assert keyboard.decode_keys(text) == (keys, rest)


def test_keyboard_without_a_terminal_is_refused_with_what_to_do(monkeypatch) -> None:
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        with pytest.raises(SensorError, match="needs a terminal on standard input; record by the clock"):
            Terminal("record by the clock")


def type_keys(events: list[tuple[float, str]], now_s: float) -> tuple[OperatorInput, tuple[str, ...]]:
    """What is said at a time, and all commands until then."""
    state, commands = keyboard.KeyboardState(), ()
    for time_s, key in events:
        state, said = keyboard.step(state, [key], time_s, KEYS)
        commands += said.commands
    _, said = keyboard.step(state, [], now_s, KEYS)
    return said, commands + said.commands


def test_key_counts_as_held_for_a_moment_after_each_character_and_not_longer() -> None:
    said, _ = type_keys([(0.0, "w")], 0.149)
    assert said.is_held
    np.testing.assert_array_equal(said.sticks, [1, 0, 0, 0, 0, 0])
    assert not type_keys([(0.0, "w")], 0.151)[0].is_held
    # Held: repeated 30 times a second from half a second on.
    repeated = [(0.0, "w"), *((0.5 + i / 30.0, "w") for i in range(20))]
    assert type_keys(repeated, repeated[-1][0] + 0.149)[0].is_held
    assert not type_keys(repeated, repeated[-1][0] + 0.151)[0].is_held


def test_characters_that_a_network_held_back_and_sends_at_once_move_no_longer_than_one() -> None:
    assert not type_keys([(1.0, "w")] * 100, 1.151)[0].is_held


def test_two_keys_add_up_opposite_ones_cancel_and_space_lets_go() -> None:
    np.testing.assert_array_equal(type_keys([(0.0, "a"), (0.05, "r")], 0.1)[0].sticks, [0, 1, 1, 0, 0, 0])
    both, _ = type_keys([(0.0, "a"), (0.05, "d")], 0.1)
    assert both.is_held
    assert not both.sticks.any()
    assert not type_keys([(0.0, "a"), (0.05, " ")], 0.06)[0].is_held


def test_gripper_key_that_is_held_toggles_once_and_holds_the_switch() -> None:
    said, commands = type_keys([(0.0, "g"), (0.4, "g"), (0.43, "g"), (1.5, "g")], 1.6)
    assert commands == ("gripper", "gripper")
    assert said.is_held
    assert not said.sticks.any()
    assert type_keys([(0.0, "1"), (0.1, "+"), (0.2, "z")], 0.2)[1] == ("start", "faster")


# Joysticks


XBOX = CONFIG.gamepad.mappings["xbox"]


def joy(axes: dict[int, float], buttons: set[int], before: joystick.JoystickState, now_s: float, mapping=XBOX):
    return joystick.take(
        before, [axes.get(i, 0.0) for i in range(8)], [int(i in buttons) for i in range(11)], now_s, mapping
    )


def read_joy(state: joystick.JoystickState, now_s: float, mapping=XBOX, **more) -> OperatorInput:
    return joystick.read(state, now_s, mapping, 0.1, 0.3, "joy", **more)


def test_xbox_sticks_move_forward_left_up_and_turn_while_the_shoulder_is_held() -> None:
    state, _ = joy({1: 1.0, 0: 0.55, 4: -1.0, 3: 0.05}, {5}, joystick.JoystickState(), 0.0)
    said = read_joy(state, 0.1)
    assert said.is_held
    # Beyond a dead tenth, 0.55 is half of the rest.
    np.testing.assert_allclose(said.sticks, [1.0, 0.5, -1.0, 0.0, 0.0, 0.0], atol=1e-12)
    state, _ = joy({1: 1.0}, set(), state, 0.2)
    assert not read_joy(state, 0.2).is_held


@pytest.mark.parametrize(("value", "expected"), [(0.1, 0.0), (-0.1, 0.0), (0.1001, 1.1e-4), (1.2, 1.0), (-1.0, -1.0)])
def test_deadzone_begins_at_nothing_and_ends_at_all(value, expected) -> None:
    assert without_deadzone(value, 0.1) == pytest.approx(expected, abs=1e-5)


def test_buttons_count_when_they_go_down_and_not_when_they_are_found_down() -> None:
    state, commands = joy({}, {7}, joystick.JoystickState(), 0.0)
    assert commands == ()
    state, commands = joy({}, {7}, state, 0.1)
    assert commands == ()
    state, _ = joy({}, set(), state, 0.2)
    state, commands = joy({}, {7, 3}, state, 0.3)
    assert set(commands) == {"start", "frame"}


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (joystick.JoystickState(), "nothing on joy yet"),
        (joystick.JoystickState((1.0,) * 8, (1,) * 11, -0.5), "nothing on joy for 0.5 s (limit 0.3 s)"),
        (joystick.JoystickState((1.0,) * 2, (1,) * 11, 0.0), "joy has 2 axes and 11 buttons, the mapping needs axis 7"),
        (joystick.JoystickState((float("nan"),) * 8, (1,) * 11, 0.0), "joy has axes that aren't finite"),
    ],
)
def test_joystick_that_cannot_be_relied_upon_holds_nothing_and_says_why(state, text) -> None:
    said = read_joy(state, 0.0)
    assert not said.is_held
    assert text in said.problem


def test_device_that_is_silent_at_rest_may_be_silent_there_alone() -> None:
    at_rest = joystick.JoystickState((0.0,) * 8, (1,) * 11, -5.0)
    assert read_joy(at_rest, 0.0, is_silent_at_rest=True).problem == ""
    pushed = joystick.JoystickState((0.5,) * 8, (1,) * 11, -5.0)
    assert "for 5.0 s" in read_joy(pushed, 0.0, is_silent_at_rest=True).problem


def test_stick_without_a_button_is_its_own_dead_man_switch() -> None:
    mapping = build(JoyMapping, {"dead_man": None, "move": {"x": {"axis": 0}}}, "here")
    assert read_joy(joystick.JoystickState((0.2,), (), 0.0), 0.0, mapping).is_held
    assert not read_joy(joystick.JoystickState((0.09,), (), 0.0), 0.0, mapping).is_held


def test_trigger_leads_the_gripper_only_after_it_was_seen_released() -> None:
    mapping = build(JoyMapping, {"dead_man": 5, "move": {"x": {"axis": 1}}, "gripper_axis": 2}, "here")
    state, _ = joy({2: 0.0}, {5}, joystick.JoystickState(), 0.0, mapping)
    assert read_joy(state, 0.0, mapping).lever is None
    state, _ = joy({2: 1.0}, {5}, state, 0.0, mapping)
    assert read_joy(state, 0.0, mapping).lever == 1.0
    state, _ = joy({2: -0.5}, {5}, state, 0.0, mapping)
    assert read_joy(state, 0.0, mapping).lever == pytest.approx(0.25)


# SpaceMouse


def test_hid_reports_are_read_as_forward_left_up_and_turns_about_them() -> None:
    state = spacemouse_hid.HidState()
    # SpaceNavigator: pushed right and away from the operator; numbers little endian: 350, -175, 0.
    state = spacemouse_hid.parse(state, bytes.fromhex("01 5e01 51ff 0000"))
    np.testing.assert_allclose(state.axes(350.0), [0.5, -1.0, 0, 0, 0, 0])
    # Pulled up (down is positive), and turned clockwise seen from above.
    state = spacemouse_hid.parse(state, bytes.fromhex("01 0000 0000 a2fe"))
    state = spacemouse_hid.parse(state, bytes.fromhex("02 0000 0000 5e01"))
    np.testing.assert_allclose(state.axes(350.0), [0, 0, 1.0, 0, 0, -1.0])
    assert spacemouse_hid.parse(state, bytes.fromhex("03 02 00")).button_list()[:3] == (0, 1, 0)


def test_hid_report_of_newer_receivers_has_all_six_and_strange_ones_change_nothing() -> None:
    state = spacemouse_hid.parse(spacemouse_hid.HidState(), bytes.fromhex("01 0100 0200 0300 0400 0500 0600"))
    assert state.counts == (1, 2, 3, 4, 5, 6)
    for report in (b"", b"\x01", b"\x01\x02\x03", b"\x17" + bytes(12)):
        assert spacemouse_hid.parse(state, report) == state


def test_hid_device_is_found_by_its_vendor(tmp_path: Path) -> None:
    with pytest.raises(SensorError, match="no 3Dconnexion device"):
        spacemouse_hid.find_device(tmp_path)
    # A mouse of Logitech's isn't one, its SpaceNavigator is.
    for number, identity in enumerate(("0003:0000046D:0000C077", "0003:0000046D:0000C626", "0003:0000256F:0000C635")):
        folder = tmp_path / f"sys/class/hidraw/hidraw{number}/device"
        folder.mkdir(parents=True)
        (folder / "uevent").write_text(f"DRIVER=hid-generic\nHID_ID={identity}\nHID_NAME=x\n")
    assert spacemouse_hid.find_device(tmp_path) == tmp_path / "dev/hidraw1"


def test_hid_reader_takes_what_has_come_and_refuses_what_it_may_not_open(tmp_path: Path) -> None:
    pipe = tmp_path / "hidraw0"
    os.mkfifo(pipe)
    reader = spacemouse_hid.HidReader(pipe)
    assert reader.take() == []
    with pipe.open("wb", buffering=0) as device:
        device.write(bytes.fromhex("01 5e01 51ff 0000"))
        assert [state.counts[:3] for state in reader.take()] == [(350, -175, 0)]
    reader.close()
    with pytest.raises(SensorError, match=r"can't be opened.*udev rule"):
        spacemouse_hid.HidReader(tmp_path / "hidraw9")


# Hands


def hand(x: float = 0.0, y: float = 0.0, z: float = 0.0, rotvec: tuple[float, ...] = (0.0, 0.0, 0.0)) -> FloatArray:
    return se3.make_pose(np.array([x, y, z]), rotations.rotvec_to_matrix(np.array(rotvec)))


def test_hand_leads_by_its_way_since_the_clutch_in_its_own_axes_scaled() -> None:
    config = build(PoseConfig, {"scale": 0.5, "rotation_scale": 2.0}, "here")
    tool = se3.make_pose(np.array([0.5, 0.1, 0.3]), np.diag([1.0, -1.0, -1.0]))
    # OpenXR: -z forward, -x left, y up; the hand is turned itself when it takes hold, which mustn't matter.
    clutch = Clutch(hand(1.0, 2.0, 3.0, (0.3, 0.0, 0.0)), tool, config.R_view_track)
    there = hand(1.0 - 0.2, 2.0 + 0.04, 3.0 - 0.1)
    there[:3, :3] = rotations.rotvec_to_matrix(np.array([0.0, 0.25, 0.0])) @ clutch.T_track_hand[:3, :3]
    wanted = clutch.wanted(there, config)
    np.testing.assert_allclose(wanted[:3, 3], [0.55, 0.2, 0.32], atol=1e-12)
    turn = rotations.matrix_to_rotvec(wanted[:3, :3] @ tool[:3, :3].T)
    np.testing.assert_allclose(turn, [0.0, 0.0, 0.5], atol=1e-12)


@pytest.mark.parametrize("axes", [["x", "y", "-z"], ["x", "x", "z"], ["a", "y", "z"], ["-z", "x", "y"]])
def test_axes_that_mirror_or_name_none_are_refused(axes) -> None:
    with pytest.raises(ConfigError, match="pose: axes"):
        build(PoseConfig, {"axes": axes}, "here")


def test_clutch_holds_while_poses_and_clutch_are_fresh() -> None:
    config = PoseConfig()
    state = pose_stream.take_pose(pose_stream.PoseStreamState(), hand(), 0.0, config)
    assert not pose_stream.read(state, 0.1, config, "pose").is_held
    state = pose_stream.take_clutch(state, True, 0.0)
    assert pose_stream.read(state, 0.19, config, "pose").is_held
    assert "nothing on pose for 0.2 s" in pose_stream.read(state, 0.21, config, "pose").problem
    state = pose_stream.take_pose(state, hand(), 0.55, config)
    assert not pose_stream.read(state, 0.55, config, "pose").is_held  # the clutch has been silent for too long
    parameter = pose_stream.take_clutch(state, True, None)
    assert pose_stream.read(parameter, 0.7, config, "pose").is_held


def test_leap_of_the_tracker_releases_until_the_clutch_was_let_go() -> None:
    config = PoseConfig()
    state = pose_stream.take_clutch(pose_stream.PoseStreamState(), True, None)
    for time_s, x in ((0.0, 0.0), (0.02, 0.01), (0.04, 0.4), (0.06, 0.41)):
        state = pose_stream.take_pose(state, hand(x), time_s, config)
    assert "the pose leapt by 0.39 m (limit 0.15 m)" in pose_stream.read(state, 0.06, config, "pose").problem
    state = pose_stream.take_clutch(pose_stream.take_clutch(state, False, None), True, None)
    assert pose_stream.read(state, 0.06, config, "pose").is_held


def test_pursuit_closes_in_without_overshoot() -> None:
    T, wanted, dt_s = hand(), hand(0.1, 0.0, 0.0, (0.0, 0.0, 0.5)), 0.01
    way = []
    for _ in range(200):
        v = pursuit(T, wanted, 8.0, (1.2, 3.5))
        delta = se3.make_pose(np.asarray(dt_s * v[:3]), rotations.rotvec_to_matrix(np.asarray(dt_s * v[3:])))
        T = se3.compose_base(T, delta)
        way.append(T[0, 3])
    assert max(way) <= 0.1
    np.testing.assert_allclose(se3.pose_error(T, wanted), np.zeros(6), atol=1e-5)


# Scripts


def write_script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "script.yaml"
    path.write_text(text)
    return path


def test_script_says_twists_ways_and_commands_in_their_time_and_then_quits(tmp_path: Path) -> None:
    text = """
steps:
  - {duration_s: 1.0, twist: [0.1, 0, 0, 0, 0, 0.4], commands: [start]}
  - {duration_s: 2.0, move: [0, 0.2, 0, 0, 0, 0], opening: 0.0}
  - {duration_s: 0.5, release: true, commands: [success]}
"""
    loaded = script.load_script(write_script(tmp_path, text), CONFIG)
    state, said = script.step(loaded, script.ScriptState(), 0.0, hand(0.5), False, CONFIG)
    assert not said.is_held  # the dead-man switch has to be seen released
    commands: list[str] = []
    at: dict[float, OperatorInput] = {}
    for tick in range(1, 400):
        now_s = tick * 0.01
        state, said = script.step(loaded, state, now_s, hand(0.6), True, CONFIG)
        commands += said.commands
        at[round(now_s, 2)] = said
    np.testing.assert_allclose(at[0.5].sticks, [0.1 / 0.25, 0, 0, 0, 0, 0.5])
    assert at[0.5].speed == 1.0
    half = at[2.01]
    assert half.T_base_wanted is not None
    # Half of the way after half of the time, at 1.875 times the mean speed; from where the tool was led to.
    np.testing.assert_allclose(half.T_base_wanted[:3, 3], [0.6, 0.1, 0.0], atol=1e-9)
    np.testing.assert_allclose(half.sticks[1] * CONFIG.linear_m_s, 1.875 * 0.1, atol=1e-9)
    assert half.opening == 0.0
    assert not at[3.2].is_held
    assert commands == ["start", "success", "quit"]
    assert state.is_over


def test_script_begins_when_the_arm_is_led_and_holds_the_tool_until_then(tmp_path: Path) -> None:
    loaded = script.load_script(
        write_script(tmp_path, "steps:\n  - {duration_s: 1.0, move: [0.1, 0, 0, 0, 0, 0]}"), CONFIG
    )
    state, said = script.step(loaded, script.ScriptState(), 0.0, hand(0.5), False, CONFIG)
    for now_s in (0.1, 1.5, 3.0):
        state, said = script.step(loaded, state, now_s, hand(0.5), False, CONFIG)
        assert said.is_held
        assert said.T_base_wanted is None
        assert not said.sticks.any()
    state, said = script.step(loaded, state, 4.0, hand(0.5), True, CONFIG)
    state, said = script.step(loaded, state, 4.5, hand(0.5), False, CONFIG)  # a moment's silence changes nothing
    assert said.T_base_wanted is not None
    np.testing.assert_allclose(said.T_base_wanted[:3, 3], [0.55, 0.0, 0.0], atol=1e-9)
    # A script that begins by letting go waits for nobody.
    waits = script.load_script(write_script(tmp_path, "steps:\n  - {duration_s: 1.0, release: true}"), CONFIG)
    state, _ = script.step(waits, script.ScriptState(), 0.0, hand(0.5), False, CONFIG)
    state, said = script.step(waits, state, 0.1, hand(0.5), False, CONFIG)
    assert (state.index, said.is_held) == (0, False)


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ("{duration_s: 1.0, twist: [0.3, 0, 0, 0, 0, 0]}", "linear speed 0.3, full speed 0.25"),
        ("{duration_s: 0.5, move: [0.1, 0, 0, 0, 0, 0]}", "linear speed 0.375"),
        ("{duration_s: 1.0, move: [0, 0, 0, 0, 0, 0], release: true}", "one of twist, move, pose and release"),
        ("{duration_s: 0.0}", "isn't positive"),
        ("{duration_s: 1.0, opening: 2.0}", "isn't in"),
        ("{duration_s: 1.0, twist: [.nan, 0, 0, 0, 0, 0]}", "isn't finite"),
        ("{duration_s: 1.0, commands: [jump]}", "unknown jump"),
    ],
)
def test_script_that_cannot_be_done_is_refused_before_anything_moves(tmp_path: Path, step: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        script.load_script(write_script(tmp_path, f"steps:\n  - {step}\n"), CONFIG)


# Configuration


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("rate_hz", 100.0, "isn't in"),
        ("speed", 0.3, "isn't one of"),
        ("speeds", [0.4, 0.1], "have to rise"),
        ("lead_s", 0.0, "isn't positive"),
        ("gamepad", {"mapping": "wii", "mappings": {}}, "no mapping 'wii'"),
        ("spacemouse", {"source": "twist", "mapping": {"dead_man": 0, "move": {}}}, "dead_man has to be null"),
        ("spacemouse", {"mapping": {"dead_man": 0, "move": {"w": {"axis": 1}}}}, "unknown w"),
        ("spacemouse", {"mapping": {"dead_man": 0, "move": {}, "buttons": {"gripper": 0}}}, "something else besides"),
        ("keyboard", {"press_hold_s": 3.0}, "dead-man switch"),
    ],
)
def test_configuration_that_makes_no_sense_is_refused(key, value, problem) -> None:
    with pytest.raises(ConfigError, match=problem):
        build(TeleopConfig, {**load_yaml(PATH), key: value}, "teleop.yaml")
