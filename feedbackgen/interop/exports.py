"""The formats a dataset or its feedback can be exported to, by name."""

from pathlib import Path

from feedbackgen.errors import RecipeError
from feedbackgen.interop.dsrl import export_dsrl

FORMATS = ("dsrl",)


def export(what: str | Path, format_: str, out: Path | None = None, *, force: bool = False) -> Path:
    """Write a dataset or feedback in another format.

    Args:
        what: a dataset's Minari id or path, or feedback, as the format holds it.
        format_: one of `FORMATS`.
        out: file or folder; only DSRL's format has a place of its own.
        force: replace what is there.

    Returns:
        What was written.

    Raises:
        RecipeError: no such format, or no ``out`` where one is needed.
        DataError: the format cannot hold it; nothing is written.
        OutputExists: it is there and ``force`` is not given.
        StoreError: the disk is full, or the place cannot be written.
    """
    if format_ not in FORMATS:
        raise RecipeError(f"--format {format_}: expected one of {', '.join(FORMATS)}")
    return export_dsrl(what, out, force=force)
