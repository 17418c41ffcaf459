"""The varied cell in motion and in pictures: bodies, physics, and whether ground truth is where the images show it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

pytest.importorskip("vla_ros.sim.world")  # Not "mujoco": MUJOCO_GL is chosen first.

import mujoco

from vla_ros.contract import load_rig
from vla_ros.errors import ConfigError, LimitExceededError, UnknownNameError
from vla_ros.geometry.cameras import project
from vla_ros.geometry.rotations import matrix_to_rotvec, rpy_to_matrix
from vla_ros.geometry.se3 import invert, make_pose
from vla_ros.instruction import VERBS
from vla_ros.robots.config import load_robot
from vla_ros.sim.cameras import CameraRenderer, simulated_camera
from vla_ros.sim.content import SceneContent, draw_content, draw_task
from vla_ros.sim.objects import BODIES
from vla_ros.sim.tasks import Judge, Task
from vla_ros.sim.world import Snapshot, World
from vla_ros.types import FloatArray, ImageArray

pytestmark = pytest.mark.sim

HUE_DEG = {"red": 1.0, "green": 130.0, "blue": 225.0, "yellow": 51.0, "purple": 285.0}
HALF_M = 0.02


def make_world(robot: str = "panda") -> World:
    return World(load_robot(robot), load_rig(f"{robot}_table"), 0, "varied")


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def cell() -> Iterator[tuple[World, CameraRenderer]]:
    world = make_world()
    with CameraRenderer(world.scene) as renderer:
        yield world, renderer


def task_at(seed: int) -> str:
    return str(draw_task(VERBS[seed % len(VERBS)], seed))


def reset(world: World, seed: int) -> None:
    world.reset(seed, draw_task(VERBS[seed % len(VERBS)], seed))


def points_in_image(world: World, points_base: FloatArray, camera: str) -> FloatArray:
    """(n, 2) pixels of points (n, 3) in base, by the camera's true pose."""
    T_cam_base = invert(world.truth()[f"camera/{camera}"])
    model = simulated_camera(world.scene.rig.cameras[camera])
    return project(model, points_base @ T_cam_base[:3, :3].T + T_cam_base[:3, 3])


def outline(name: str, T_base_object: FloatArray) -> FloatArray:
    """(n, 3) points in base whose hull is a block or a cylinder."""
    if name.startswith("block"):
        corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    else:
        turns = np.linspace(0.0, 2.0 * np.pi, 48, endpoint=False)
        corners = np.array([[np.cos(a), np.sin(a), z] for a in turns for z in (-1, 1)])
    return HALF_M * corners @ T_base_object[:3, :3].T + T_base_object[:3, 3]


def hue_deg(pixels: ImageArray) -> float:
    """Hue of the mean of some pixels."""
    rgb = pixels.reshape(-1, 3).mean(axis=0).astype(np.float32)[None, None] / 255.0
    return float(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[0, 0, 0])


def off_deg(hue: FloatArray | float, colour: str) -> FloatArray:
    return np.abs((np.asarray(hue) - HUE_DEG[colour] + 180.0) % 360.0 - 180.0)


@pytest.mark.parametrize("robot", ["panda", "ur5e", "fr3", "ur10e"])
def test_reset_puts_every_thing_where_the_draw_says_and_it_stays_there(robot: str) -> None:
    world = make_world(robot)
    for seed in range(6):
        reset(world, seed)
        before = world.object_poses()
        assert list(before) == [thing.name for thing in world.content.things]
        for thing in world.content.things:
            T = before[thing.name]
            np.testing.assert_allclose(T[:2, 3], thing.xy_m, atol=1e-9)
            assert T[2, 3] == pytest.approx(BODIES[thing.shape].half_height_m, abs=1e-9)
            np.testing.assert_allclose(T[:3, 0], [np.cos(thing.yaw_rad), np.sin(thing.yaw_rad), 0.0], atol=1e-9)
        world.step(500)
        for name, T in world.object_poses().items():
            np.testing.assert_allclose(T[:3, 3], before[name][:3, 3], atol=1e-3, err_msg=f"{name} at seed {seed}")
            # Pebbles rock by a degree or two, they are round.
            assert np.degrees(np.arccos(np.clip(T[2, 2], -1.0, 1.0))) < 3.0


