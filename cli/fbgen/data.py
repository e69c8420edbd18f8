"""``fbgen collect``, ``fbgen label``, ``fbgen inspect``: make trajectories and feedback, and look at them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fbgen.show import print_json, print_pairs, print_table, progress_bar, require_torch, say

Force = Annotated[bool, typer.Option("--force", "-f", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
ShowProgress = Annotated[
    bool | None, typer.Option("--progress/--no-progress", "-P", help="Bar; default on a terminal.")
]


def collect(
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="For example SafetyPointCircle1-v0.")] = None,
    episodes: Annotated[int | None, typer.Option("--episodes", "-n", help="Episodes in all.")] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="NAME[+noise=X][+epsilon=P][+sample][:SHARE]; repeat to mix.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe's TOML file, or the name of one that ships.")] = None,
    env_id: Annotated[
        str | None,
        typer.Option(metavar="[MODULE:]ID", help="Instead of TASK: a Gymnasium environment with info['cost']."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes every draw; default 0, or the recipe's.")] = None,
    name: Annotated[str | None, typer.Option(help="Dataset feedbackgen/TASK/NAME-v0; default custom.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the bytes are the same.")] = 1,
    ray: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Instead: play on the Ray cluster of this head node.")
    ] = None,
    state: Annotated[bool, typer.Option("--state", help="Also store the simulator's state at each step.")] = False,
    cost_cap: Annotated[float | None, typer.Option(help="Draw an episode above this cost again.")] = None,
    max_episode_steps: Annotated[int | None, typer.Option(help="Truncate episodes earlier than the task does.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a scatter plot of return against cost.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of the same recipe.")] = False,
    force: Force = False,
    show_progress: ShowProgress = None,
) -> None:
    """Roll out policies into a Minari dataset.

    Each step's cost is stored; policies may be mixed by shares.

    fbgen collect SafetyPointCircle1-v0 -n 400 --policy expert:0.3 --policy medium:0.5 --policy random:0.2
    """
    if [task, env_id, recipe].count(None) != 2:
        raise typer.BadParameter("give either TASK, --env-id or --recipe")
    task = task or env_id
    if recipe is not None and policy:
        raise typer.BadParameter("--policy goes with TASK; a recipe names its own policies")
    if ray is not None and workers > 1:
        raise typer.BadParameter("give either --workers or --ray; a cluster uses all its CPUs")
    if task is not None and (episodes is None or not policy):
        raise typer.BadParameter("TASK needs -n EPISODES and at least one --policy; `fbgen policies TASK` lists them")

    from dataclasses import replace

    from feedbackgen.collect import collect as collect_dataset
    from feedbackgen.episodes import episode_returns
    from feedbackgen.recipe import Recipe, load_recipe, mixture

    if recipe is not None:
        chosen = load_recipe(recipe)
    else:
        assert task is not None and policy and episodes is not None  # checked above
        chosen = Recipe(task=task, policies=mixture(policy), n_episodes=episodes)
    changes: dict[str, Any] = {
        "n_episodes": episodes,
        "seed": seed,
        "name": name,
        "cost_cap": cost_cap,
        "max_episode_steps": max_episode_steps,
    }
    chosen = replace(chosen, **{key: value for key, value in changes.items() if value is not None})
    if state:
        chosen = replace(chosen, record_states=True)
    with progress_bar("episodes", show_progress) as progress:
        info = collect_dataset(chosen, workers=workers, ray=ray, resume=resume, force=force, progress=progress)
    _show_dataset(info, episode_returns(info.path), plot)


def label(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Minari id, or path.")],
    pairs: Annotated[int, typer.Option(help="Preferences to ask for.")] = 10_000,
    segment_length: Annotated[
        str, typer.Option(metavar="STEPS[,STEPS...]", help="Of a segment; several take turns.")
    ] = "64",
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME[+PARAMETER=X][:SHARE]; repeat to mix. NAME is calibrated (default), oracle, stochastic, myopic, "
            "mistake, skip, equal, bpref-code or imitation."
        ),
    ] = None,
    noise: Annotated[
        float | None, typer.Option(help="Probability of flipping each label, preference and safety; at most 0.5.")
    ] = None,
    preference_noise: Annotated[float | None, typer.Option(help="Instead, for preferences alone.")] = None,
    safety_noise: Annotated[float | None, typer.Option(help="Instead, for safety labels alone.")] = None,
    noise_margin: Annotated[
        float | None, typer.Option(help="Flips fall to 1/e where returns differ by so many standard deviations.")
    ] = None,
    drift: Annotated[
        float | None, typer.Option(help="A tiring teacher: flips rise by so much from first query to last.")
    ] = None,
    miss_rate: Annotated[float | None, typer.Option(help="Probability of calling an unsafe segment safe.")] = None,
    false_alarm_rate: Annotated[
        float | None, typer.Option(help="Probability of calling a safe segment unsafe.")
    ] = None,
    beta: Annotated[float | None, typer.Option(help="Rationality per --beta-unit; inf: none errs.")] = None,
    beta_unit: Annotated[
        str | None, typer.Option(help="deviation (of return differences; calibrated's) or reward.")
    ] = None,
    error_rate: Annotated[float | None, typer.Option(help="Solve for the beta that errs so, before flips.")] = None,
    discount: Annotated[float | None, typer.Option(help="Myopia: per step, in (0, 1].")] = None,
    discount_from: Annotated[
        str | None, typer.Option(help="end: late steps count in full (B-Pref); start: early ones (imitation).")
    ] = None,
    skip: Annotated[
        float | None, typer.Option(help="No answer where both returns are below this share of the mean episode's.")
    ] = None,
    equal: Annotated[
        float | None, typer.Option(help="0.5 where returns differ by less than this share of the mean episode's.")
    ] = None,
    feedback: Annotated[
        str,
        typer.Option(
            metavar="KIND[,KIND...]",
            help="preferences, safety, ratings, safety-preferences (which is safer), episode-safety, non-preferred "
            "(episodes not to follow).",
        ),
    ] = "preferences,safety",
    safety_labels: Annotated[
        int | None, typer.Option(help="Segments with a safety label; default as many as pairs.")
    ] = None,
    ratings: Annotated[int | None, typer.Option(help="Segments with a rating; default as many as pairs.")] = None,
    rating_bins: Annotated[int, typer.Option(help="A rating is 0, the worst, to this less one.")] = 10,
    non_preferred: Annotated[
        int | None, typer.Option(help="Episodes not to follow; default 50, or as many as are unsafe.")
    ] = None,
    cost_limit: Annotated[
        float | None, typer.Option(help="Per episode, scaled to segments; default the task's.")
    ] = None,
    safety_threshold: Annotated[float | None, typer.Option(help="Instead: highest cost of a safe segment.")] = None,
    queries: Annotated[
        str,
        typer.Option(
            help="uniform; stratified: spread evenly over returns and costs; or active: disagreement, entropy, "
            "k-center, k-center-disagreement, k-center-entropy."
        ),
    ] = "uniform",
    ensemble: Annotated[
        str | None, typer.Option(metavar="FEEDBACK", help="What active queries learn an ensemble of rewards from.")
    ] = None,
    session: Annotated[int, typer.Option(help="Pairs that active queries choose at once.")] = 100,
    unsafe_share: Annotated[float | None, typer.Option(help="Share of unsafe segments; default as they come.")] = None,
    start_share: Annotated[
        float | None, typer.Option(help="Share of segments that start with their episode; default as they come.")
    ] = None,
    margin: Annotated[
        str | None,
        typer.Option(metavar="LOW,HIGH", help="Ask where returns differ by so many standard deviations."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Fixes every draw.")] = 0,
    name: Annotated[str, typer.Option(help="Name of the feedback.")] = "default",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Simulate a teacher's feedback on a dataset.

    Preferences and safety labels are stored beside the trajectories, with the error rates asked for and realised.

    fbgen label feedbackgen/SafetyPointCircle1-v0/mixed-v0 --pairs 10000 --segment-length 64 --noise 0.1
    """
    from feedbackgen.active import ACTIVE
    from feedbackgen.label import LabelConfig
    from feedbackgen.label import label as label_dataset
    from feedbackgen.presets import DEFAULT_TEACHER

    config = LabelConfig(
        n_pairs=pairs,
        n_safety=safety_labels,
        kinds=tuple(feedback.split(",")),
        n_ratings=ratings,
        rating_bins=rating_bins,
        n_non_preferred=non_preferred,
        segment_length=_numbers(segment_length, int, "--segment-length"),
        teachers=tuple(teacher or [DEFAULT_TEACHER]),
        beta=beta,
        beta_unit=beta_unit,
        error_rate=error_rate,
        discount=discount,
        discount_from=discount_from,
        skip=skip,
        equal=equal,
        noise=noise,
        preference_noise=preference_noise,
        safety_noise=safety_noise,
        noise_margin=noise_margin,
        drift=drift,
        miss_rate=miss_rate,
        false_alarm_rate=false_alarm_rate,
        cost_limit=cost_limit,
        safety_threshold=safety_threshold,
        queries=queries,
        session=session,
        unsafe_share=unsafe_share,
        start_share=start_share,
        margin=None if margin is None else _numbers(margin, float, "--margin"),
        seed=seed,
    )
    members = None
    if ensemble is not None:
        if queries not in ACTIVE:
            raise typer.BadParameter(f"goes with active --queries: {', '.join(ACTIVE)}", param_hint="--ensemble")
        try:
            from presa.ensemble import learn_ensemble
        except ModuleNotFoundError as error:
            require_torch(error)
        members = learn_ensemble(ensemble, seed=seed)
    summary = label_dataset(dataset, config, ensemble=members, name=name, force=force)
    if as_json:
        print_json({"path": str(summary.path), "statistics": dict(summary.statistics)})
        return
    _show_statistics(summary.statistics)
    say(f"stored in {summary.path}")


