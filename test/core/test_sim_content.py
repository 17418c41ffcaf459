"""What a seed puts into a varied scene: the rules of distance, what a task needs, and that all of it can happen."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

pytest.importorskip("vla_ros.sim.world")  # Not "mujoco": MUJOCO_GL is chosen first.

from vla_ros.errors import ConfigError
from vla_ros.instruction import BOWL, COLOURS, DIRECTIONS, THINGS, VERBS, Instruction, Thing
from vla_ros.sim.content import SceneContent, draw_content, draw_task
from vla_ros.sim.look import PATTERN_KINDS, TEXTURE_SIZE, Pattern, paint_pattern
from vla_ros.sim.placement import draw_placements

SEEDS = range(200)
LOW, HIGH = np.array([0.34, -0.25]), np.array([0.60, 0.25])
ALONG = {"left": (0.0, 1.0), "right": (0.0, -1.0), "forward": (1.0, 0.0), "backward": (-1.0, 0.0)}


def scenes(verb: str) -> list[tuple[Instruction, SceneContent]]:
    tasks = [draw_task(verb, seed) for seed in SEEDS]  # type: ignore[arg-type]
    return [(task, draw_content(seed, "varied", task)) for seed, task in zip(SEEDS, tasks, strict=True)]


@pytest.mark.parametrize("verb", VERBS)
def test_scene_holds_what_its_task_names_among_four_different_things(verb: str) -> None:
    for task, content in scenes(verb):
        names = [thing.name for thing in content.objects]
        assert len(names) == len(set(names)) == 4
        assert names[0] == task.thing.name
        assert set(names) <= {thing.name for thing in THINGS}
        if isinstance(task.destination, Thing):
            assert task.destination.name in names
        assert content.has_bowl or task.destination != BOWL
        assert len(content.distractors) <= 2


@pytest.mark.parametrize("verb", VERBS)
def test_things_keep_their_distance_and_lie_in_the_task_area(verb: str) -> None:
    for _, content in scenes(verb):
        things = content.things
        for i, one in enumerate(things):
            p = np.array(one.xy_m)
            margin = 0.05 if one.name.startswith("distractor") else 0.0
            assert np.all((p >= LOW - margin) & (p <= HIGH + margin))
            for other in things[i + 1 :]:
                least = 0.11 if "bowl" in (one.name, other.name) else 0.085
                assert np.linalg.norm(p - np.array(other.xy_m)) >= least


def test_a_push_has_a_free_way_in_reach_and_room_for_the_hand_behind() -> None:
    seen = Counter(task.direction for task, _ in scenes("push"))
    assert set(seen) == set(DIRECTIONS)
    for task, content in scenes("push"):
        assert task.direction is not None
        for way_m in np.arange(-0.09, 0.0901, 0.005):
            p = np.array(content.objects[0].xy_m) + way_m * np.array(ALONG[task.direction])
            assert np.all((p >= LOW - 0.0301) & (p <= HIGH + 0.0301))
            for other in content.things[1:]:
                clear_m = 0.095 if other.name == "bowl" else 0.065
                assert np.linalg.norm(p - np.array(other.xy_m)) >= clear_m - 1e-9


def test_a_quarter_of_the_scenes_has_two_things_of_a_colour() -> None:
    for needed in (False, True):
        shared = 0
        for seed in range(800):
            content = draw_content(seed, "varied", draw_task("pick", seed) if needed else None)
            shared += len({thing.name.partition("_")[2] for thing in content.objects}) < 4
        # Four standard deviations of 800 draws at a quarter are 49.
        assert abs(shared - 200) < 49


def test_everything_that_can_be_drawn_is_drawn() -> None:
    drawn = [draw_content(seed, "varied") for seed in SEEDS]
    assert {thing.name for content in drawn for thing in content.objects} == {thing.name for thing in THINGS}
    assert {content.has_bowl for content in drawn} == {True, False}
    assert {len(content.distractors) for content in drawn} == {0, 1, 2}
    assert {thing.shape for content in drawn for thing in content.distractors} == {"pebble", "tile", "stick"}
    looks = [content.look for content in drawn if content.look]
    assert {look.has_shadows for look in looks} == {True, False}
    assert {look.table.kind for look in looks} == {look.mat.kind for look in looks} == set(PATTERN_KINDS)
    # The named thing is in all quarters of the area.
    xy = np.array([content.objects[0].xy_m for _, content in scenes("pick")])
    assert np.all(np.bincount((xy > (LOW + HIGH) / 2.0) @ np.array([1, 2]), minlength=4) > 25)


def test_same_seed_gives_the_same_scene_and_another_seed_another() -> None:
    for verb in VERBS:
        assert draw_task(verb, 7) == draw_task(verb, 7)
        assert draw_content(7, "varied", draw_task(verb, 7)) == draw_content(7, "varied", draw_task(verb, 7))
    assert len({draw_content(seed, "varied") for seed in SEEDS}) == len(SEEDS)


def test_tasks_of_a_verb_name_every_thing_and_never_stack_one_on_itself() -> None:
    for verb in VERBS:
        tasks = [draw_task(verb, seed) for seed in SEEDS]
        assert {task.thing for task in tasks} == set(THINGS)
        assert all(task.verb == verb and task.destination != task.thing for task in tasks)
        assert all((task.destination is not None) == (verb in ("place", "stack")) for task in tasks)


def test_single_scene_is_a_varied_one_with_the_named_thing_alone() -> None:
    for seed in range(40):
        task = draw_task("pick", seed, "single")
        whole, content = draw_content(seed, "varied", task), draw_content(seed, "single", task)
        assert content.things == whole.objects[:1]
        assert content.objects[0].name == task.thing.name
        assert (content.look, content.servo_scale) == (whole.look, whole.servo_scale)
    assert {draw_task("reach", seed, "single").thing for seed in SEEDS} == set(THINGS)


@pytest.mark.parametrize("verb", ["push", "place", "stack"])
def test_single_scene_has_nothing_for_what_takes_more_than_one_thing(verb: str) -> None:
    with pytest.raises(ConfigError, match="setting single"):
        draw_task(verb, 0, "single")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="setting single has one thing"):
        draw_content(0, "single", draw_task(verb, 0, "varied"))  # type: ignore[arg-type]


def test_the_setting_of_blocks_is_what_it_was() -> None:
    for seed in range(20):
        content = draw_content(seed, "blocks")
        assert [thing.name for thing in content.things] == ["block_red", "block_green", "block_blue"]
        at = [(*thing.xy_m, thing.yaw_rad) for thing in content.things]
        np.testing.assert_array_equal(at, draw_placements(seed))
        assert draw_content(seed, "blocks", draw_task("push", seed, "blocks")) == content
    for verb in ("place", "stack"):
        with pytest.raises(ConfigError, match="varied"):
            draw_task(verb, 0, "blocks")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "needed",
    [
        Instruction("pick", Thing("yellow")),
        Instruction("pick", Thing("red", "cylinder")),
        Instruction("place", Thing("red"), destination=BOWL),
    ],
)
def test_what_a_setting_lacks_is_refused_by_name(needed: Instruction) -> None:
    with pytest.raises(ConfigError, match=r"no (yellow block|red cylinder|bowl)"):
        draw_content(0, "blocks", needed)
    with pytest.raises(ConfigError, match="'many' is none"):
        draw_content(0, "many", needed)  # type: ignore[arg-type]


def test_shades_stay_the_colour_and_rooms_stay_dull() -> None:
    import colorsys

    # Far from every other colour's: neighbours on the circle are 50 degrees apart at least.
    hues = {"red": 1.0, "green": 130.0, "blue": 225.0, "yellow": 51.0, "purple": 285.0}
    assert set(hues) == set(COLOURS)
    for seed in SEEDS:
        content = draw_content(seed, "varied")
        for thing in content.objects:
            assert thing.rgba is not None
            hue, saturation, value = colorsys.rgb_to_hsv(*thing.rgba[:3])
            wanted = hues[thing.name.partition("_")[2]]
            assert abs((360.0 * hue - wanted + 180.0) % 360.0 - 180.0) <= 6.01
            assert saturation > 0.7
            assert value > 0.6
        look = content.look
        assert look is not None
        for rgb in (look.floor, look.mat_edge, look.table.first, look.table.second, look.mat.first, look.mat.second):
            assert max(rgb) - min(rgb) < 0.2


@pytest.mark.parametrize("kind", PATTERN_KINDS)
def test_patterns_are_between_their_colours_and_repeat_with_the_seed(kind: str) -> None:
    first, second = (0.2, 0.4, 0.6), (0.5, 0.5, 0.5)
    image = paint_pattern(Pattern(kind, first, second, 0.1, 0.0, 3))  # type: ignore[arg-type]
    assert image.shape == (TEXTURE_SIZE, TEXTURE_SIZE, 3)
    share = (image / 255.0 - np.array(first)) / (np.array(second) - np.array(first))
    assert np.all((share > -0.03) & (share < 1.03))
    if kind == "flat":
        assert np.ptp(image.reshape(-1, 3), axis=0).max() == 0
    else:
        assert np.ptp(share) > 0.6
    if kind in ("checker", "stripes"):
        # A stripe and its gap take the period of 0.1 m, that is 21.3 of 128 texels for 0.6 m; a checker twice that.
        changes = np.count_nonzero(np.diff(image[5, :, 0].astype(int)))
        assert changes == (5 if kind == "checker" else 11)
    np.testing.assert_array_equal(image, paint_pattern(Pattern(kind, first, second, 0.1, 0.0, 3)))  # type: ignore[arg-type]
