"""Datasets that travel: publish, pull, verify and rebuild them; list, show, delete and combine those that are here."""

from pathlib import Path
from typing import Annotated

import typer

from fbgen.show import print_json, print_pairs, print_table, progress_bar, say

Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="Minari id, or path.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
ShowProgress = Annotated[
    bool | None, typer.Option("--progress/--no-progress", "-P", help="Bar; default on a terminal.")
]


def publish(
    dataset: Dataset,
    to: Annotated[str, typer.Option(metavar="TARGET", help="A folder, an fsspec URL (s3://...), or hf://ORG[/NAME].")],
    licence: Annotated[str, typer.Option(help="As the hub abbreviates it.")] = "cc-by-4.0",
    author: Annotated[list[str] | None, typer.Option(help="Repeat for several.")] = None,
    citation: Annotated[Path | None, typer.Option(help="A BibTeX file.")] = None,
    mirror: Annotated[list[str] | None, typer.Option(help="URL where it also lies; repeat for several.")] = None,
    repo_id: Annotated[str | None, typer.Option(help="ORG/NAME on the hub; default from the dataset's id.")] = None,
    private: Annotated[bool, typer.Option("--private", help="On the hub: not for everybody.")] = False,
    force: Force = False,
    as_json: Json = False,
    show_progress: ShowProgress = None,
) -> None:
    """Publish a dataset with its feedback, card and manifest.

    On the hub, log in with its own means before (`hf auth login`, or HF_TOKEN).

    fbgen publish feedbackgen/SafetyPointCircle1-v0/mixed-v0 --to s3://bucket/datasets
    """
    from feedbackgen.errors import StoreError
    from feedbackgen.sharing.bundle import Rights
    from feedbackgen.sharing.transfer import publish as publish_dataset

    if citation is not None and not citation.is_file():
        raise StoreError(f"--citation {citation}: no such file")
    rights = Rights(
        licence=licence,
        authors=tuple(author or ()),
        citation="" if citation is None else citation.read_text(),
        mirrors=tuple(mirror or ()),
    )
    with progress_bar("bytes", show_progress) as progress:
        done = publish_dataset(
            dataset, to, rights=rights, repository=repo_id, private=private, force=force, progress=progress
        )
    _show_transfer(done, "published at", as_json)


def pull(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Where it lies; more as fallbacks.")],
    force: Force = False,
    as_json: Json = False,
    show_progress: ShowProgress = None,
) -> None:
    """Fetch a published dataset into Minari's folder, each byte checked; an interrupted pull goes on.

    What one source lacks comes from the next, and from the mirrors that the card names.

    fbgen pull hf://org/SafetyPointCircle1-mixed
    """
    from feedbackgen.sharing.transfer import pull as pull_dataset

    with progress_bar("bytes", show_progress) as progress:
        done = pull_dataset(sources, force=force, progress=progress)
    _show_transfer(done, "lies in", as_json)


def verify(
    source: Annotated[str, typer.Argument(metavar="PATH|SOURCE", help="A bundle's folder, Minari id, or URL.")],
    as_json: Json = False,
    show_progress: ShowProgress = None,
) -> None:
    """Check a bundle byte by byte, and its card, tables and metadata against the data."""
    from feedbackgen.episodes import resolve_dataset
    from feedbackgen.errors import DataError
    from feedbackgen.sharing.verify import verify_source

    if "://" not in source and not Path(source).is_dir():
        source = str(resolve_dataset(source))
    with progress_bar("bytes", show_progress) as progress:
        manifest, faults = verify_source(source, progress=progress)
    if as_json:
        print_json({"source": source, "dataset_id": manifest.dataset_id, "faults": faults})
    else:
        for fault in faults:
            print(fault)
    if faults:
        count = f"{len(faults)} fault" + "s" * (len(faults) > 1)
        raise DataError(f"{source}: {count} in what was published; pull it again")
    if not as_json:
        print(f"{manifest.dataset_id}: {len(manifest.files)} files, {manifest.n_bytes:,} bytes, all as published")


def rebuild(
    dataset: Dataset,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the bytes are the same.")] = 1,
    as_json: Json = False,
    show_progress: ShowProgress = None,
) -> None:
    """Run a dataset's recipe and teacher again, and compare the bytes."""
    from dataclasses import asdict

    from feedbackgen.errors import DataError
    from feedbackgen.sharing.rebuild import rebuild as rebuild_dataset

    with progress_bar("episodes", show_progress) as progress:
        results = rebuild_dataset(dataset, workers=workers, progress=progress)
    if as_json:
        print_json({"dataset": dataset, "parts": [asdict(result) for result in results]})
    else:
        print_table(
            ("part", "bytes", "detail"),
            [(result.part, "equal" if result.equal else "differ", result.detail) for result in results],
        )
    different = [result.part for result in results if not result.equal]
    if different:
        raise DataError(f"{dataset}: built again, {' and '.join(different)} came out otherwise")


