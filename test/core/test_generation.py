"""Generated episodes: an expert without memory, starts that touch nothing, and the frames that a bag would give."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import multiprocessing
import os
import signal

import numpy as np
import pytest
import yaml

pytest.importorskip("rosbags")
pytest.importorskip("mujoco")

import bags

from vla_ros.cli import main
from vla_ros.commands.export_source import Source
from vla_ros.config import package_share
from vla_ros.contract import load_contract
from vla_ros.errors import ConfigError, ContractError, DatasetError, MissingDependencyError
from vla_ros.generation import parallel
from vla_ros.generation.episodes import EXPERT, Studio
from vla_ros.generation.expert import STEP_S, Expert, Travel
from vla_ros.generation.field import Funnel
from vla_ros.generation.moment import Moment, tool_down
from vla_ros.generation.plan import Disturbance, draw_plan, names_one_of_a_pair
from vla_ros.generation.starts import KINDS, draw_start
from vla_ros.instruction import VERBS, parse_instruction
from vla_ros.recording import dataset as d
from vla_ros.recording.episode import write_info
from vla_ros.recording.opening import open_any
from vla_ros.recording.synchronise import FrameOptions
from vla_ros.robots.config import load_robot
from vla_ros.sim.content import draw_content, draw_task

CONTRACT = load_contract("small_vla")


@pytest.fixture(scope="module")
def studio():
    found = Studio("panda", CONTRACT)
    yield found
    found.close()


def plan_of(verb, start="home", robot="panda", **changes):
    number = next(n for n in range(1000) if draw_plan(robot, 0, n, (verb,)).start == start)
    plan = dataclasses.replace(draw_plan(robot, 0, number, (verb,)), disturbances=())
    return dataclasses.replace(plan, **changes)


@pytest.mark.parametrize("robot", ["panda", "ur5e"])
def test_expert_does_every_task_from_home(robot):
    blind = Studio(robot, CONTRACT, has_images=False)
    for verb in VERBS:
        made = blind.make(plan_of(verb, robot=robot))
        assert made.is_success, made.plan


def moment(x=0.4, y=0.1, z=0.2, opening=1.0):
    block = np.eye(4)
    block[:3, 3] = 0.5, 0.0, 0.02
    T = tool_down(np.array([x, y, z]), 0.3)
    return Moment(T, opening, opening, {"block_red": block}, 0.5)


@pytest.mark.parametrize("text", ["reach the red block", "pick up the red block", "push the red block left"])
def test_expert_goes_on_from_any_point_of_its_way_as_it_meant_to(text):
    """It forgets what was: asked again half way, with what is then, it wants the rest of what it wanted before."""
    gripper = load_robot("panda").gripper
    asked = Expert(parse_instruction(text), gripper)
    way = [travel for travel, _ in asked.foresee(Travel(moment(), np.zeros(6)), 4.0)]
    other = Expert(parse_instruction(text), gripper)
    for place in (3, 20, 45):
        rest = other.chunk(way[place], 0, EXPERT)
        expected = np.stack([travel.moment.T_base_tcp for travel in way[place : place + 21]])
        np.testing.assert_allclose(rest.transforms, expected, atol=1e-12)


@pytest.mark.parametrize("opening", [0.45, 0.49, 0.5, 0.53])
def test_expert_that_holds_a_thing_means_to_go_on_holding_it(opening):
    """The pads give a little, so what is measured isn't the thing's width exactly."""
    held = moment(0.5, 0.0, 0.16, opening)
    held = dataclasses.replace(held, commanded_opening=0.0, objects={"block_red": held.T_base_tcp.copy()})
    asked = Expert(parse_instruction("pick up the red block"), load_robot("panda").gripper)
    chunk = asked.chunk(Travel(held, np.zeros(6)), 0, EXPERT)
    assert (chunk.openings == 0.0).all()
    np.testing.assert_allclose(chunk.transforms[:, :3, 3], [[0.5, 0.0, 0.16]] * len(chunk.transforms), atol=1e-9)


def test_expert_keeps_to_its_speeds_and_accelerations():
    way = [travel.moment.p_base for travel, _ in Expert(
        parse_instruction("pick up the red block"), load_robot("panda").gripper
    ).foresee(Travel(moment(), np.zeros(6)), 6.0)]  # fmt: skip
    velocity = np.diff(way, axis=0) / STEP_S
    assert np.linalg.norm(velocity, axis=1).max() < 0.33  # 0.25 m/s sideways and 0.2 m/s down.
    assert np.linalg.norm(np.diff(velocity, axis=0), axis=1).max() / STEP_S < 1.0 + 1e-9
    assert way[-1][2] > 0.15  # And it has lifted the block.


def test_tool_that_is_too_low_rises_before_it_goes_sideways():
    funnel = Funnel(0.12)
    velocity = funnel.velocity(np.array([0.4, 0.0, 0.02]), np.array([0.5, 0.0, 0.02]))
    assert velocity[2] > 0.1
    assert np.abs(velocity[:2]).max() == 0.0
    rng = np.random.default_rng(0)
    for p in rng.uniform([0.3, -0.2, 0.0], [0.6, 0.2, 0.3], (300, 3)):
        goal = np.array([0.45, 0.0, 0.02])
        velocity = funnel.velocity(p, goal)
        lowest = funnel.lowest_z_m(0.02, float(np.hypot(*(p - goal)[:2])))
        assert velocity[2] * (lowest - p[2]) >= 0.0
        assert velocity[:2] @ (goal - p)[:2] >= 0.0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "home"])
def test_start_is_in_nothing(studio, kind):
    """MuJoCo's own contacts: nothing is deeper in anything than what fingers press into what they hold."""
    world = studio.world
    for number in range(8):
        plan = draw_plan("panda", 1, number, VERBS)
        world.reset(plan.scene_seed, needed=plan.instruction)
        expert = Expert(plan.instruction, studio.robot.gripper)
        home = Moment(world.tcp_pose(), 1.0, 1.0, world.object_poses(), expert.width)
        start = draw_start(np.random.default_rng(number), kind, expert, studio.model, home)
        for name, T in start.moved.items():
            world.place_object(name, T)
        world.place_arm(start.positions, start.opening)
        depths = [contact.dist for contact in world._data.contact]
        # Pressed by 4 mm at most, and what rounding adds.
        assert min(depths, default=0.0) > -0.004 - 1e-12, (number, plan.instruction, start.kind)


