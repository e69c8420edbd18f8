"""The card of a bundle: a README computed from the manifest, with the hub's YAML on top."""

from collections.abc import Mapping
from typing import Any

from feedbackgen.sharing.manifest import FORMAT_VERSION, Manifest

NAME = "README.md"
PICTURE = "returns.png"
MARK = "feedbackgen"  # the tag by which the hub's search finds bundles
SIZES = (("n<1K", 1e3), ("1K<n<10K", 1e4), ("10K<n<100K", 1e5), ("100K<n<1M", 1e6), ("1M<n<10M", 1e7))


def card_text(manifest: Manifest) -> str:
    """Everything on the card follows from the manifest, so that `verify` can write it again and compare."""
    facts = manifest.facts
    parts = [
        _front_matter(manifest),
        f"# {manifest.dataset_id}\n",
        f"{_summary(manifest)}\n",
        f"![Return against cost of each episode]({PICTURE})\n",
        "## Load it\n",
        _loading(manifest),
        "## How it was made\n",
        _making(manifest),
        "## Behaviour policies\n",
        _policies(facts["dataset"]),
        "## Trajectories\n",
        _trajectories(facts["dataset"]),
        "## Feedback\n",
        _feedback(facts["feedback"]),
        "## Known limits\n",
        _limits(facts),
        "## Licence and citation\n",
        _rights(manifest),
    ]
    return "\n".join(parts)


def _front_matter(manifest: Manifest) -> str:
    n_steps = manifest.facts["dataset"]["n_steps"]
    size = next((name for name, end in SIZES if n_steps < end), "n>10M")
    tables = sorted(path for path in manifest.files if path.endswith(".parquet"))
    lines = [
        "---",
        f"license: {manifest.licence}",
        f"pretty_name: {manifest.dataset_id}",
        "task_categories:\n- reinforcement-learning",
        f"tags:\n- {MARK}\n- minari\n- offline-rl\n- safe-rl\n- preference-based-rl\n- {manifest.task}",
        f"size_categories:\n- {size}",
        "configs:",
    ]
    for path in tables:
        name = path.removeprefix("labels/").removesuffix(".parquet")
        lines.append(f"- config_name: {name}\n  data_files: {path}")
    return "\n".join([*lines, "---\n"])


def _summary(manifest: Manifest) -> str:
    data, feedback = manifest.facts["dataset"], manifest.facts["feedback"]
    labels = sum(store["preferences"] + store["safety_labels"] for store in feedback.values())
    text = (
        f"{data['n_episodes']:,} episodes and {data['n_steps']:,} steps of {manifest.task}, with rewards and a cost at "
        "every step"
    )
    if feedback:
        text += f", and {labels:,} preferences and safety labels on its segments"
    return (
        f"{text}. A cost is 1 at each step that is unsafe: {data['cost_meaning']}. An episode is safe when its costs "
        f"add up to at most {data['cost_limit']:g}; {data['safe_episodes']:,} episodes are."
    )


def _loading(manifest: Manifest) -> str:
    feedback = next(iter(manifest.facts["feedback"]), None)
    lines = [
        "With Minari alone, once the bundle lies in `~/.minari/datasets/" + manifest.dataset_id + "` "
        '(`fbgen pull SOURCE` puts it there); the cost of step t is `infos["cost"][t + 1]`:\n',
        "```python",
        "import minari",
        f'dataset = minari.load_dataset("{manifest.dataset_id}")',
        'costs = [episode.infos["cost"][1:] for episode in dataset.iterate_episodes()]',
        "```\n",
    ]
    if feedback is not None:
        lines += [
            "The feedback, with feedbackgen:\n",
            "```python",
            "from feedbackgen.store import open_feedback",
            f'feedback = open_feedback("{manifest.dataset_id}/{feedback}")',
            "pairs, labels = feedback.preferences.pair, feedback.preferences.label",
            "```\n",
        ]
    return "\n".join(lines)


def _making(manifest: Manifest) -> str:
    data = manifest.facts["dataset"]
    versions = ", ".join(f"{name} {number}" for name, number in data["collected_with"].items())
    recipe = "`recipe.toml` holds the whole recipe" if "recipe.toml" in manifest.files else "It has no recipe"
    seeds = ", ".join(f"{name} {seed}" for name, seed in _flat(manifest.seeds))
    return (
        f"{recipe}; `fbgen rebuild` runs it again and compares the bytes. Seeds: {seeds or 'none stated'}. "
        f"Collected with {versions}. Fingerprint of the episodes: `{manifest.fingerprint}`.\n"
    )