def run_a_sequence(world: World) -> bytes:
    """Every position on a run with arm, gripper and contacts in motion."""
    home, found = world.robot_state(0).positions, []
    for k in range(100):
        world.set_joint_command(home + 0.1 * np.sin(0.02 * k) * np.arange(1, len(home) + 1) / len(home))
        world.set_gripper_command(float(k % 100 < 50))
        world.step(2)
        found.append(world.snapshot().qpos.tobytes())
    return b"".join(found)


def test_same_seed_gives_the_same_bits_whatever_was_there_before(world: World) -> None:
    reset(world, 3)
    first = run_a_sequence(world)
    reset(world, 4)
    assert run_a_sequence(world) != first
    reset(world, 3)
    assert run_a_sequence(world) == first
    fresh = make_world()
    reset(fresh, 3)
    assert run_a_sequence(fresh) == first


def test_bodies_that_are_not_there_rest_far_below_and_touch_nothing(world: World) -> None:
    for seed in range(10):
        reset(world, seed)
        data, model = world._data, world.scene.model
        used = {slot.name for slot in world._slots.values()}
        parked = [slot for name, slot in world.scene.slots.items() if name not in used]
        before = {slot.name: data.qpos[slot.qpos].copy() for slot in parked}
        world.step(200)
        for slot in parked:
            assert data.qpos[slot.qpos[2]] < -10.0
            np.testing.assert_allclose(data.qpos[slot.qpos], before[slot.name], atol=1e-6)
            for geoms in slot.geoms.values():
                assert not np.isin(data.contact.geom, geoms).any()
        # Of a body with two shapes, the one that isn't there is not felt.
        for thing in world.content.things:
            for shape, geoms in world._slots[thing.name].geoms.items():
                assert shape == thing.shape or not np.isin(data.contact.geom, geoms).any()
        assert model.nv > 0


@pytest.mark.parametrize(
    ("shape", "kind", "size", "tolerance"),
    [
        ("block", mujoco.mjtGeom.mjGEOM_BOX, [0.02, 0.02, 0.02], 1e-6),
        ("cylinder", mujoco.mjtGeom.mjGEOM_CYLINDER, [0.02, 0.02, 0.0], 1e-6),
        ("pebble", mujoco.mjtGeom.mjGEOM_ELLIPSOID, [0.02, 0.02, 0.011], 1e-6),
        ("tile", mujoco.mjtGeom.mjGEOM_BOX, [0.028, 0.014, 0.007], 1e-6),
        # Taken for a cylinder of nearly its length.
        ("stick", mujoco.mjtGeom.mjGEOM_CAPSULE, [0.011, 0.018, 0.0], 0.15),
    ],
)
def test_masses_and_inertias_are_those_of_the_shapes(
    world: World, shape: str, kind: mujoco.mjtGeom, size: list[float], tolerance: float
) -> None:
    spec = mujoco.MjSpec()
    body = spec.worldbody.add_body()
    body.add_freejoint()
    body.add_geom(type=kind, size=size, mass=BODIES[shape].mass_kg)  # type: ignore[index]
    expected = spec.compile()
    for seed in range(100):
        content = draw_content(seed, "varied")
        thing = next((thing for thing in content.things if thing.shape == shape), None)
        if thing is not None:
            break
    assert thing is not None
    world.reset_to(content)
    found, slot = world.scene.model, world._slots[thing.name]
    assert 0.7 <= thing.mass_scale <= 1.4
    assert found.body_mass[slot.body] == pytest.approx(thing.mass_scale * expected.body_mass[1])
    for got, wanted in (
        (found.body_inertia[slot.body], thing.mass_scale * expected.body_inertia[1]),
        (found.dof_invweight0[slot.dof], expected.dof_invweight0 / thing.mass_scale),
        (found.dof_M0[slot.dof], expected.dof_M0 * thing.mass_scale),
    ):
        # MuJoCo sorts the principal axes of a body that it computes.
        np.testing.assert_allclose(np.sort(got), np.sort(wanted), rtol=tolerance)
    friction = 0.8 * thing.friction_scale
    assert [found.geom_friction[geom, 0] for geom in slot.geoms[thing.shape]] == pytest.approx([friction])