def test_plan_depends_on_robot_seed_and_number_only():
    assert draw_plan("panda", 0, 7, VERBS) == draw_plan("panda", 0, 7, VERBS)
    others = [draw_plan("ur5e", 0, 7, VERBS), draw_plan("panda", 1, 7, VERBS), draw_plan("panda", 0, 8, VERBS)]
    assert all(other.scene_seed != draw_plan("panda", 0, 7, VERBS).scene_seed for other in others)
    texts = {draw_plan("panda", 0, number, VERBS).text for number in range(50)}
    assert len(texts) > 40
    assert all(parse_instruction(text) for text in texts)


def test_pairs_of_a_colour_are_as_common_as_it_takes_to_learn_shapes():
    """By chance one scene in eight or six names one of a pair; a net that saw no more of them took the wrong one."""

    def share(draw):
        plans = [draw(number) for number in range(400)]
        return np.mean([names_one_of_a_pair(*plan) for plan in plans])

    def planned(number):
        plan = draw_plan("panda", 0, number, VERBS)
        return plan.instruction, draw_content(plan.scene_seed, "varied", plan.instruction)

    def by_chance(number):
        task = draw_task(VERBS[number % len(VERBS)], number)
        return task, draw_content(number, "varied", task)

    assert 0.4 < share(planned) < 0.6
    assert 0.05 < share(by_chance) < 0.25


def test_disturbance_is_anothers_and_the_expert_takes_over_again(studio):
    disturbed = Disturbance(0.5, 0.3, (0.05, 0.0, 0.02), (0.0, 0.0, 0.1), 0.0, False)
    plan = plan_of("pick", "anywhere", duration_s=2.0, disturbances=(disturbed,))
    _, _, frames = studio.take(plan)
    sources = frames.columns[d.SOURCE][:, 0].tolist()
    # An action is due a period after its frame.
    assert sources[:4] == [EXPERT] * 4
    assert sources[5] == "disturbance"
    assert sources[8:] == [EXPERT] * (len(sources) - 8)


