"""`vla-ros bench policies`: its parts and what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from vla_ros.benchmarks.options import Options
from vla_ros.benchmarks.policies.benchmark import BENCHMARK, PARTS
from vla_ros.benchmarks.policies.tokens import smooth_chunks
from vla_ros.benchmarks.registry import BENCHMARKS
from vla_ros.benchmarks.requirement import judge
from vla_ros.errors import UnknownNameError


def test_it_is_registered_and_knows_its_parts() -> None:
    assert "policies" in BENCHMARKS
    assert BENCHMARK.chosen([]) == list(PARTS)
    assert BENCHMARK.chosen(["tokens", "node"]) == ["node", "tokens"]
    with pytest.raises(UnknownNameError, match="did you mean 'tokens'"):
        BENCHMARK.chosen(["token"])


def test_smooth_chunks_are_smooth_but_for_the_gripper_and_the_same_for_a_seed() -> None:
    chunks = smooth_chunks(20, 3)
    np.testing.assert_array_equal(chunks, smooth_chunks(20, 3))
    assert np.abs(chunks).max() <= 1.0
    # Two periods a chunk of 49 steps at most: a step of a sine of size 1 is at most this.
    assert np.abs(np.diff(chunks[:, :, :6], axis=1)).max() <= 2.0 * np.pi * 2.0 / 49.0
    assert set(np.unique(chunks[:, :, 6])) <= {-1.0, 1.0}


@pytest.mark.parametrize("name", ["tokens", "quantisation"])
def test_quick_run_of_a_part_says_every_figure_it_promises_and_holds_it(name: str) -> None:
    pytest.importorskip("tokenizers" if name == "tokens" else "transformers")
    results, _ = BENCHMARK.run([name], Options(is_quick=True))
    assert results["problems"] == []
    outcomes = judge(results, BENCHMARK.requirements([name]), is_quick=True)
    assert [outcome.requirement.key for outcome in outcomes if not outcome.holds_must] == []
