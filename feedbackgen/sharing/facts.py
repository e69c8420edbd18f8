"""What a bundle's card says of its data, computed from the data."""

from pathlib import Path
from typing import Any

import numpy as np

from feedbackgen.behaviour import list_policies
from feedbackgen.episodes import dataset_info, episode_returns, load_starts
from feedbackgen.store import open_feedback
from feedbackgen.tasks import get_task


def dataset_facts(folder: Path) -> dict[str, Any]:
    """Counts, ranges and behaviour policies of a dataset, as JSON holds them."""
    info = dataset_info(folder)
    returns, costs, policies = episode_returns(folder)
    lengths = np.diff(load_starts(folder))
    safe = costs <= info.cost_limit
    measured = {policy.name: policy for policy in list_policies(info.task)}
    names = np.array(policies)
    rows = []
    for name in dict.fromkeys(policies):
        own = names == name
        row = {"name": name, "episodes": int(own.sum()), "return": float(returns[own].mean())}
        row |= {"cost": float(costs[own].mean()), "safe_share": float(safe[own].mean())}
        quality = measured.get(name)
        if quality is not None:
            row["measured"] = {
                "return": quality.return_,
                "cost": quality.cost_return,
                "episodes": quality.n_episodes,
            }
        rows.append(row)
    return {
        "n_episodes": info.n_episodes,
        "n_steps": info.n_steps,
        "horizon": info.horizon,
        "episode_lengths": [int(lengths.min()), int(lengths.max())],
        "observation_dim": info.observation_dim,
        "action_dim": info.action_dim,
        "cost_limit": info.cost_limit,
        "returns": _spread(returns),
        "costs": _spread(costs),
        "safe_episodes": int(safe.sum()),
        "best_safe_return": float(returns[safe].max()) if safe.any() else None,
        "cost_meaning": get_task(info.task).cost_meaning,
        "collected_with": info.versions,
        "policies": rows,
    }


def feedback_facts(folder: Path) -> dict[str, Any]:
    """Name -> counts and rates of each feedback store of a dataset."""
    found = {}
    for path in feedback_stores(folder):
        feedback = open_feedback(path)
        attributes = feedback.attributes
        lengths = feedback.segments.length
        found[path.stem] = {
            "source": attributes.get("source", "unknown"),
            "seed": attributes.get("seed"),
            "segments": len(lengths),
            "segment_lengths": [int(lengths.min()), int(lengths.max())] if len(lengths) else [],
            "preferences": len(feedback.preferences.label),
            "safety_labels": len(feedback.safety.label),
            "equal": float(np.mean(feedback.preferences.label == 0.5)) if len(feedback.preferences.label) else None,
            "safe": float(np.mean(feedback.safety.label == 1)) if len(feedback.safety.label) else None,
            "statistics": attributes.get("statistics", {}),
        }
    return found


def feedback_stores(folder: Path) -> list[Path]:
    """The feedback stores beside a dataset, by name."""
    return sorted(path for path in (folder / "feedback").glob("*.zarr") if not path.name.startswith("."))


def _spread(values) -> dict[str, float]:
    quantiles = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    names = ("min", "lower_quartile", "median", "upper_quartile", "max")
    return dict(zip(names, map(float, quantiles), strict=True)) | {"mean": float(np.mean(values))}
