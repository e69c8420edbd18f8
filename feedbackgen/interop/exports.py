"""The formats a dataset or its feedback can be exported to, by name."""

from collections.abc import Callable
from pathlib import Path

from feedbackgen.errors import RecipeError
from feedbackgen.interop.cpl import export_cpl
from feedbackgen.interop.dsrl import export_dsrl
from feedbackgen.interop.imitation_preferences import export_imitation
from feedbackgen.interop.omnisafe import export_omnisafe
from feedbackgen.interop.preference_transformer import export_preference_transformer
from feedbackgen.interop.tables import export_parquet, export_torch
from feedbackgen.interop.uni_rlhf import export_uni_rlhf

EXPORTS: dict[str, Callable[..., Path]] = {
    "dsrl": export_dsrl,
    "omnisafe": export_omnisafe,
    "cpl": export_cpl,
    "imitation": export_imitation,
    "uni-rlhf": export_uni_rlhf,
    "preference-transformer": export_preference_transformer,
    "parquet": export_parquet,
    "torch": export_torch,
}


def export(
    what: str | Path, format_: str, out: Path | None = None, *, python: Path | None = None, force: bool = False
) -> Path:
    """Write a dataset or feedback in another format.

    Args:
        what: a dataset's Minari id or path, or feedback, as the format holds it.
        format_: one of `EXPORTS`.
        out: file or folder; only DSRL's format has a place of its own.
        python: the interpreter that has imitation, for its format alone; default this one.
        force: replace what is there.

    Returns:
        What was written.

    Raises:
        RecipeError: no such format, no ``out`` where one is needed, or ``python`` where none is.
        MissingDependency: the format needs a package that is not installed.
        DataError: the format cannot hold it; nothing is written.
        OutputExists: it is there and ``force`` is not given.
        StoreError: no such feedback, the disk is full, or the place cannot be written.
    """
    if format_ not in EXPORTS:
        raise RecipeError(f"--format {format_}: expected one of {', '.join(EXPORTS)}")
    if python is not None and format_ != "imitation":
        raise RecipeError(f"--python {python}: goes with --format imitation alone, not {format_}")
    if format_ == "dsrl":
        return export_dsrl(what, out, force=force)
    if out is None:
        raise RecipeError(f"--format {format_}: say where to with --out PATH")
    if format_ == "imitation":
        return export_imitation(what, out, python=python, force=force)
    return EXPORTS[format_](what, out, force=force)
