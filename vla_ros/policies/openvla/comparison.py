"""What quantised weights cost and what they do to actions, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vla_ros.errors import ConfigError, MissingDependencyError
from vla_ros.policies.openvla.model import OpenVLA
from vla_ros.policies.openvla.quantisation import SCHEMES, quantise, weight_bytes
from vla_ros.policies.representations.bins import VocabularyBins


@dataclass(frozen=True)
class QuantisationFigures:
    """One scheme against the weights as they were.

    Attributes:
        scheme: its name, `none` for the weights as they were.
        weight_bytes: of all parameters and buffers.
        logit_error: root mean square over the action ids' logits, of that of the logits themselves.
        action_error: mean absolute difference of normalised actions, each in [-1, 1].
        token_agreement: part of the action tokens that stayed the same.
        refusal: why the scheme isn't there, else empty; the figures are then NaN.
    """

    scheme: str
    weight_bytes: int
    logit_error: float
    action_error: float
    token_agreement: float
    refusal: str = ""


def compare_quantisations(
    make_model: Callable[[], OpenVLA],
    pixel_values: Tensor,
    input_ids: Tensor,
    schemes: Iterable[str] = tuple(SCHEMES),
    action_width: int = 7,
) -> list[QuantisationFigures]:
    """Figures of the unquantised model first, then of each scheme.

    All models are shown the tokens that the unquantised one says, so that one changed token doesn't change those after
    it; each token is the likeliest of the action ids.

    Args:
        make_model: a new model each time, as it is quantised in place.
        pixel_values: (B, 6, H, W) of pictures, several for a fair mean.
        input_ids: (B, n) prompts.
        schemes: names in SCHEMES; one whose library is missing or can't run here is reported as refused.
        action_width: tokens of an action.
    """
    base = make_model()
    bins = VocabularyBins(base.config.action_vocabulary)
    spoken = base.generate(pixel_values, input_ids, action_width)
    tokens = torch.cat([input_ids, spoken[:, :-1]], dim=1)
    wanted = _action_logits(base, pixel_values, tokens, action_width, bins)
    figures = [QuantisationFigures("none", weight_bytes(base), 0.0, 0.0, 1.0)]
    del base
    for scheme in schemes:
        try:
            model = quantise(make_model(), scheme)
            found = _action_logits(model, pixel_values, tokens, action_width, bins)
        except (MissingDependencyError, ConfigError) as error:
            figures.append(QuantisationFigures(scheme, 0, np.nan, np.nan, np.nan, str(error)))
            continue
        figures.append(_measure(scheme, weight_bytes(model), found, wanted, bins))
    return figures


def as_table(figures: Iterable[QuantisationFigures]) -> str:
    """The figures as lines for a person: scheme, megabytes, errors."""
    lines = [f"{'scheme':<18} {'MB':>9} {'logit error':>12} {'action error':>13} {'same tokens':>12}"]
    for row in figures:
        errors = f"{row.logit_error:12.5f} {row.action_error:13.5f} {row.token_agreement:12.3f}"
        numbers = f"{row.weight_bytes / 1e6:9.2f} {errors}"
        lines.append(f"{row.scheme:<18} " + (row.refusal or numbers))
    return "\n".join(lines)


@torch.inference_mode()
def _action_logits(model: OpenVLA, pixels: Tensor, tokens: Tensor, width: int, bins: VocabularyBins) -> Tensor:
    """(B, width, 256) float32 logits of the action ids where actions are said."""
    logits = model(pixels, tokens)[:, -width:, bins.first_id : bins.vocabulary_size]
    return logits.to(torch.float32)


def _measure(scheme: str, size: int, found: Tensor, wanted: Tensor, bins: VocabularyBins) -> QuantisationFigures:
    ids = [(bins.first_id + logits.argmax(dim=-1)).cpu().numpy() for logits in (found, wanted)]
    actions = [bins.decode(tokens) for tokens in ids]
    return QuantisationFigures(
        scheme,
        size,
        logit_error=float((found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()),
        action_error=float(np.mean(np.abs(actions[0] - actions[1]))),
        token_agreement=float(np.mean(ids[0] == ids[1])),
    )
