"""Puts an adapter into a copy of its base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vla_ros.commands.progress import Progress
from vla_ros.errors import ConfigError
from vla_ros.policies.packages import packages_for


def merge(adapter: Path, target: Path, base: Path | None) -> dict[str, Any]:
    """Writes the merged checkpoint.

    Args:
        adapter: its folder.
        target: folder to make.
        base: the checkpoint; None for the one that the adapter's card names.

    Returns:
        `path`, `size_mb`, and `policy`, the YAML in it, null if the adapter comes from elsewhere.

    Raises:
        VlaRosError: see `vla_ros.policies.openvla.merging.merge_adapter`.
    """
    with packages_for("merging an adapter"):
        from vla_ros.policies.openvla.checkpoint import read_checkpoint
        from vla_ros.policies.openvla.fine_tuned import POLICY_FILE, read_card
        from vla_ros.policies.openvla.merging import merge_adapter
    if base is None:
        card = read_card(adapter)
        if card is None:
            raise ConfigError(str(adapter), "doesn't say what it is an adapter of", "name the base with --checkpoint")
        base = Path(card.base)
    progress = Progress()
    merged = merge_adapter(read_checkpoint(base), adapter, target, lambda done: progress("merging", done))
    progress.end()
    policy = merged / POLICY_FILE
    return {
        "path": str(merged),
        "size_mb": sum(file.stat().st_size for file in merged.iterdir()) / 1e6,
        "policy": str(policy) if policy.is_file() else None,
    }