def _policies(data: Mapping[str, Any]) -> str:
    rows = [
        "| policy | episodes | mean return | mean cost | safe | measured return / cost |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for policy in data["policies"]:
        measured = policy.get("measured")
        quality = "-"
        if measured is not None:
            quality = f"{measured['return']:.2f} / {measured['cost']:.1f} ({measured['episodes']} episodes)"
        rows.append(
            f"| {policy['name']} | {policy['episodes']:,} | {policy['return']:.2f} | {policy['cost']:.1f} "
            f"| {policy['safe_share']:.0%} | {quality} |"
        )
    return "\n".join(rows) + "\n"


def _trajectories(data: Mapping[str, Any]) -> str:
    rows = ["| | lowest | quartile | median | quartile | highest | mean |", "|---|--:|--:|--:|--:|--:|--:|"]
    names = ("min", "lower_quartile", "median", "upper_quartile", "max", "mean")
    for title, spread in (("return", data["returns"]), ("cost", data["costs"])):
        rows.append(f"| {title} | " + " | ".join(f"{spread[name]:.2f}" for name in names) + " |")
    best = data["best_safe_return"]
    shortest, longest = data["episode_lengths"]
    return "\n".join(rows) + (
        f"\n\nEpisodes have {shortest:,} to {longest:,} steps (horizon {data['horizon']:,}); observations "
        f"{data['observation_dim']} numbers, actions {data['action_dim']}. "
        f"Best return of a safe episode: {'none is safe' if best is None else f'{best:.2f}'}. "
        f"Normalised return: (return - {data['returns']['min']:.4f}) / "
        f"{data['returns']['max'] - data['returns']['min']:.4f}; normalised cost: cost / {data['cost_limit']:g}, "
        "safe at most 1.\n"
    )


def _feedback(feedback: Mapping[str, Any]) -> str:
    if not feedback:
        return "None yet: `fbgen label` simulates it.\n"
    parts = []
    for name, store in feedback.items():
        lengths = store["segment_lengths"]
        spread = " to ".join(f"{length:,}" for length in dict.fromkeys(lengths))
        parts.append(
            f"**{name}** ({store['source']}): {store['preferences']:,} preferences"
            + (f", {store['equal']:.1%} of them equal" if store["equal"] is not None else "")
            + f"; {store['safety_labels']:,} safety labels"
            + (f", {store['safe']:.1%} of them safe" if store["safe"] is not None else "")
            + f"; segments of {spread} steps.\n"
        )
        rates = {key: value for key, value in store["statistics"].items() if _is_rate(value)}
        if rates:
            rows = ["| rate | requested | realised | 95 % interval |", "|---|--:|--:|--:|"]
            for key, rate in rates.items():
                asked = "as it comes" if rate["expected"] is None else f"{rate['expected']:.4f}"
                came = "-" if rate["realised"] is None else f"{rate['realised']:.4f}"
                rows.append(f"| {key.replace('_', ' ')} | {asked} | {came} | {rate['low']:.4f} to {rate['high']:.4f} |")
            parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _limits(facts: Mapping[str, Any]) -> str:
    data, lines = facts["dataset"], []
    if any(store["source"] == "simulated" for store in facts["feedback"].values()):
        lines.append(
            "- Simulated feedback comes from a teacher who sees the true rewards and costs; people err otherwise. What "
            "the teacher knew is kept apart in `oracle/`, which no learner may read."
        )
    share = data["safe_episodes"] / data["n_episodes"]
    lines.append(
        f"- {share:.0%} of the episodes are safe; a learner sees what these behaviour policies do, and no more."
    )
    lines.append("- Other releases of the simulator may play the same actions otherwise; the versions above are exact.")
    return "\n".join(lines) + "\n"


def _rights(manifest: Manifest) -> str:
    lines = [f"Licence: {manifest.licence}."]
    if manifest.authors:
        lines.append(f"By {', '.join(manifest.authors)}.")
    if manifest.citation:
        lines += ["", "```bibtex", manifest.citation.strip(), "```"]
    if manifest.mirrors:
        lines += ["", "Mirrors: " + ", ".join(f"`{mirror}`" for mirror in manifest.mirrors) + "."]
    lines += ["", f"`fbgen verify` checks this bundle (format {FORMAT_VERSION}) byte by byte and against its data."]
    return "\n".join(lines) + "\n"


def _flat(seeds: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for name, value in seeds.items():
        pairs += _flat(value, f"{prefix}{name} ") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return pairs


def _is_rate(value: Any) -> bool:
    return isinstance(value, Mapping) and {"expected", "realised", "low", "high"} <= value.keys()
