"""`vla-ros eval` from the command line to the report: figures, comparison, and a page that asks nobody for anything."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vla_ros.sim.world")  # Not "mujoco": MUJOCO_GL is chosen first.

from vla_ros.cli import main
from vla_ros.errors import ConfigError
from vla_ros.evaluation.candidates import find_candidate, find_checkpoints
from vla_ros.evaluation.evaluating import choose_checkpoint
from vla_ros.evaluation.evaluation_summary import compare, summarise_suite
from vla_ros.evaluation.figures import ChunkCounts, EpisodeFigures
from vla_ros.evaluation.rollout_film import Film, FilmPlan
from vla_ros.evaluation.task_suites import HELD_OUT, SWAPPED
from vla_ros.policies.registry import load_policy_config

pytestmark = pytest.mark.sim

NAMED = ["--robot", "panda", "--setting", "blocks", "--jobs", "1"]


def episode(seed: int, is_success: bool, variant: str = "", did_other: bool = False) -> EpisodeFigures:
    """One that took as many seconds as its seed says."""
    outcome = "success" if is_success else "failure"
    return EpisodeFigures(
        "pick", seed, variant, "pick up the red block", outcome, "why: so", float(seed), 0.5, 2.0, 9.0, 0.1, 0,
        {"tool_rate": 2}, 1, ChunkCounts(sent=10, late=1), 70.0, 8.0, "", did_other,
    )  # fmt: skip


class Page(HTMLParser):
    """What a page refers to, and whether its elements close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.open: list[str] = []
        self.rows = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.references += [value for name, value in attributes if name in ("src", "href") and value]
        self.rows += tag == "tr"
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_two_policies_are_compared_and_the_report_holds_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "slow.yaml"
    config = "name: hasty\nkind: scripted_visual\ncontract: tool_delta_visual\nrate_hz: 0.4\n"
    other.write_text(config, encoding="utf-8")
    out = tmp_path / "report"
    words = ["eval", "--policy", "scripted_visual", "--against", str(other), "--task", "reach", "--episodes", "1"]
    assert main([*words, *NAMED, "--time-limit", "5", "--videos", "1", "--out", str(out), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary == json.loads((out / "summary.json").read_text(encoding="utf-8"))
    mine = summary["policies"]["scripted_visual"]["suites"]["reach"]
    assert (mine["successes"], mine["episodes"], mine["limit_violations"]) == (1, 1, 0)
    assert summary["comparisons"]["hasty"]["all"]["pairs"] == 1
    assert "McNemar" in summary["compared"][0]

    rows = list(csv.DictReader((out / "episodes.csv").open(encoding="utf-8")))
    assert [row["policy"] for row in rows] == ["scripted_visual", "hasty"]
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert page.rows >= 2 + 4
    videos = [name for name in page.references if name.endswith(".mp4")]
    assert videos
    for name in page.references:
        assert (out / name).is_file(), name
    assert all((out / name).read_bytes()[4:8] == b"ftyp" for name in videos)


def test_every_policy_gets_as_many_videos_of_failures_as_are_asked_for(tmp_path: Path) -> None:
    image = {"base": np.zeros((48, 64, 3), dtype=np.uint8)}
    for policy in ("first", "second"):
        plan = FilmPlan(tmp_path, policy, 1)
        for name, outcome in (("reach-0000", "success"), ("reach-0001", "failure"), ("reach-0002", "timeout")):
            film = Film(plan, name, "reach the red block", 8.0, is_wanted=name == "reach-0000")
            film.add(image, 0.0, "")
            film.finish(outcome)  # type: ignore[arg-type]
        expected = [f"{policy}-reach-0000-success.mp4", f"{policy}-reach-0001-failure.mp4"]
        assert [video.name for video in plan.videos()] == expected


def test_a_folder_is_in_the_way_of_no_policy_and_a_run_is_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scripted_visual").mkdir()
    assert find_candidate("scripted_visual") == load_policy_config("scripted_visual")
    Path("run/checkpoints").mkdir(parents=True)
    with pytest.raises(ConfigError, match="is a training run"):
        find_candidate("run")
    with pytest.raises(ConfigError, match=r"policy\.json is missing"):
        find_candidate("run/checkpoints")


def test_language_counts_scenes_in_which_both_objects_were_found() -> None:
    """Worked by hand: scenes 0 and 1 are right both times, 2 once, 3 did the other's."""
    episodes = [episode(seed, True) for seed in range(3)] + [episode(3, False, did_other=True)]
    episodes += [
        episode(0, True, SWAPPED),
        episode(1, True, SWAPPED),
        episode(2, False, SWAPPED),
        episode(3, True, SWAPPED),
    ]
    summary = summarise_suite(episodes)
    assert summary["language_sensitivity"] == 0.5
    assert summary["wrong_object_rate"] == 1 / 8
    assert summary["right_object_rate"] == 6 / 7  # In one attempt of eight it did neither.
    assert (summary["successes"], summary["episodes"], summary["time_s"]) == (3, 4, 1.0)
    assert summary["limit_hits"] == {"tool_rate": 8}
    assert summary["chunks"] == {"sent": 40, "late": 4, "refused": 0, "unseen": 0, "failed": 0}
    assert summary["reasons"] == {"why": 1}


def test_new_wordings_are_held_against_the_known_ones_of_the_same_scenes() -> None:
    episodes = [episode(seed, seed != 7) for seed in range(10)]
    episodes += [episode(seed, seed < 7, HELD_OUT) for seed in range(10)]
    held_out = summarise_suite(episodes)["held_out"]
    assert held_out["success_rate"] == 0.7
    paired = held_out["against_known"]
    assert (paired["both"], paired["only_a"], paired["only_b"], paired["neither"]) == (7, 0, 2, 1)
    assert paired["costs_at_most"] > 0.2


def test_policies_are_compared_attempt_by_attempt() -> None:
    a = [episode(0, True), episode(1, False), episode(0, False, SWAPPED)]
    b = [episode(1, True), episode(0, True), episode(0, True, SWAPPED), episode(5, True)]
    assert compare(a, b).plain()["both"] == 1
    assert (compare(a, b).only_a, compare(a, b).only_b) == (0, 2)


def test_the_best_checkpoint_is_the_one_that_succeeds_most_and_the_later_of_equals(tmp_path: Path) -> None:
    for step in (100, 200, 300, 400):
        (tmp_path / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)
    done = {100: 1, 200: 3, 300: 3, 400: 2}
    results = {f"step_{step}": [episode(seed, seed < count) for seed in range(4)] for step, count in done.items()}
    assert [step for step, _ in find_checkpoints(tmp_path)] == list(done)
    assert choose_checkpoint(tmp_path, results).name == "step-000300"
    said = json.loads((tmp_path / "best_success.json").read_text(encoding="utf-8"))
    assert (said["step"], said["successes"], said["episodes"]) == (300, 3, 4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--policy", "scripted_visual", "--task", "juggle"], "unknown suite"),
        (["--policy", "scripted_visual", "--task", "stack"], "varied"),
        (["--policy", "scripted_visual", "--episodes", "0"], "at least 1"),
        (["--policy", "scripted_visual", "--against", "scripted_visual"], "both called"),
        (["--policy", "scripted_visual", "--extra-latency", "-1"], "0 or more"),
        (["--policy", "scripted_visual", "--hardware", "mock"], "needs --mode ros"),
        (["--checkpoint", "nowhere"], "unknown policy"),
        (["--policy", "scripted_visual", "--task", "libero:libero_goal", "--swap"], "--swap, --out: not for external"),
        (["--checkpoints", "nowhere"], "no checkpoints"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *words, *NAMED, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