def messages_of(episode):
    """What a recorder would have written of these values."""
    robot, info = episode.robot, episode.info
    found = []

    def say(topic, stamp_ns, message):
        found.append(bags.Message(f"/{topic}", int(stamp_ns), message))

    start = {"event": "start", "episode": json.loads(info.to_json()), "stamp_ns": info.started_ns}
    say("episode/event", info.started_ns, bags.string(json.dumps(start)))
    for task in episode.tasks:
        say("task", task.received_ns, bags.string(task.task))
    for event in episode.events:
        say("episode/event", event.stamp_ns, bags.string(json.dumps(dict(event.values))))
    for stamp_ns, opening in zip(episode.gripper_commands.stamps_ns, episode.gripper_commands.values, strict=True):
        say("gripper/command", stamp_ns, bags.make("std_msgs/msg/Float64", data=float(opening)))
    targets = episode.tool_targets
    for stamp_ns, T, opening in zip(targets.stamps_ns.tolist(), targets.values, targets.openings, strict=True):
        grip = np.eye(4)
        grip[0, 3] = opening
        say("target", stamp_ns, bags.tool_chunk(stamp_ns, robot.base_frame, ["tcp", "gripper"], [[T, grip]], [0]))
    for k, stamp_ns in enumerate(episode.joint_positions.stamps_ns.tolist()):
        say("gripper/state", stamp_ns, bags.joint_state(stamp_ns, ["gripper"], [episode.gripper_openings.values[k]]))
        positions, velocities = episode.joint_positions.values[k], episode.joint_velocities.values[k]
        say("joint_states", stamp_ns, bags.joint_state(stamp_ns, robot.joint_names, positions, velocities))
        command = episode.joint_commands.values[k]
        say("joint_command", stamp_ns, bags.joint_state(stamp_ns, robot.joint_names, command, velocities))
    for each in episode.verdicts:
        say("safety/verdict", each.stamp_ns, bags.verdict(each.stamp_ns, each.state.value, each.source, **each.limits))
    for each in episode.chunks:
        chunk, grips = each.chunk, np.repeat(np.eye(4)[None], len(each.chunk.transforms), axis=0)
        grips[:, 0, 3] = chunk.openings
        points = [list(pair) for pair in zip(chunk.transforms, grips, strict=True)]
        times = np.round(chunk.time_from_start_s * 1e9).astype(int).tolist()
        message = bags.tool_chunk(chunk.stamp_ns, robot.base_frame, ["tcp", "gripper"], points, times)
        say(f"policies/{chunk.source}/action_chunk", each.received_ns, message)
    for name, series in episode.truth.items():
        for stamp_ns, T in zip(series.stamps_ns.tolist(), series.values, strict=True):
            edge = bags.make(
                "geometry_msgs/msg/TransformStamped",
                header=bags.header(stamp_ns, robot.base_frame),
                child_frame_id=name,
                transform=bags.transform(T),
            )
            say("sim/ground_truth", stamp_ns, bags.make("tf2_msgs/msg/TFMessage", transforms=[edge]))
    for camera in episode.cameras.values():
        for index, image in camera.read():
            stamp_ns = int(camera.stamps_ns[index])
            say(camera.topic, stamp_ns, bags.image(stamp_ns, image))
    return found


