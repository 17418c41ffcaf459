"""Images prepared as a contract says, with their camera; and observations aligned to one exposure, with their past."""

from __future__ import annotations

import io
import threading
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_ros.config import build
from vla_ros.contract import WHOLE, Contract, ImageSpec
from vla_ros.errors import SensorError
from vla_ros.geometry.cameras import camera_from_fov, project
from vla_ros.geometry.se3 import invert, make_pose
from vla_ros.observation.image import prepare_frame
from vla_ros.observation.synchroniser import ObservationBuilder
from vla_ros.types import CameraFrame, CameraModel, FloatArray, RobotState

MS = 1_000_000
SECOND = 1000 * MS


# Images


def spot_frame(pixel: FloatArray, camera: CameraModel) -> CameraFrame:
    """An image with one soft spot, centred on a pixel to a fraction of it."""
    x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    spot = 255.0 * np.exp(-((x - pixel[0]) ** 2 + (y - pixel[1]) ** 2) / (2.0 * 3.0**2))
    image = np.repeat(np.round(spot).astype(np.uint8)[:, :, None], 3, axis=2)
    return CameraFrame(
        7, image, camera, make_pose(np.array([0.5, 0.2, 0.9]), Rotation.from_rotvec([2.5, 1, 0]).as_matrix())
    )


def spot_centre(frame: CameraFrame) -> FloatArray:
    weight = frame.image[:, :, 0].astype(np.float64)
    y, x = np.indices(weight.shape)
    return np.array([np.sum(x * weight), np.sum(y * weight)]) / np.sum(weight)


@pytest.mark.parametrize("flip", ["none", "half_turn"])
@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
@pytest.mark.parametrize(
    ("size", "region"),
    [
        *((size, WHOLE) for size in [(96, 96), (224, 224), (160, 60), (50, 100), (320, 240), (0, 0), (0, 120)]),
        *((size, (0.15, 0.1, 0.675, 0.8)) for size in [(96, 96), (144, 96), (320, 240), (0, 0), (0, 120)]),
        *((size, (0.2, 0.05, 0.8, 0.85)) for size in [(96, 96), (0, 0), (200, 0)]),
    ],
)
@pytest.mark.parametrize("distortion", [(), (-0.2, 0.05, 0.03, -0.02, 0.0)])
def test_a_point_is_seen_where_the_prepared_camera_projects_it(
    flip: Any, resize: Any, size: tuple[int, int], region: Any, distortion: tuple[float, ...]
) -> None:
    ideal = camera_from_fov(320, 240, 0.8)
    K = ideal.K + np.array([[0.0, 0.0, 5.3], [0.0, 0.0, -3.7], [0.0, 0.0, 0.0]])
    camera = CameraModel(320, 240, K, distortion)
    point_cam = np.array([0.09, -0.1, 0.6])
    frame = spot_frame(project(camera, point_cam)[0], camera)
    assert frame.T_base_cam is not None
    p_base = (frame.T_base_cam @ [*point_cam, 1.0])[:3]

    spec = ImageSpec("base", *size, resize=resize, flip=flip, region_xywh=region)
    prepared = prepare_frame(frame, spec)

    assert prepared.camera is not None
    assert prepared.T_base_cam is not None
    kept = (round(240 * region[3]), round(320 * region[2]))
    assert prepared.image.shape == (size[1] or kept[0], size[0] or kept[1], 3)
    assert (prepared.camera.height, prepared.camera.width) == prepared.image.shape[:2]
    p_cam = (invert(prepared.T_base_cam) @ [*p_base, 1.0])[:3]
    # A fifth of a pixel: rounding to 8 bits and resampling move the spot's centre; a pixel's half or more is a mistake.
    np.testing.assert_allclose(project(prepared.camera, p_cam)[0], spot_centre(prepared), atol=0.2)


def test_a_region_is_what_was_cut_out_by_hand_after_the_flip() -> None:
    noise = CameraFrame(0, np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8))
    spec = ImageSpec("base", 72, 48, flip="half_turn", region_xywh=(0.25, 0.5, 0.45, 0.4))
    turned = noise.image[::-1, ::-1][120:216, 80:224]
    expected = prepare_frame(CameraFrame(0, turned.copy()), ImageSpec("base", 72, 48)).image
    np.testing.assert_array_equal(prepare_frame(noise, spec).image, expected)