def list_(
    source: Annotated[
        str, typer.Argument(metavar="local|SOURCE", help="A folder, a URL, hf://ORG, or local.")
    ] = "local",
    as_json: Json = False,
) -> None:
    """List datasets: of this machine, or the bundles at a source."""
    if source != "local":
        from feedbackgen.sharing.places import list_bundles
        from feedbackgen.sharing.transfer import read_manifest

        manifests = [(place, read_manifest(place)) for place in list_bundles(source)]
        if as_json:
            rows = [{"source": place, "dataset_id": content.dataset_id} for place, content in manifests]
            print_json({"bundles": rows})
            return
        print_table(
            ("source", "task", "episodes", "feedback", "size"),
            [
                (
                    place,
                    content.task,
                    content.facts["dataset"]["n_episodes"],
                    ", ".join(content.facts["feedback"]) or "-",
                    f"{content.n_bytes / 1e6:.1f} MB",
                )
                for place, content in manifests
            ],
        )
        return
    from feedbackgen.sharing.catalogue import local_datasets
    from feedbackgen.sharing.facts import feedback_stores

    known, others = local_datasets()
    if as_json:
        entries = [{"dataset_id": info.dataset_id, "task": info.task, "path": str(info.path)} for info in known]
        print_json({"datasets": entries, "others": others})
        return
    print_table(
        ("dataset", "task", "episodes", "steps", "feedback"),
        [
            (
                info.dataset_id,
                info.task,
                info.n_episodes,
                f"{info.n_steps:,}",
                ", ".join(store.stem for store in feedback_stores(info.path)) or "-",
            )
            for info in known
        ],
    )
    for dataset_id in others:
        say(f"{dataset_id}: a Minari dataset without feedbackgen's metadata")


def show(
    source: Annotated[str, typer.Argument(metavar="DATASET|SOURCE", help="Minari id, bundle's folder, or URL.")],
    as_json: Json = False,
) -> None:
    """Show what a dataset or a bundle holds: the facts of its card."""
    from feedbackgen.episodes import dataset_info
    from feedbackgen.sharing.facts import dataset_facts, feedback_facts
    from feedbackgen.sharing.manifest import NAME
    from feedbackgen.sharing.transfer import read_manifest

    pairs: dict[str, object]
    if "://" in source or (Path(source) / NAME).is_file():
        manifest = read_manifest(source)
        facts = dict(manifest.facts)
        pairs = {"dataset": manifest.dataset_id, "task": manifest.task, "fingerprint": manifest.fingerprint}
        pairs |= {"licence": manifest.licence, "files": f"{len(manifest.files)}, {manifest.n_bytes:,} bytes"}
        pairs |= {"mirrors": ", ".join(manifest.mirrors) or "none"}
    else:
        info = dataset_info(source)
        facts = {"dataset": dataset_facts(info.path), "feedback": feedback_facts(info.path)}
        pairs = {"dataset": info.dataset_id, "task": info.task, "fingerprint": info.fingerprint, "path": info.path}
    if as_json:
        print_json({**{name: str(value) for name, value in pairs.items()}, "facts": facts})
        return
    data = facts["dataset"]
    pairs |= {
        "episodes": f"{data['n_episodes']:,}, {data['n_steps']:,} steps",
        "returns": f"{data['returns']['min']:.2f} to {data['returns']['max']:.2f}",
        "costs": f"{data['costs']['min']:g} to {data['costs']['max']:g}",
        "safe": f"{data['safe_episodes']:,} episodes cost at most {data['cost_limit']:g}",
    }
    for name, store in facts["feedback"].items():
        pairs[f"feedback {name}"] = (
            f"{store['preferences']:,} preferences, {store['safety_labels']:,} safety labels, {store['source']}"
        )
    print_pairs(pairs)


def delete(
    dataset: Dataset,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a dataset and its feedback from this machine."""
    from feedbackgen.episodes import resolve_dataset
    from feedbackgen.sharing.catalogue import delete as delete_dataset

    folder = resolve_dataset(dataset)
    if not yes:
        typer.confirm(f"Remove {folder} with its feedback?", abort=True)
    say(f"removed {delete_dataset(dataset)}")


def combine(
    datasets: Annotated[list[str], typer.Argument(metavar="DATASET...", help="Two or more, of one task.")],
    dataset_id: Annotated[str, typer.Option(help="Id of the new dataset, ending in -v0 or so.")],
    force: Force = False,
) -> None:
    """Make one dataset of several; seeds, policies, cost terms and recipes are kept."""
    from feedbackgen.sharing.catalogue import combine as combine_datasets

    info = combine_datasets(datasets, dataset_id, force=force)
    print_pairs(
        {"dataset": info.dataset_id, "path": info.path, "episodes": info.n_episodes, "steps": f"{info.n_steps:,}"}
    )


def _show_transfer(done, where: str, as_json: bool) -> None:
    if as_json:
        result = {"dataset_id": done.manifest.dataset_id, "place": done.place, "bytes_moved": done.n_moved}
        print_json(result)
        return
    manifest = done.manifest
    print(f"{manifest.dataset_id}: {len(manifest.files)} files, {manifest.n_bytes:,} bytes; {where} {done.place}")
