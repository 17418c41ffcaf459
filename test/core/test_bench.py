"""`vla-ros bench`: how figures are formed and held against what was promised, and what the command says and returns."""

from __future__ import annotations

import json
import math
import sys
import types

import numpy as np
import pytest

from vla_ros import cli
from vla_ros.benchmarks import registry, timing
from vla_ros.benchmarks.motion import benchmark
from vla_ros.benchmarks.motion.hops import compare
from vla_ros.benchmarks.options import Options, Result
from vla_ros.benchmarks.parallel import Pool
from vla_ros.benchmarks.requirement import Requirement, find, judge
from vla_ros.commands import progress
from vla_ros.errors import MissingDependencyError, UnknownNameError

MOST = Requirement("a.b", 2.0, 1.0, "meaning")
LEAST = Requirement("count", 100.0, 200.0, "meaning", is_least=True, is_full_only=True)


@pytest.mark.parametrize(
    ("value", "must", "proud"), [(0.5, True, True), (1.0, True, True), (1.5, True, False), (2.0, True, False)]
)
def test_a_figure_at_its_bound_holds(value, must, proud):
    (outcome,) = judge({"a": {"b": value}}, [MOST])
    assert (outcome.holds_must, outcome.holds_proud) == (must, proud)


@pytest.mark.parametrize(
    "results", [{}, {"a": {}}, {"a": None}, {"a": {"b": None}}, {"a": {"b": math.nan}}, {"a": 1.0}]
)
def test_what_is_missing_or_no_number_holds_nothing(results):
    (outcome,) = judge(results, [MOST])
    assert outcome.value is None
    assert not outcome.holds_must
    assert not outcome.holds_proud


def test_a_boolean_is_no_figure():
    assert find({"a": True}, "a") is None


def test_a_least_is_held_from_above_and_is_not_due_in_a_quick_run():
    (short,) = judge({"count": 99}, [LEAST], is_quick=True)
    assert not short.holds_must
    assert not short.is_due
    (full,) = judge({"count": 150}, [LEAST])
    assert full.is_due
    assert full.holds_must
    assert not full.holds_proud


def test_ratio_of_medians_is_known_and_outliers_of_a_block_do_not_move_it():
    floor = np.full(2000, 2e-6)
    ours = np.full(2000, 18e-6)
    ours[:100] = 1.0  # One block of twenty stood still.
    ratio = timing.ratio_of_medians(ours, floor)
    assert ratio.median == pytest.approx(9.0)
    assert (ratio.low, ratio.high) == pytest.approx((9.0, 9.0))


@pytest.mark.parametrize(("control", "void"), [(0.79, True), (0.8, False), (1.0, False), (1.25, False), (1.26, True)])
def test_a_control_outside_its_range_voids(control, void):
    assert timing.is_void(control) is void
    assert timing.is_void(math.nan)


def test_a_a_of_one_machine_is_one_and_of_a_split_by_chance_stays_near():
    rng = np.random.default_rng(1)
    values = rng.lognormal(0.0, 0.3, 4000)
    assert timing.a_a(values, rng).median == pytest.approx(1.0, abs=0.1)
    assert timing.a_a(np.ones(40), rng).median == 1.0


def test_interleaved_times_are_cpu_times_less_the_clock_and_each_call_gets_each_tick():
    seen: dict[str, list[int]] = {"nothing": [], "work": []}

    def nothing(tick: int) -> None:
        seen["nothing"].append(tick)

    def work(tick: int) -> None:
        seen["work"].append(tick)
        sum(range(20_000))

    calls = {"nothing": [nothing] * 300, "work": [work] * 300}
    times = timing.time_interleaved(calls, np.random.default_rng(0))
    assert seen == {"nothing": list(range(300)), "work": list(range(300))}
    assert set(times) == {"nothing", "work", timing.CLOCK}
    # A Python call and an append take about as long as the clock; 20,000 additions a hundred times that.
    assert np.median(times["nothing"]) < 5e-6
    assert np.median(times["work"]) > 4.0 * max(np.median(times["nothing"]), np.median(times[timing.CLOCK]))
    assert min(values.min() for values in times.values()) >= 0.0


def test_the_cost_of_the_clock_is_taken_off(monkeypatch):
    """With a clock that takes 700 ns to read and work of 5 us, on paper."""
    now_ns = 0

    def read() -> int:
        nonlocal now_ns
        now_ns += 700
        return now_ns

    def work(_tick: int) -> None:
        nonlocal now_ns
        now_ns += 5000

    monkeypatch.setattr(timing.time, "thread_time_ns", read)
    times = timing.time_interleaved({"work": [work] * 50}, np.random.default_rng(0))
    np.testing.assert_allclose(times["work"], 5e-6)
    np.testing.assert_allclose(times[timing.CLOCK], 7e-7)


def test_hops_compare_p99s_of_equally_long_series():
    rng = np.random.default_rng(2)
    relay, again = rng.normal(1e-3, 1e-5, (200, 5)), rng.normal(1e-3, 1e-5, (200, 5))
    found = compare(rng.normal(2.5e-3, 1e-5, 200), relay, again, blocks=5)
    assert found["hop_ratio"] == pytest.approx(2.5, rel=0.05)
    assert found["a_a"] == pytest.approx(1.0, abs=0.05)
    assert not found["is_void"]


def test_hops_are_void_where_the_control_is_off_or_messages_were_lost():
    ones = np.ones((100, 5))
    assert compare(np.ones(100), ones, 1.3 * ones, blocks=2)["is_void"]
    few, many = np.ones(100), np.ones(100)
    few[:4], many[:10] = np.nan, np.nan
    assert not compare(few, ones, ones, blocks=2)["is_void"]
    assert compare(few, ones, ones, blocks=2)["lost_chunks"] == 4
    assert compare(many, ones, ones, blocks=2)["is_void"]