def test_arm_and_things_can_be_put_anywhere_at_once_and_rest_there(world: World) -> None:
    reset(world, 0)
    world.set_joint_command(world.robot_state(0).positions + 0.2)
    world.step(50)
    time_s = world.time_s
    positions = np.array([joint.home_rad for joint in world.scene.robot.joints]) + 0.15
    world.place_arm(positions, 0.3)
    T = make_pose(np.array([0.41, 0.31, 0.02]))
    name = world.content.objects[1].name
    world.place_object(name, T)
    assert world.time_s == time_s
    np.testing.assert_array_equal(world.robot_state(0).velocities, 0.0)
    np.testing.assert_allclose(world.object_poses()[name], T, atol=1e-12)
    for _ in range(2):
        state = world.robot_state(0)
        np.testing.assert_allclose(state.positions, positions, atol=1e-4)
        assert state.gripper_opening == pytest.approx(0.3, abs=2e-3)
        np.testing.assert_allclose(world.object_poses()[name][:3, 3], T[:3, 3], atol=1e-3)
        world.step(300)
    with pytest.raises(UnknownNameError, match="'block_black'"):
        world.place_object("block_black", T)
    with pytest.raises(LimitExceededError):
        world.place_arm(positions + 9.0)
    np.testing.assert_allclose(world.robot_state(0).positions, positions, atol=1e-4)


def test_scene_of_another_setting_is_refused(world: World) -> None:
    with pytest.raises(ConfigError, match="blocks"):
        world.reset_to(draw_content(0, "blocks"))
    with pytest.raises(ConfigError, match="'many'"):
        World(load_robot("panda"), load_rig("panda_table"), 0, "many")  # type: ignore[arg-type]


@pytest.mark.parametrize("verb", ["place", "stack"])
def test_what_is_dropped_into_the_bowl_or_onto_the_thing_stays_and_is_judged_done(world: World, verb: str) -> None:
    for seed in range(8):
        task = draw_task(verb, seed)  # type: ignore[arg-type]
        world.reset(seed, task)
        judge = Judge(Task(task), world.object_poses())
        assert task.destination is not None
        T = world.object_poses()[task.destination.name]
        T[:3, 3] += [0.02, -0.015, 0.05] if verb == "place" else [0.006, -0.004, 0.041]
        world.place_object(task.thing.name, T)
        outcome = "running"
        for _ in range(30):
            world.step(25)
            outcome = judge.update(world.object_poses(), world.tcp_pose(), 1.0, world.time_s)
        assert outcome == "success", (seed, judge.reason)


def test_a_pushed_bowl_slides_little_and_carries_what_is_in_it(world: World) -> None:
    task = draw_task("place", 1)
    world.reset(1, task)
    T = world.object_poses()["bowl"]
    T[2, 3] += 0.03
    world.place_object(task.thing.name, T)
    world.step(300)
    offset = world.object_poses()[task.thing.name][:3, 3] - world.object_poses()["bowl"][:3, 3]
    assert np.linalg.norm(offset[:2]) < 0.03
    assert offset[2] == pytest.approx(0.004, abs=2e-3)  # On a bottom of 4 mm.


def nominal(world: World, camera: str) -> FloatArray:
    """T_base_cam as the rig says."""
    mount = world.scene.rig.cameras[camera].mount
    return world.link_pose(mount.parent) @ make_pose(np.array(mount.position_m), rpy_to_matrix(np.array(mount.rpy_rad)))


def test_cameras_are_off_their_mounts_by_the_jitter_and_no_more(world: World) -> None:
    for camera, most_m, most_deg in (("base", 0.03, 2.0), ("wrist", 0.003, 0.5)):
        offsets = []
        for seed in range(200):
            world.reset(seed)
            T = invert(nominal(world, camera)) @ world.truth()[f"camera/{camera}"]
            offsets.append([np.linalg.norm(T[:3, 3]), np.degrees(np.linalg.norm(matrix_to_rotvec(T[:3, :3])))])
        found = np.array(offsets) / [most_m, most_deg]
        assert np.all(found <= 1.0 + 1e-6)
        # Uniform in a ball: the mean distance is 3/4 of the radius; 200 draws know it within 0.06.
        np.testing.assert_allclose(found.mean(axis=0), 0.75, atol=0.06)