@pytest.mark.parametrize(
    "region", [(0.0, 0.0, 1.1, 1.0), (-0.1, 0.0, 0.5, 0.5), (0.5, 0.5, 0.0, 0.5), (0, 0, np.nan, 1)]
)
def test_a_region_outside_of_the_image_is_refused(region: Any) -> None:
    with pytest.raises(ValueError, match="region_xywh"):
        ImageSpec("base", region_xywh=region)


def test_pad_keeps_the_aspect_with_black_bars_and_crop_cuts() -> None:
    white = CameraFrame(0, np.full((240, 320, 3), 255, np.uint8))
    padded = prepare_frame(white, ImageSpec("base", 64, 64, resize="pad")).image
    assert np.all(padded[:8] == 0)
    assert np.all(padded[8:56] == 255)
    assert np.all(padded[56:] == 0)
    assert np.all(prepare_frame(white, ImageSpec("base", 64, 64, resize="crop")).image == 255)


def test_interpolations_differ() -> None:
    noise = CameraFrame(0, np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    images = [
        prepare_frame(noise, ImageSpec("base", 33, 33, interpolation=name)).image.tobytes()
        for name in ("area", "linear", "cubic", "lanczos")
    ]  # fmt: skip
    assert len(set(images)) == 4


def noise_frame(height: int = 64, width: int = 96) -> CameraFrame:
    coarse = np.random.default_rng(1).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return CameraFrame(0, np.kron(coarse, np.ones((8, 8, 1), np.uint8)))


def test_jpeg_round_trip_is_what_another_library_makes_of_the_image() -> None:
    image_module = pytest.importorskip("PIL.Image")
    frame_ = noise_frame()
    got = prepare_frame(frame_, ImageSpec("base", jpeg_quality=90)).image
    file = io.BytesIO()
    image_module.fromarray(frame_.image).save(file, "JPEG", quality=90)
    expected = np.asarray(image_module.open(file).convert("RGB"))
    # Both build on libjpeg, whose versions differ by a step or two of brightness.
    assert np.abs(got.astype(int) - expected.astype(int)).max() <= 3
    # And it isn't the image as it came, nor one with red and blue exchanged.
    assert np.abs(got.astype(int) - frame_.image.astype(int)).max() > 3


def test_jpeg_comes_after_the_flip_and_before_the_resize() -> None:
    frame_ = noise_frame(60, 92)
    spec = ImageSpec("base", 33, 21, interpolation="lanczos", flip="half_turn", jpeg_quality=60)
    turned = CameraFrame(0, np.ascontiguousarray(frame_.image[::-1, ::-1]))
    compressed = prepare_frame(turned, ImageSpec("base", jpeg_quality=60))
    expected = prepare_frame(compressed, ImageSpec("base", 33, 21, interpolation="lanczos"))
    np.testing.assert_array_equal(prepare_frame(frame_, spec).image, expected.image)


def test_mirrored_image_has_left_and_right_exchanged_and_no_geometry() -> None:
    frame_ = spot_frame(np.array([100.0, 80.0]), camera_from_fov(320, 240, 0.8))
    mirrored = prepare_frame(frame_, ImageSpec("base", flip="mirror"))
    np.testing.assert_array_equal(mirrored.image[:, 0], frame_.image[:, -1])
    np.testing.assert_allclose(spot_centre(mirrored), [219.0, 80.0], atol=0.2)
    assert mirrored.camera is None
    assert mirrored.T_base_cam is None


def test_preparing_leaves_the_frame_alone() -> None:
    frame = spot_frame(np.array([100.0, 80.0]), camera_from_fov(320, 240, 0.8))
    assert frame.camera is not None
    before = frame.image.copy(), frame.camera.K.copy()
    prepare_frame(frame, ImageSpec("base", 100, 50, resize="crop", flip="half_turn"))
    np.testing.assert_array_equal(frame.image, before[0])
    np.testing.assert_array_equal(frame.camera.K, before[1])


# Observations


def contract(**changes: Any) -> Contract:
    observation = {
        "images": {"front": {"camera": "base"}, "hand": {"camera": "wrist", "width": 8, "height": 6}},
        "state": [{"kind": "tcp_pose", "rotation": "rotvec"}, {"kind": "joint_positions"}, {"kind": "gripper"}],
        "reference": "front",
        "max_age_s": 0.3,
        "max_skew_s": 0.1,
        **changes,
    }
    action = {"space": "tool", "relative_to": "observation", "period_s": 0.1}
    return build(Contract, {"name": "test", "observation": observation, "action": action}, "test")


def fake_fk(q: FloatArray) -> FloatArray:
    return make_pose(np.array([q[0], q[1], 0.3]), Rotation.from_rotvec([0.0, 0.0, q[0]]).as_matrix())


def frame(stamp_ms: float, grey: int = 1, **changes: Any) -> CameraFrame:
    return CameraFrame(round(stamp_ms * MS), np.full((12, 16, 3), grey, np.uint8), **changes)


def state(stamp_ms: float, opening: float | None = 0.5) -> RobotState:
    """A joint state whose positions tell its time: 1 rad and 2 rad a second."""
    t = stamp_ms / 1000.0
    return RobotState(round(stamp_ms * MS), np.array([t, 2.0 * t]), np.array([1.0, 2.0]), opening)


def builder(spec: Contract | None = None, states_until_ms: int = 1000) -> ObservationBuilder:
    made = ObservationBuilder(spec or contract(), fake_fk)
    for stamp_ms in range(0, states_until_ms + 1, 10):
        made.add_state(state(stamp_ms))
    return made


def test_state_is_interpolated_at_the_reference_exposure() -> None:
    made = builder()
    made.add_frame("base", frame(805.0))
    made.add_frame("wrist", frame(800.0))
    seen = made.build(1000 * MS, "reach the red block")
    assert seen.stamp_ns == 805 * MS
    assert seen.instruction == "reach the red block"
    # Halfway between the states of 800 and 810 ms.
    np.testing.assert_allclose(seen.T_base_tcp[:3, 3], [0.805, 1.61, 0.3], atol=1e-12)
    np.testing.assert_allclose(seen.state[seen.state_layout["joint_positions"]], [0.805, 1.61], atol=1e-12)


def test_state_vector_has_the_items_in_the_contracts_order() -> None:
    made = builder()
    made.add_frame("base", frame(800.0))
    made.add_frame("wrist", frame(800.0))
    seen = made.build(1000 * MS, "")
    assert dict(seen.state_layout) == {"tcp_pose": slice(0, 6), "joint_positions": slice(6, 8), "gripper": slice(8, 9)}
    np.testing.assert_allclose(seen.state, [0.8, 1.6, 0.3, 0.0, 0.0, 0.8, 0.8, 1.6, 0.5], atol=1e-12)


@pytest.mark.parametrize(
    ("form", "oracle"),
    [
        ("rotvec", lambda R: R.as_rotvec()),
        ("rpy", lambda R: R.as_euler("xyz")),
        ("quat_xyzw", lambda R: R.as_quat(canonical=True)),
        ("rot6d", lambda R: R.as_matrix()[:, :2].T.ravel()),
        ("rot6d_rows", lambda R: R.as_matrix()[:2].ravel()),
    ],
)
def test_tcp_pose_has_the_contracts_rotation_form(form: str, oracle: Any) -> None:
    made = builder(contract(state=[{"kind": "tcp_pose", "rotation": form}]))
    made.add_frame("base", frame(500.0))
    made.add_frame("wrist", frame(500.0))
    rotation = Rotation.from_rotvec([0.0, 0.0, 0.5])
    np.testing.assert_allclose(made.build(500 * MS, "").state[3:], oracle(rotation), atol=1e-12)


def test_newest_reference_is_taken_and_the_others_are_never_later() -> None:
    made = builder()
    for stamp in (900.0, 700.0, 800.0):  # Out of order, as networks deliver.
        made.add_frame("base", frame(stamp))
    for stamp, grey in ((850.0, 10), (890.0, 20), (910.0, 30)):
        made.add_frame("wrist", frame(stamp, grey))
    seen = made.build(1000 * MS, "")
    assert seen.stamp_ns == 900 * MS
    assert seen.images["hand"].stamp_ns == 890 * MS
    assert np.all(seen.images["hand"].image == 20)
    assert seen.images["hand"].image.shape == (6, 8, 3)


def expect(made: ObservationBuilder, now_ms: int, text: str) -> None:
    with pytest.raises(SensorError, match=text):
        made.build(now_ms * MS, "")


def test_silent_reference_camera_is_named_with_age_limit_and_mend() -> None:
    made = builder()
    expect(made, 0, r"no image from camera base yet .*limit 0\.3 s.*is camera_node or the driver running\?")
    made.add_frame("base", frame(500.0))
    made.add_frame("wrist", frame(500.0))
    made.build(800 * MS, "")
    expect(
        made, 1000, r"no image from camera base for 0\.50 s \(limit 0\.3 s\); is camera_node or the driver running\?"
    )


def test_image_from_the_future_is_refused() -> None:
    made = builder()
    made.add_frame("base", frame(900.0))
    expect(made, 100, r"camera base is stamped 0\.80 s ahead .*use_sim_time")


def test_companion_past_the_skew_is_refused_or_black() -> None:
    made = builder()
    made.add_frame("base", frame(800.0))
    expect(made, 800, r"no image from camera wrist up to the reference")
    made.add_frame("wrist", frame(690.0))
    expect(made, 800, r"no image from camera wrist for 0\.11 s .*limit 0\.1 s")
    made.add_frame("wrist", frame(700.0))
    assert made.build(800 * MS, "").images["hand"].stamp_ns == 700 * MS


@pytest.mark.parametrize("wrist_ms", [None, 600.0, 801.0])
def test_absent_companion_is_black_and_without_geometry_where_the_contract_says_so(wrist_ms: float | None) -> None:
    images = {"front": {"camera": "base"}, "hand": {"camera": "wrist", "with_geometry": True, "if_absent": "black"}}
    made = builder(contract(images=images))
    made.add_frame("base", frame(800.0))
    if wrist_ms is not None:
        made.add_frame("wrist", frame(wrist_ms, 200, camera=camera_from_fov(16, 12, 1.0), T_base_cam=np.eye(4)))
    hand = made.build(800 * MS, "").images["hand"]
    assert hand.image.shape == (12, 16, 3)
    assert not hand.image.any()
    assert hand.camera is None
    assert hand.T_base_cam is None


@pytest.mark.parametrize("missing", ["camera", "T_base_cam"])
def test_missing_geometry_is_refused_where_the_contract_needs_it(missing: str) -> None:
    made = builder(contract(images={"front": {"camera": "base", "with_geometry": True}}))
    geometry: dict[str, Any] = {"camera": camera_from_fov(16, 12, 1.0), "T_base_cam": np.eye(4)}
    made.add_frame("base", frame(700.0, **geometry))
    made.build(800 * MS, "")
    made.add_frame("base", frame(800.0, **{**geometry, missing: None}))
    expect(made, 800, {"camera": "base has no intrinsics", "T_base_cam": "the pose of camera base in base"}[missing])


def test_missing_or_silent_joint_states_are_named() -> None:
    made = ObservationBuilder(contract(), fake_fk)
    made.add_frame("base", frame(800.0))
    made.add_frame("wrist", frame(800.0))
    expect(made, 800, "no joint state yet; is the arm's driver running")
    for stamp in range(0, 401, 10):
        made.add_state(state(stamp))
    expect(made, 800, r"no joint state on joint_states for 0\.40 s .*limit 0\.3 s")


def test_exposure_a_moment_past_the_newest_state_uses_it_and_longer_is_refused() -> None:
    made = builder(states_until_ms=500)
    made.add_frame("wrist", frame(510.0))
    made.add_frame("base", frame(510.0))
    np.testing.assert_allclose(made.build(510 * MS, "").T_base_tcp[0, 3], 0.5)
    made.add_frame("wrist", frame(600.0))
    made.add_frame("base", frame(600.0))
    expect(made, 600, "nearest joint state is 100.0 ms before")


def test_unknown_opening_is_refused_only_if_the_state_vector_has_it() -> None:
    for items, is_refused in (([{"kind": "joint_positions"}], False), ([{"kind": "gripper"}], True)):
        made = ObservationBuilder(contract(state=items), fake_fk)
        made.add_state(state(500.0, opening=None))
        made.add_frame("base", frame(500.0))
        made.add_frame("wrist", frame(500.0))
        if is_refused:
            expect(made, 500, "gripper's opening is unknown")
        else:
            assert made.build(500 * MS, "").gripper_opening is None


def test_clock_set_back_starts_afresh() -> None:
    made = builder(states_until_ms=5000)
    made.add_frame("base", frame(5000.0))
    made.add_frame("wrist", frame(5000.0))
    made.add_state(state(100.0))
    made.add_frame("base", frame(100.0))
    made.add_frame("wrist", frame(100.0))
    seen = made.build(120 * MS, "")
    assert seen.stamp_ns == 100 * MS
    assert seen.T_base_tcp[0, 3] == pytest.approx(0.1)


def test_frames_and_states_may_come_from_other_threads() -> None:
    made = builder(contract(max_age_s=100.0, max_skew_s=100.0), states_until_ms=10)
    made.add_frame("wrist", frame(0.0))
    made.add_frame("base", frame(0.0))
    failures: list[Exception] = []

    def feed(add: Any) -> None:
        try:
            for count in range(400):
                add(count)
        except Exception as error:
            failures.append(error)

    def build_one(count: int) -> None:
        try:
            seen = made.build(SECOND, "")
        except SensorError:
            return  # One thread ran so far ahead that the others' newest has nothing beside it: that is said, not torn.
        # The state's position tells its time, so a torn observation would show.
        assert seen.T_base_tcp[0, 3] == pytest.approx(min(seen.stamp_ns / SECOND, 5.0), abs=0.051)

    feeders = [
        threading.Thread(target=feed, args=(add,))
        for add in (
            lambda count: made.add_state(state(11.0 + count)),
            lambda count: made.add_frame("base", frame(11.0 + count)),
            lambda count: made.add_frame("wrist", frame(11.0 + count)),
            build_one,
        )
    ]
    for feeder in feeders:
        feeder.start()
    for feeder in feeders:
        feeder.join()
    assert failures == []


# State items


def only_state(*items: dict[str, Any]) -> Contract:
    return contract(images={"front": {"camera": "base"}}, state=list(items))


def test_state_items_have_the_forms_that_public_policies_have() -> None:
    libero = only_state(
        {"kind": "tcp_pose", "rotation": "rotvec", "origin_m": [0.1, 0.2, -0.3]},
        {"kind": "gripper", "gripper_entries": [[0.0, 0.04], [0.0, -0.04]]},
        {"kind": "joint_velocities"},
    )
    made = builder(libero)
    made.add_frame("base", frame(800.0))
    seen = made.build(800 * MS, "")
    np.testing.assert_allclose(seen.state, [0.7, 1.4, 0.6, 0, 0, 0.8, 0.02, -0.02, 1.0, 2.0], atol=1e-12)
    assert seen.state_layout["gripper"] == slice(6, 8)
    droid = only_state({"kind": "gripper", "gripper_entries": [[1.0, 0.0]]})
    made = ObservationBuilder(droid, fake_fk)
    made.add_state(state(800.0, opening=0.25))
    made.add_frame("base", frame(800.0))
    np.testing.assert_allclose(made.build(800 * MS, "").state, [0.75])


@pytest.mark.parametrize("angle_rad", [np.pi - 0.1, np.pi + 0.1])
def test_rotation_vector_stays_near_the_one_that_the_contract_names(angle_rad: float) -> None:
    item = {"kind": "tcp_pose", "rotation": "rotvec", "near_rotvec_rad": [3.1, 0.0, 0.0]}
    made = ObservationBuilder(
        only_state(item), lambda q: make_pose(np.zeros(3), Rotation.from_rotvec([angle_rad, 0.0, 0.0]).as_matrix())
    )
    made.add_state(state(800.0))
    made.add_frame("base", frame(800.0))
    np.testing.assert_allclose(made.build(800 * MS, "").state[3:], [angle_rad, 0.0, 0.0], atol=1e-9)


def test_commanded_gripper_is_the_command_in_force_at_the_exposure_and_measured_before_the_first() -> None:
    made = builder(only_state({"kind": "gripper_command"}, {"kind": "gripper"}))
    made.add_frame("base", frame(500.0))
    np.testing.assert_allclose(made.build(500 * MS, "").state, [0.5, 0.5])
    for stamp_ms, opening in ((600, 1.0), (700, 0.0), (900, 1.0)):
        made.add_gripper_command(stamp_ms * MS, opening)
    for stamp_ms, opening in ((650.0, 1.0), (700.0, 0.0), (800.0, 0.0), (950.0, 1.0)):
        made.add_frame("base", frame(stamp_ms))
        np.testing.assert_allclose(made.build(round(stamp_ms) * MS, "").state, [opening, 0.5])
    for opening, seen in ((float("nan"), 1.0), (float("inf"), 1.0), (-0.5, 0.0), (1.5, 1.0)):
        made.add_gripper_command(960 * MS, opening)
        made.add_frame("base", frame(970.0))
        np.testing.assert_allclose(made.build(970 * MS, "").state, [seen, 0.5])
    made.clear()
    made.add_state(state(990.0))
    made.add_frame("base", frame(990.0))
    np.testing.assert_allclose(made.build(990 * MS, "").state, [0.5, 0.5])


# History


def past(steps: int, spacing_s: float, **changes: Any) -> Contract:
    return contract(history_steps=steps, history_spacing_s=spacing_s, **changes)


def stamps_ms(seen: Any) -> list[float]:
    return [entry.stamp_ns / MS for entry in seen.history]


def test_without_a_history_there_is_none() -> None:
    made = builder()
    made.add_frame("base", frame(800.0))
    made.add_frame("wrist", frame(800.0))
    assert made.build(800 * MS, "").history == ()


def test_history_lies_in_seconds_before_the_exposure_and_is_as_aligned_as_the_present() -> None:
    made = builder(past(3, 0.2))
    for stamp_ms in range(100, 1000, 30):
        made.add_frame("base", frame(stamp_ms, stamp_ms // 10))
        made.add_frame("wrist", frame(stamp_ms - 7, stamp_ms // 10))
    seen = made.build(1000 * MS, "go")
    # The newest is of 970 ms; 570 and 770 are wanted, and every 30 ms from 100 on there is a frame.
    assert seen.stamp_ns == 970 * MS
    assert stamps_ms(seen) == [580.0, 760.0]
    for entry in seen.history:
        assert entry.history == ()
        assert entry.instruction == "go"
        assert np.all(entry.images["front"].image == entry.stamp_ns // MS // 10)
        assert entry.images["hand"].stamp_ns == entry.stamp_ns - 7 * MS
        assert entry.T_base_tcp[0, 3] == pytest.approx(entry.stamp_ns / SECOND, abs=1e-12)
        assert entry.state_layout == seen.state_layout


def test_history_does_not_depend_on_how_often_observations_are_built() -> None:
    often, seldom = builder(past(4, 0.1)), builder(past(4, 0.1))
    for stamp_ms in range(100, 1000, 20):
        for made in (often, seldom):
            made.add_frame("base", frame(stamp_ms))
            made.add_frame("wrist", frame(stamp_ms))
        often.build(stamp_ms * MS, "")
    assert stamps_ms(often.build(1000 * MS, "")) == stamps_ms(seldom.build(1000 * MS, "")) == [680.0, 780.0, 880.0]


def test_before_anything_was_seen_the_first_that_was_stands_for_it() -> None:
    made = builder(past(4, 0.1))
    for stamp_ms in (500.0, 550.0, 600.0, 650.0):
        made.add_frame("base", frame(stamp_ms))
        if stamp_ms >= 550.0:  # The other camera begins later: what is before can't be seen whole.
            made.add_frame("wrist", frame(stamp_ms))
    assert stamps_ms(made.build(650 * MS, "")) == [550.0, 550.0, 550.0]
    made.add_frame("base", frame(750.0))
    made.add_frame("wrist", frame(750.0))
    assert stamps_ms(made.build(750 * MS, "")) == [550.0, 550.0, 650.0]


def test_states_that_begin_after_the_images_begin_the_history() -> None:
    made = ObservationBuilder(past(3, 0.1), fake_fk)
    for stamp_ms in range(0, 400, 50):
        made.add_frame("base", frame(stamp_ms))
        made.add_frame("wrist", frame(stamp_ms))
    for stamp_ms in range(220, 401, 10):
        made.add_state(state(stamp_ms))
    assert stamps_ms(made.build(350 * MS, "")) == [250.0, 250.0]


def test_gap_in_the_past_is_named_and_nothing_stands_for_it() -> None:
    made = builder(past(2, 0.4, max_skew_s=0.05))
    for stamp_ms in (100.0, 150.0, 700.0, 800.0):
        made.add_frame("base", frame(stamp_ms))
        made.add_frame("wrist", frame(stamp_ms))
    expect(made, 800, r"camera base of 0\.40 s before the newest: the nearest is 0\.25 s off \(limit 0\.05 s\)")


def test_history_is_kept_as_far_back_as_it_reaches_and_no_further() -> None:
    made = builder(past(3, 1.0), states_until_ms=20_000)
    for stamp_ms in range(0, 20_000, 20):
        made.add_frame("base", frame(stamp_ms))
        made.add_frame("wrist", frame(stamp_ms))
    assert stamps_ms(made.build(19_980 * MS, "")) == [17_980.0, 18_980.0]
    # 2 s and the 0.4 s by which the newest may be late and another camera off, at 50 Hz.
    assert all(100 <= len(kept) <= 125 for kept in made._frames.values())