def _double(number: int) -> int:
    return 2 * number


def test_pool_keeps_the_order_and_says_what_is_done():
    done: list[float] = []
    with Pool(0) as pool:
        assert pool.spread(_double, [3, 1, 2], done.append) == [6, 2, 4]
    assert done[-1] == 1.0


def test_bench_without_a_name_lists_the_benchmarks(capsys):
    assert cli.main(["bench"]) == 0
    assert "motion" in capsys.readouterr().out
    assert cli.main(["bench", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["benchmarks"] == registry.BENCHMARKS


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["bench", "moton"], "did you mean 'motion'"),
        (["bench", "motion", "--only", "tik"], "did you mean 'tick'"),
        (["bench", "motion", "--seed", "-1"], "--seed -1"),
        (["bench", "motion", "--ticks", "0"], "--ticks 0"),
    ],
)
def test_what_can_not_be_used_is_told_with_the_mend_before_anything_runs(words, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    assert text in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_every_benchmark_has_what_the_command_asks_of_it():
    for name in registry.BENCHMARKS:
        module = registry.load_benchmark(name)
        keys = [item.key for item in module.requirements(module.chosen_parts([]))]
        assert len(set(keys)) == len(keys) > 0
    with pytest.raises(UnknownNameError):
        registry.load_benchmark("nothing")


def test_parts_keep_their_order_and_timed_ones_come_first():
    names = benchmark.chosen_parts(["adversarial", "tick"])
    assert names == ["tick", "adversarial"]
    everything = benchmark.chosen_parts([])
    assert everything[: len(benchmark.TIMED)] == list(benchmark.TIMED)


PROMISED = {
    "ik_over_floor": (12.0, 9.0),
    "ik_over_pink": (0.5, 0.3),
    "ik_over_mink": (0.5, 0.3),
    "tick_p99_ms": (0.6, 0.4),
    "end_error_over_best_peer": (1.0, 1.0),
    "there_and_back.position_mm": (1.0, None),
    "there_and_back.angle_deg": (0.1, None),
    "seam_jerk_ratio": (0.05, 0.025),
    "seam_lag_ms": (8.0, 0.0),
    "intent_delay_ms": (40.0, None),
    "adversarial_ticks": (1e6, None),
    "violations": (0.0, None),
    "hop_ratio": (2.0, 1.4),
}


def test_what_was_promised_is_required():
    required = {item.key: item for item in benchmark.requirements(benchmark.chosen_parts([]))}
    for key, (must, proud) in PROMISED.items():
        assert required[key].must == must
        assert proud is None or required[key].proud == proud


def _with_parts(monkeypatch, **runs):
    """Puts other work in the place of parts."""
    for name, run in runs.items():
        module = types.ModuleType(f"{benchmark.__package__}.{benchmark.PARTS[name].module}")
        module.run = run
        monkeypatch.setitem(sys.modules, module.__name__, module)


def _bench(words, capsys):
    code = cli.main(["bench", "motion", "--json", *words])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_exit_code_is_0_only_where_every_must_holds(monkeypatch, capsys, tmp_path):
    words = ["--only", "tick_p99", "--out", str(tmp_path)]
    _with_parts(monkeypatch, tick_p99=lambda options: Result({"tick_p99_ms": 0.5}))
    code, results = _bench(words, capsys)
    assert (code, results["passed"]) == (0, True)
    assert results["requirements"]["tick_p99_ms"]["holds_proud"] is False
    assert json.loads((tmp_path / "results.json").read_text())["tick_p99_ms"] == 0.5
    _with_parts(monkeypatch, tick_p99=lambda options: Result({"tick_p99_ms": 0.61}))
    assert _bench(words, capsys)[0] == 1
    _with_parts(monkeypatch, tick_p99=lambda options: Result({"tick_p99_ms": None}))
    assert _bench(words, capsys)[0] == 1


def test_a_part_without_its_dependency_fails_with_the_command_that_mends_it(monkeypatch, capsys, tmp_path):
    def run(options: Options) -> Result:
        raise MissingDependencyError("rclpy", "hop_ratio", "python -m pip install vla_ros[ros]")

    _with_parts(monkeypatch, hops=run)
    code, results = _bench(["--only", "hops", "--out", str(tmp_path)], capsys)
    assert code == 1
    assert results["hop_ratio"] is None
    assert "pip install" in results["problems"][0]


def test_the_table_names_what_failed_and_what_held(monkeypatch, capsys, tmp_path):
    _with_parts(monkeypatch, hops=lambda options: Result({"hop_ratio": 2.5}, problems=("it was late",)))
    _with_parts(monkeypatch, tick_p99=lambda options: Result({"tick_p99_ms": 0.3}))
    assert cli.main(["bench", "motion", "--only", "hops,tick_p99", "--out", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("FAILED") and "hop_ratio" in line and "2.5" in line for line in lines)
    assert any(line.startswith("ok") and "tick_p99_ms" in line and "✓" in line for line in lines)
    assert "note: it was late" in lines


def test_progress_is_silent_for_two_seconds_and_then_sparse(monkeypatch, capsys):
    now_s = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s)
    bar = progress.Progress()
    for tick in range(101):
        now_s = 0.1 * tick
        bar("tick", tick / 100)
    shown = capsys.readouterr().err.splitlines()
    assert 2 <= len(shown) <= 5
    assert "100 %" in shown[-1]