@pytest.mark.parametrize("robot", ["panda", "ur5e"])
def test_fixed_camera_can_be_moved_in_base_and_the_wrist_camera_stays(robot: str) -> None:
    world = make_world(robot)
    world.reset(5)
    before = world.truth()
    world.reset(5, camera_offset_m=(0.0, 0.08, -0.01))
    after = world.truth()
    shift = after["camera/base"][:3, 3] - before["camera/base"][:3, 3]
    np.testing.assert_allclose(shift, [0.0, 0.08, -0.01], atol=1e-9)
    np.testing.assert_array_equal(after["camera/wrist"], before["camera/wrist"])
    for name, T in world.object_poses().items():
        np.testing.assert_array_equal(T, before[name])


def test_truth_of_the_plain_cell_has_the_cameras_where_the_rig_says() -> None:
    world = World(load_robot("ur5e"), load_rig("ur5e_table"), 0)
    truth = world.truth()
    assert list(truth) == ["block_red", "block_green", "block_blue", "tcp", "camera/base", "camera/wrist"]
    for camera in ("base", "wrist"):
        np.testing.assert_allclose(truth[f"camera/{camera}"], nominal(world, camera), atol=1e-12)


def test_everything_that_can_be_named_is_in_view_of_the_base_camera(world: World) -> None:
    camera = world.scene.rig.cameras["base"]
    for seed in range(200):
        reset(world, seed)
        for name, T in world.object_poses().items():
            if not name.startswith("distractor"):
                pixels = points_in_image(world, outline(name, T), "base")
                assert np.all((pixels > 1) & (pixels < [camera.width - 2, camera.height - 2])), (seed, name)


def test_colours_are_told_apart_where_truth_says_the_things_are(cell: tuple[World, CameraRenderer]) -> None:
    world, renderer = cell
    right = []
    for seed in range(60):
        reset(world, seed)
        images = renderer.render(world.snapshot())
        for name, T in world.object_poses().items():
            colour = name.partition("_")[2]
            if colour not in HUE_DEG:
                continue
            for camera, image in images.items():
                x, y = np.round(points_in_image(world, T[None, :3, 3] + [0.0, 0.0, HALF_M], camera)[0]).astype(int)
                # Of the wrist's image the fingers hide the lower part.
                if not (2 < x < 317 and 2 < y < (237 if camera == "base" else 175)):
                    continue
                hue = hue_deg(image[y - 1 : y + 2, x - 1 : x + 2])
                right.append(min(HUE_DEG, key=lambda one, hue=hue: off_deg(hue, one)) == colour)
    assert len(right) > 350
    assert np.mean(right) >= 0.98


def test_things_are_drawn_where_truth_projects_them(cell: tuple[World, CameraRenderer]) -> None:
    world, renderer = cell
    errors = []
    for seed in range(30):
        reset(world, seed)
        image = renderer.render(world.snapshot(), ["base"])["base"]
        hsv = cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2HSV)
        for name, T in world.object_poses().items():
            colour = name.partition("_")[2]
            if colour not in HUE_DEG:
                continue
            hull = cv2.convexHull(points_in_image(world, outline(name, T), "base").astype(np.float32))
            moments = cv2.moments(hull)
            at = np.array([moments["m10"], moments["m01"]]) / moments["m00"]
            mask = ((off_deg(hsv[..., 0], colour) < 20.0) & (hsv[..., 1] > 0.55)).astype(np.uint8)
            count, _, stats, centroids = cv2.connectedComponentsWithStats(mask)
            nearest = 1 + int(np.argmin(np.linalg.norm(centroids[1:count] - at, axis=1))) if count > 1 else 0
            # Others before it, or a dark shadow across it, change the outline.
            if nearest and stats[nearest, cv2.CC_STAT_AREA] > 0.9 * moments["m00"]:
                errors.append(centroids[nearest] - at)
    assert len(errors) > 60
    # Half a pixel of the outline; the cameras' jitter is ten pixels, and a missed one would show.
    assert np.median(np.linalg.norm(errors, axis=1)) < 0.6
    assert np.all(np.abs(np.mean(errors, axis=0)) < 0.4)
    assert np.mean(np.linalg.norm(errors, axis=1) < 1.5) > 0.95