def inspect(
    what: Annotated[str, typer.Argument(metavar="X", help="A dataset, or feedback: DATASET/NAME or a .zarr path.")],
    plot: Annotated[Path | None, typer.Option(help="Draw it.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a dataset or feedback holds.

    Of feedback: errors requested and realised, the teacher's reliability, margins and ties, how pure safe segments are,
    what was asked about, and where preference and safety part. Of a dataset: the same of its episodes.

    fbgen inspect feedbackgen/SafetyPointCircle1-v0/mixed-v0/default --plot feedback.png
    """
    from feedbackgen.episodes import dataset_info
    from feedbackgen.errors import DataError

    try:
        info = dataset_info(what)
    except DataError as error:
        if "not found" not in str(error):
            raise
        _inspect_feedback(what, plot, as_json)
        return
    _inspect_dataset(info, plot, as_json)


def _agreement(feedback: str) -> list:
    """How far people agree, where the feedback is theirs and their answers lie beside it."""
    from feedbackgen.annotation.answers import answers_path
    from feedbackgen.store import resolve_feedback

    store = resolve_feedback(feedback)
    dataset = store.parent.parent
    if not answers_path(dataset, store.stem).is_file():
        return []
    from feedbackgen.annotation.agreement import agreement

    return agreement(dataset, store.stem)


def replay(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Minari id, or path.")],
    episode: Annotated[int, typer.Argument(metavar="EPISODE", help="Its number, from 0.")],
    video: Annotated[Path | None, typer.Option(help="Write what a camera sees as an MP4.")] = None,
    size: Annotated[int, typer.Option(min=64, max=1080, help="Of the video, in pixels.")] = 480,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Play a stored episode again, exactly, and check it.

    It starts from the recorded states (`fbgen collect --state`), or from the reset seed and the actions; observations,
    rewards and costs must be those that are stored.

    fbgen replay feedbackgen/SafetyPointCircle1-v0/mixed-v0 3 --video episode.mp4
    """
    from feedbackgen.replay import replay as replay_episode

    done = replay_episode(dataset, episode, video=video, size=size, force=force)
    pairs: dict[str, object] = {
        "episode": done.index,
        "policy": done.policy,
        "seed": done.seed,
        "steps": done.n_steps,
        "return": done.return_,
        "cost": done.cost_return,
        "replayed from": "recorded states" if done.from_states else "seed and actions",
        "equal": "observations, rewards and costs, to the last bit",
    }
    if as_json:
        print_json(pairs)
    else:
        print_pairs(pairs)
    if video is not None:
        say(f"video in {video}")


def _numbers(words: str, kind, option: str) -> tuple:
    try:
        return tuple(kind(word) for word in words.split(","))
    except ValueError:
        raise typer.BadParameter(f"expected numbers separated by commas, got {words!r}", param_hint=option) from None


def _inspect_feedback(what: str, plot: Path | None, as_json: bool) -> None:
    from feedbackgen.inspection import as_json as in_json
    from feedbackgen.inspection import inspect_feedback

    found = inspect_feedback(what)
    attributes = found.attributes
    if plot is not None:
        from feedbackgen.plots import plot_feedback

        plot_feedback(found, title=f"{attributes['dataset_id']}, {found.name}", path=plot)
        say(f"picture in {plot}")
    measures = _agreement(what)
    if as_json:
        from dataclasses import asdict

        people = {"agreement": [asdict(measure) for measure in measures]} if measures else {}
        print_json({**attributes, "inspection": in_json(found), **people})
        return
    keys = ("dataset_id", "task", "source", "seed", "cost_limit")
    print_pairs({key: attributes[key] for key in keys if key in attributes})
    _show_statistics({**attributes.get("statistics", {}), **found.rates})
    low, middle, high = found.margin_quartiles
    print_pairs(
        {
            "margins": f"median {middle:.2f}, middle half {low:.2f} to {high:.2f} deviations of return differences",
            "ties": f"{found.n_equal_labels} labelled equal, {found.n_equal_returns} of equal returns",
        }
    )
    if found.plane is not None:
        print_pairs({"coverage": f"{found.plane.n_reached} of {found.plane.n_cells} cells of returns and costs"})
    _show_purity(found.purity, found.labels)
    if measures:
        from fbgen.people import show_agreement

        show_agreement(measures)


def _inspect_dataset(info, plot: Path | None, as_json: bool) -> None:
    from feedbackgen.episodes import episode_returns
    from feedbackgen.inspection import as_json as in_json
    from feedbackgen.inspection import inspect_dataset

    found = inspect_dataset(info.path)
    returns, costs, policies = episode_returns(info.path)
    if plot is not None:
        from feedbackgen.plots import plot_dataset

        plot_dataset(found, returns, costs, policies, cost_limit=info.cost_limit, title=info.dataset_id, path=plot)
        say(f"picture in {plot}")
    if as_json:
        from dataclasses import asdict

        print_json({**asdict(info), "path": str(info.path), "inspection": in_json(found)})
        return
    _show_dataset(info, (returns, costs, policies), None)
    print_pairs({"episodes": f"{found.lengths.min()} to {found.lengths.max()} steps"})
    if found.unsafe_better is not None:
        print_pairs(
            {
                "conflict": f"in {found.unsafe_better:.1%} of the pairs of episodes the better one is unsafe, "
                "the other safe"
            }
        )
        _show_statistics(found.rates)
    _show_purity(found.purity, {})


def _show_purity(purity, labels) -> None:
    if purity is None:
        return
    columns = ["segment length", "unsafe", "safe ones of unsafe episodes"]
    rows = []
    for length, unsafe, from_unsafe in zip(purity.lengths, purity.unsafe, purity.from_unsafe, strict=True):
        row = [str(length), f"{unsafe:.4f}", f"{from_unsafe:.4f}"]
        if labels:
            rate = labels.get(int(length))
            row.append(f"{rate['realised']:.4f} ({rate['low']:.4f} to {rate['high']:.4f})" if rate else "")
        rows.append(row)
    print_table([*columns, "labelled safe, of unsafe episodes"] if labels else columns, rows)


def _show_dataset(info, returns_costs_policies, plot: Path | None) -> None:
    returns, costs, policies = returns_costs_policies
    rows = []
    for policy in dict.fromkeys(policies):
        chosen = [index for index, name in enumerate(policies) if name == policy]
        rows.append((policy, len(chosen), f"{returns[chosen].mean():.1f}", f"{costs[chosen].mean():.1f}"))
    rows.append(("all", len(policies), f"{returns.mean():.1f}", f"{costs.mean():.1f}"))
    print_table(("policy", "episodes", "mean return", "mean cost"), rows)
    print_pairs(
        {
            "dataset": info.dataset_id,
            "path": info.path,
            "steps": info.n_steps,
            "returns": f"{info.return_min:.2f} to {info.return_max:.2f}",
            "costs": f"{costs.min():g} to {costs.max():g}",
            "safe": f"{(costs <= info.cost_limit).mean():.0%} of the episodes cost at most {info.cost_limit:g}",
            "fingerprint": info.fingerprint[:16],
        }
    )
    if plot is not None:
        from feedbackgen.plots import plot_returns

        plot_returns(returns, costs, policies, cost_limit=info.cost_limit, title=info.dataset_id, path=plot)
        say(f"picture in {plot}")


def _show_statistics(statistics) -> None:
    rates = {key: value for key, value in statistics.items() if isinstance(value, dict)}
    counts = {key.replace("_", " "): value for key, value in statistics.items() if key not in rates}
    if counts:
        print_pairs(counts)
    rows = [
        (
            name.replace("_", " "),
            "as it comes" if rate["expected"] is None else f"{rate['expected']:.4f}",
            "-" if rate["realised"] is None else f"{rate['realised']:.4f}",
            f"{rate['low']:.4f} to {rate['high']:.4f}",
        )
        for name, rate in rates.items()
    ]
    print_table(("rate", "requested", "realised", "95 % interval"), rows)