def test_frames_are_those_that_the_exporter_makes_of_the_episodes_bag(studio, tmp_path):
    disturbed = Disturbance(0.5, 0.3, (0.05, 0.0, 0.02), (0.0, 0.0, 0.1), 0.0, False)
    made, schema, frames = studio.take(plan_of("place", "on_the_way", duration_s=1.6, disturbances=(disturbed,)))
    folder = bags.write_bag(tmp_path / "episode_000000", messages_of(made.recorded))
    write_info(made.recorded.info, folder)
    found_schema, (found,) = Source(CONTRACT, FrameOptions()).read(folder)
    assert found_schema == schema
    assert found.tasks == frames.tasks
    assert any(source == "disturbance" for source in frames.columns[d.SOURCE][:, 0])
    for column in schema.columns:
        values, expected = found.columns[column.name], frames.columns[column.name]
        if column.dtype.startswith("float"):
            # Rotations go through quaternions on their way, which costs a rounding.
            np.testing.assert_allclose(values, expected, rtol=0.0, atol=2e-7 if column.dtype == "float32" else 1e-12)
        else:
            np.testing.assert_array_equal(values, expected, err_msg=column.name)
    images = {(name, k): image for name, k, image in frames.read_images()}
    assert len(images) == 2 * len(frames)
    for name, k, image in found.read_images():
        np.testing.assert_array_equal(image, images[name, k])


def test_dataset_is_the_same_whoever_makes_it_and_goes_on_where_it_was(studio, tmp_path):
    job = parallel.Job("panda", CONTRACT, ("reach",), 3)
    made = parallel.generate(tmp_path / "panda", job, 1, workers=2)
    assert (made.episodes, made.skipped, made.failed) == (1, 0, {})

    def kill_the_worker(done, total):
        if done == 2:
            for process in multiprocessing.active_children():
                os.kill(process.pid, signal.SIGKILL)

    again = parallel.generate(tmp_path / "panda", job, 3, workers=1, on_episode=kill_the_worker)
    assert (again.episodes, again.skipped, again.deaths) == (2, 1, 1)
    _, dataset = open_any(tmp_path / "panda", "")
    assert dataset.names == ("episode_000000", "episode_000001", "episode_000002")
    for changes in ({"seed": 4}, {"verbs": ("pick",)}, {"setting": "blocks"}):
        with pytest.raises(DatasetError, match="holds episode_000000, which isn't what this seed"):
            parallel.generate(tmp_path / "panda", dataclasses.replace(job, **changes), 3, workers=1)
    assert open_any(tmp_path / "panda", "")[1].names == dataset.names
    for number in (0, 2):
        _, _, frames = studio.take(draw_plan("panda", 3, number, ("reach",)))
        read = dataset.read(number)
        assert read.tasks == frames.tasks
        for name, values in frames.columns.items():
            np.testing.assert_array_equal(read.columns[name], values, err_msg=name)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_ray_that_is_not_installed_is_named():
    with pytest.raises(MissingDependencyError, match="pip install ray"):
        parallel._ray_backend(None, "auto")


def test_cells_that_nothing_can_be_shown_in_are_refused(tmp_path):
    rig = tmp_path / "dark.yaml"
    panda = yaml.safe_load((package_share() / "config/rigs/panda_table.yaml").read_text())
    rig.write_text(yaml.safe_dump({**panda, "name": "dark", "cameras": {}}))
    with pytest.raises(ContractError, match="base"):
        Studio("panda", CONTRACT, rig=str(rig))
    robot = tmp_path / "handless.yaml"
    arm = yaml.safe_load((package_share() / "config/robots/panda.yaml").read_text())
    robot.write_text(yaml.safe_dump({**arm, "name": "handless", "gripper": None}))
    with pytest.raises(ConfigError, match="no gripper"):
        Studio(str(robot), CONTRACT)


def test_plans_of_blocks_ask_for_what_is_there():
    texts = [draw_plan("panda", 0, number, ("reach", "push", "pick"), "blocks").text for number in range(60)]
    assert {parse_instruction(text).thing.name for text in texts} == {"block_red", "block_green", "block_blue"}
    with pytest.raises(ConfigError, match="no such tasks"):
        draw_plan("panda", 0, 0, ("stack",), "blocks")


def test_command_refuses_tasks_that_there_are_not(tmp_path, capsys):
    arguments = ["dataset", "generate", "--robot", "panda", "--episodes", "1", "--out", str(tmp_path)]
    assert main([*arguments, "--tasks", "dance"]) != 0
    assert "'dance' is none of reach" in capsys.readouterr().err
    assert main([*arguments, "--tasks", "reach,stack", "--setting", "blocks"]) != 0
    assert "no stack in --setting blocks" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