def test_bodies_that_are_not_there_are_not_drawn_wherever_they_are(cell: tuple[World, CameraRenderer]) -> None:
    world, renderer = cell
    for seed in range(12):
        reset(world, seed)
        snapshot = world.snapshot()
        used = {slot.name for slot in world._slots.values()}
        moved = snapshot.qpos.copy()
        spare = [slot for name, slot in world.scene.slots.items() if name not in used]
        for i, slot in enumerate(spare):
            moved[slot.qpos[:3]] = world.scene.T_world_base[:3, 3] + [0.4 + 0.05 * i, 0.0, 0.15]
        images = renderer.render(snapshot)
        for name, image in renderer.render(Snapshot(0.0, moved, snapshot.content)).items():
            np.testing.assert_array_equal(image, images[name])


def with_look(content: SceneContent, **changes: object) -> SceneContent:
    assert content.look is not None
    return dataclasses.replace(content, look=dataclasses.replace(content.look, **changes))  # type: ignore[arg-type]


def test_light_shadows_textures_and_shades_show(cell: tuple[World, CameraRenderer]) -> None:
    world, renderer = cell
    world.reset(2)
    shown = with_look(world.content, has_shadows=False)
    assert shown.look is not None
    dark = tuple(0.5 * value for value in shown.look.ambient)
    first = shown.objects[0]
    changes = {
        "has_shadows": with_look(shown, has_shadows=True),
        "ambient": with_look(shown, ambient=dark),
        "table": with_look(shown, table=dataclasses.replace(shown.look.table, kind="checker", second=(0.0, 0.0, 0.0))),
        "mat": with_look(shown, mat=dataclasses.replace(shown.look.mat, kind="stripes", second=(0.0, 0.0, 0.0))),
        "floor": with_look(shown, floor=(0.0, 0.0, 0.0)),
        "shade": dataclasses.replace(
            shown, objects=(dataclasses.replace(first, rgba=(0, 0, 0, 1)), *shown.objects[1:])
        ),
    }
    plain = renderer.render(Snapshot(0.0, world.snapshot().qpos, shown), ["base"])["base"].astype(int)
    for what, content in changes.items():
        image = renderer.render(Snapshot(0.0, world.snapshot().qpos, content), ["base"])["base"].astype(int)
        changed = np.abs(image - plain).max(axis=2) > 15
        assert np.count_nonzero(changed) > (60 if what == "shade" else 700), what
        if what in ("has_shadows", "ambient", "floor"):
            # Where triangles meet, a pixel may be lit twice.
            assert np.mean(image[changed].sum(axis=1) < plain[changed].sum(axis=1)) > 0.995
    # And back again, to the last bit.
    again = renderer.render(Snapshot(0.0, world.snapshot().qpos, shown), ["base"])["base"]
    np.testing.assert_array_equal(again, plain)


def test_images_are_neither_dark_nor_burnt_out(cell: tuple[World, CameraRenderer]) -> None:
    world, renderer = cell
    for seed in range(30):
        reset(world, seed)
        for image in renderer.render(world.snapshot()).values():
            assert 45 < image.mean() < 225
            assert np.mean(image.max(axis=2) == 255) < 0.35


def test_drawing_in_one_thread_while_another_resets_gives_what_each_moment_was(
    cell: tuple[World, CameraRenderer],
) -> None:
    world, renderer = cell
    expected, snapshots = [], []
    for seed in range(10):
        reset(world, seed)
        snapshots.append(world.snapshot())
        expected.append(renderer.render(snapshots[-1]))

    def stir() -> int:
        for seed in range(100):
            reset(world, seed)
            world.step(20)
        return 100

    with ThreadPoolExecutor(1) as other:
        stirred = other.submit(stir)
        while not stirred.done():
            futures = [renderer.submit(snapshot) for snapshot in snapshots]
            for future, images in zip(futures, expected, strict=True):
                for name, image in future.result().items():
                    np.testing.assert_array_equal(image, images[name])
        assert stirred.result() == 100
