"""``fbgen annotate``, ``fbgen render``: people as teachers."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fbgen.show import print_json, print_pairs, print_table, say

Force = Annotated[bool, typer.Option("--force", "-f", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="Minari id, or path.")]
Session = Annotated[str, typer.Option("--feedback", help="Name of the session, and of the feedback it becomes.")]


class _DatasetOrCommand(typer.core.TyperGroup):
    """`fbgen annotate DATASET` serves the page; `fbgen annotate export DATASET` and the like do what they say."""

    def resolve_command(self, ctx, args):
        if args and args[0] not in self.commands:
            return "serve", self.commands["serve"], args
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx, args):
        if args and args[0].startswith("-") and args[0] != "--help":
            args = ["serve", *args]
        return super().parse_args(ctx, args)


annotate = typer.Typer(
    cls=_DatasetOrCommand,
    no_args_is_help=True,
    help="Ask people: `fbgen annotate DATASET` serves a page; its answers are exported as feedback.",
)


@annotate.command("serve")
def serve(
    dataset: Dataset,
    feedback: Session = "human",
    queries: Annotated[int | None, typer.Option(help="Questions of each annotator; default 100.")] = None,
    ask: Annotated[str | None, typer.Option(help="preferences,safety (default), or one of them.")] = None,
    annotators: Annotated[int | None, typer.Option(help="People who may join; default 10.")] = None,
    segment_length: Annotated[int | None, typer.Option(help="Steps of a clip; default 64.")] = None,
    overlap: Annotated[float | None, typer.Option(help="Share of questions asked of everyone; default 0.2.")] = None,
    gold: Annotated[float | None, typer.Option(help="Share of questions with a known answer; default 0.1.")] = None,
    cost_limit: Annotated[
        float | None, typer.Option(help="Per episode, for known answers; default the task's.")
    ] = None,
    goal: Annotated[str | None, typer.Option(help="What the robot is there for; default the task's.")] = None,
    show: Annotated[str | None, typer.Option(help="Show under a clip: any of reward,cost,policy.")] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes every question; default 0.")] = None,
    invite: Annotated[list[str] | None, typer.Option(help="Give this person a link of their own; repeat.")] = None,
    size: Annotated[int, typer.Option(help="Width and height of a clip, in pixels.")] = 360,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8377,
    host: Annotated[
        str, typer.Option(help="Address to listen at; other than this machine's needs --token.")
    ] = "127.0.0.1",
    token: Annotated[str | None, typer.Option(envvar="FBGEN_TOKEN", help="Asked of whoever joins.")] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Serve the page where people label: `fbgen annotate DATASET`. Ctrl-C ends it; every answer is kept.

    A session that is there goes on; its questions were fixed when it was created.

    fbgen annotate feedbackgen/SafetyPointCircle1-v0/mixed-v0 --queries 100 --open
    """
    from feedbackgen.annotation.run import Welcome
    from feedbackgen.annotation.run import annotate as run_session

    wishes: dict[str, Any] = {
        "asks": None if ask is None else tuple(ask.split(",")),
        "n_queries": queries,
        "n_annotators": annotators,
        "segment_length": segment_length,
        "overlap": overlap,
        "gold": gold,
        "cost_limit": cost_limit,
        "goal": goal,
        "show": None if show is None else tuple(show.split(",")),
        "seed": seed,
    }

    def welcome(news: Welcome) -> None:
        print(f"open {news.join}", flush=True)
        for name, n_answered, link in news.links:
            print(f"{name}, {n_answered} of {news.n_queries} answered: {link}", flush=True)
        say(f"{news.n_queries} questions each for up to {news.n_places} people; answers go to {news.answers}")
        say("Ctrl-C ends; every answer is kept, and the same command goes on")
        if open_browser:
            import webbrowser

            webbrowser.open(news.links[0][2] if len(news.links) == 1 else news.join)

    run_session(
        dataset,
        name=feedback,
        wishes={key: value for key, value in wishes.items() if value is not None},
        host=host,
        port=port,
        token=token,
        invited=invite or (),
        size=size,
        welcome=welcome,
    )


@annotate.command("export")
def export(
    dataset: Dataset,
    feedback: Session = "human",
    labels: Annotated[
        str, typer.Option(help="One a question: majority or dawid-skene; one an answer: raw.")
    ] = "majority",
    with_gold: Annotated[bool, typer.Option("--with-gold", help="Also questions whose answer was known.")] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write the answers as feedback that `fbgen train` takes: `fbgen annotate export DATASET`."""
    from feedbackgen.annotation.export import export_answers

    summary = export_answers(dataset, feedback, aggregation=labels, with_gold=with_gold, force=force)
    if as_json:
        print_json({"path": str(summary.path), "statistics": summary.statistics})
        return
    print_pairs(
        {key.replace("_", " "): value for key, value in summary.statistics.items() if not isinstance(value, dict)}
    )
    say(f"stored in {summary.path}")


@annotate.command("report")
def report(dataset: Dataset, feedback: Session = "human", as_json: Json = False) -> None:
    """Say how far the annotators agree, so far: `fbgen annotate report DATASET`; `fbgen inspect` says it too.

    With each other, with the questions whose answer was known, and with the dataset's rewards and costs.
    """
    from dataclasses import asdict

    from feedbackgen.annotation.agreement import agreement

    measures = agreement(dataset, feedback)
    if as_json:
        print_json({"agreement": [asdict(measure) for measure in measures]})
        return
    if not measures:
        say("no answers yet")
        return
    show_agreement(measures)


def show_agreement(measures) -> None:
    rows = [
        (
            measure.kind,
            measure.name,
            measure.of,
            "-" if measure.value is None else f"{measure.value:.3f}",
            "-" if measure.low is None else f"{measure.low:.3f} to {measure.high:.3f}",
            measure.n,
        )
        for measure in measures
    ]
    print_table(("asked", "measure", "of", "value", "95 % interval", "n"), rows)


@annotate.command("merge")
def merge(
    stores: Annotated[list[str], typer.Argument(metavar="FEEDBACK...", help="DATASET/NAME or paths of .zarr stores.")],
    name: Annotated[str, typer.Option(help="Name of the feedback that holds them all.")],
    force: Force = False,
) -> None:
    """Join feedback on one dataset, people's and simulated alike.

    fbgen annotate merge DATASET/human DATASET/default --name both
    """
    from feedbackgen.annotation.export import merge_feedback

    say(f"stored in {merge_feedback(stores, name, force=force)}")


def render(
    dataset: Dataset,
    segment: Annotated[str, typer.Argument(metavar="SEGMENT", help="EPISODE:START:LENGTH, for example 3:120:64.")],
    out: Annotated[Path | None, typer.Option(help="The MP4; default segment-EPISODE-START-LENGTH.mp4.")] = None,
    size: Annotated[int, typer.Option(help="Width and height, in pixels.")] = 360,
    force: Force = False,
) -> None:
    """Film one segment, from recorded states or an exact replay.

    fbgen render feedbackgen/SafetyPointCircle1-v0/mixed-v0 3:120:64
    """
    from feedbackgen.annotation.clips import render_segment

    path = render_segment(
        dataset, segment, out or Path(f"segment-{segment.replace(':', '-')}.mp4"), size=size, force=force
    )
    say(f"film in {path}")
