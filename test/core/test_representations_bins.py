"""Actions as bins: RT-1's uniform ones and OpenVLA's ids."""

from __future__ import annotations

import numpy as np
import pytest

from vla_ros.errors import ChunkError
from vla_ros.policies.representations.bins import UniformBins, VocabularyBins


def test_uniform_bins_hold_their_lower_edge_and_read_back_their_centre() -> None:
    """Four bins over [0, 1] and [-2, 2], worked by hand."""
    bins = UniformBins((0.0, -2.0), (1.0, 2.0), count=4)
    np.testing.assert_array_equal(bins.edges, [[0.0, 0.25, 0.5, 0.75, 1.0], [-2.0, -1.0, 0.0, 1.0, 2.0]])
    actions = [[0.0, -2.0], [0.2499, -1.0001], [0.25, -1.0], [0.5, 0.0], [0.75, 1.0], [1.0, 2.0], [7.0, -9.0]]
    ids = bins.encode(actions)
    np.testing.assert_array_equal(ids, [[0, 0], [0, 0], [1, 1], [2, 2], [3, 3], [3, 3], [3, 0]])
    centres = [[0.125, -1.5], [0.125, -1.5], [0.375, -0.5], [0.625, 0.5], [0.875, 1.5], [0.875, 1.5], [0.875, -1.5]]
    np.testing.assert_allclose(bins.decode(ids), centres, rtol=0, atol=1e-15)


def test_uniform_bins_are_off_by_at_most_half_a_bin() -> None:
    rng = np.random.default_rng(0)
    lower, upper = np.array([-0.05, -3.1, 0.0]), np.array([0.05, 3.1, 1.0])
    bins = UniformBins(tuple(lower), tuple(upper))
    actions = rng.uniform(lower, upper, (7, 1000, 3))
    error = np.abs(bins.decode(bins.encode(actions)) - actions)
    # Half a bin, and the rounding of a sum.
    assert (error <= (upper - lower) / 512 + 1e-15).all()
    np.testing.assert_array_equal(bins.encode(bins.decode(bins.encode(actions))), bins.encode(actions))


EDGES = np.linspace(-1.0, 1.0, 256).tolist()


def naive_openvla_id(action: float, vocabulary: int) -> int:
    """Counts the edges that aren't above the action."""
    clipped = min(1.0, max(-1.0, action))
    return vocabulary - sum(1 for edge in EDGES if edge <= clipped)


@pytest.mark.parametrize("vocabulary", [32000, 50257])
def test_openvla_ids_are_as_published_at_every_edge_and_beside_it(vocabulary: int) -> None:
    bins = VocabularyBins(vocabulary)
    edges = np.linspace(-1.0, 1.0, 256)
    beside = np.concatenate([edges, np.nextafter(edges, -2.0), np.nextafter(edges, 2.0), [-1.5, 0.0, 3.0]])
    expected = [naive_openvla_id(float(action), vocabulary) for action in beside]
    np.testing.assert_array_equal(bins.encode(beside), expected)
    # An edge opens its bin: k edges lie at or below edge k - 1.
    np.testing.assert_array_equal(bins.encode(edges), vocabulary - np.arange(1, 257))


def test_openvla_ids_worked_by_hand() -> None:
    bins = VocabularyBins()
    # -1 is the first edge alone: 32000 - 1; 1 is the 256th: 32000 - 256. 0 lies between edges 127 and 128 of 0 to 255.
    np.testing.assert_array_equal(bins.encode([-1.0, 0.0, 1.0, 2.0, -5.0]), [31999, 31872, 31744, 31744, 31999])
    # Bins are 2 / 255 wide: the centre of the first is -1 + 1 / 255; the last two ids share the last bin.
    decoded = bins.decode([31999, 31998, 31872, 31745, 31744])
    np.testing.assert_allclose(decoded, [-254 / 255, -252 / 255, 0.0, 254 / 255, 254 / 255], rtol=0, atol=1e-15)
    assert bins.first_id == 31744


def test_every_openvla_id_but_the_lowest_survives_the_round_trip() -> None:
    bins = VocabularyBins()
    ids = np.arange(31744, 32000)
    back = bins.encode(bins.decode(ids))
    np.testing.assert_array_equal(back[1:], ids[1:])
    assert back[0] == 31745


@pytest.mark.parametrize("ids", [[31743], [32000], [0], [-1], [31999, 2], [31999.0], [np.nan]])
def test_tokens_that_are_no_action_are_refused_and_not_decoded(ids: list[float]) -> None:
    with pytest.raises(ChunkError, match=r"aren't ids|are no actions"):
        VocabularyBins().decode(ids)


@pytest.mark.parametrize("ids", [[[256, 0]], [[0, -1]]])
def test_bins_that_do_not_exist_are_refused(ids: list[list[int]]) -> None:
    with pytest.raises(ChunkError, match="are no actions"):
        UniformBins((0.0, 0.0), (1.0, 1.0)).decode(ids)


def test_what_is_not_finite_or_of_another_width_has_no_token() -> None:
    bins = UniformBins((0.0, 0.0), (1.0, 1.0))
    for values in ([[np.nan, 0.0]], [[0.0, np.inf]]):
        with pytest.raises(ChunkError, match="finite"):
            bins.encode(values)
        with pytest.raises(ChunkError, match="finite"):
            VocabularyBins().encode(values)
    with pytest.raises(ChunkError, match="2 dimensions"):
        bins.encode([[0.0, 0.0, 0.0]])
    with pytest.raises(ChunkError, match="2 dimensions"):
        bins.decode([[0]])


def test_bounds_without_a_range_are_refused() -> None:
    with pytest.raises(ValueError, match="below its upper"):
        UniformBins((0.0, 1.0), (1.0, 1.0))
    with pytest.raises(ValueError, match="no 256"):
        VocabularyBins(255)
