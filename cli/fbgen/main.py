"""The ``fbgen`` command: parse, call one library function, show. Library code is imported where a command needs it."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

import typer

from fbgen.data import collect, inspect, label, replay
from fbgen.exchange import export, imports
from fbgen.learn import benchmark, benchmark_report, evaluate, report, train
from fbgen.people import annotate, render
from fbgen.share import combine, delete, list_, publish, pull, rebuild, show, verify
from fbgen.world import doctor, policies, tasks

app = typer.Typer(
    no_args_is_help=True,
    # Rich would spend two thirds of the time that `--help` takes on a Markdown parser.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Make offline data, simulate human feedback on it, and train safe policies from that feedback.",
)
COMMANDS: tuple[Callable[..., None], ...] = (
    *(tasks, collect, label, train, evaluate, report, benchmark, inspect, replay, render, export, doctor),
    *(publish, pull, verify, rebuild, show, delete, combine),
)
for command in COMMANDS:
    app.command()(command)
app.command("benchmark-report")(benchmark_report)
app.command("list")(list_)
app.add_typer(policies, name="policies")
app.add_typer(annotate, name="annotate")
app.add_typer(imports, name="import")


@app.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", "-v", help="Print the version and exit.")) -> None:
    if show:
        from importlib.metadata import version as installed_version

        print(installed_version("feedbackgen"))
        raise typer.Exit


class Interrupted(BaseException):
    """Ctrl-C; typer would turn a KeyboardInterrupt into a bare «Aborted»."""


def main() -> None:
    """Run the command; what the user can put right ends in one line and exit code 1, never in a traceback."""
    _on_interrupt(_interrupt)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except Interrupted:
        _fail("interrupted; nothing was left half-written; collect and train go on with --resume")
    except BrokenPipeError:
        # The reader of our output has gone (head, say): that is no failure of ours.
        _drop_output()
        sys.exit(1)
    except Exception as error:
        # The library raises these; it may not have been imported before.
        from feedbackgen.errors import FeedbackgenError

        if isinstance(error, OSError) and not isinstance(error, FeedbackgenError) and error.filename is not None:
            _fail(f"{error.filename}: {error.strerror}")
        # What the library writes comes as its own errors, so only what we print is left.
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO):
            _drop_output()
            _fail(f"standard output: {error.strerror}; the results could not be printed")
        if not isinstance(error, FeedbackgenError):
            raise
        _fail(str(error))


def _interrupt(number, frame) -> None:
    if _is_importing(frame):
        # What is raised into PyTorch's own imports aborts the process; so ask again in a moment.
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        return
    # A second Ctrl-C, or one that was put off, must not break into the cleaning up after the first.
    _on_interrupt(signal.SIG_IGN)
    raise Interrupted


def _on_interrupt(handler) -> None:
    for number in (signal.SIGINT, signal.SIGALRM):
        signal.signal(number, handler)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


def _drop_output() -> None:
    # What is still in the buffer would fail once more at exit, with a traceback.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> None:
    print(f"fbgen: {message}", file=sys.stderr)
    sys.exit(1)
