"""The command line: each command parses, calls one function of the package, and prints.

Data go to stdout; progress and errors go to stderr. Exit codes: 0 done, 1 a failure inside
synthaug, 2 bad input (one line says which), 130 interrupted. Heavy imports happen inside the
commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import warnings
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from synthaug import __version__
from synthaug.cli.compare import compare_command
from synthaug.cli.convert import convert_command
from synthaug.cli.demo import demo_command
from synthaug.cli.edit import edit_command
from synthaug.cli.evaluate import evaluate_command
from synthaug.cli.filter import filter_command
from synthaug.cli.fit import fit_command
from synthaug.cli.generate import generate_command
from synthaug.cli.info import info_command
from synthaug.cli.pretrain import pretrain_command
from synthaug.cli.progress import tell
from synthaug.cli.recreate import recreate_command
from synthaug.cli.report import report_command
from synthaug.cli.run import run_command
from synthaug.cli.segment import segment_command
from synthaug.errors import InputError

_UsageError: Any = typer.BadParameter.__base__
"""What typer raises for options that it does not know; it brings a click of its own."""


_HOME = re.compile(r"^(--[\w-]+=)?~(?=/|$)")
"""Begins a word that is a path in the home folder, or an option with one, as shells leave it."""


class _Group(TyperGroup):
    """Turns what a user can mend into one line and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        home = os.path.expanduser("~")
        words = [_HOME.sub(lambda found: (found[1] or "") + home, word) for word in args]
        return super().parse_args(ctx, words)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (InputError, _UsageError) as error:
            words = (
                str(error)
                if isinstance(error, InputError)
                else f"{error.format_message()} Try --help."
            )
            tell(f"error: {' '.join(words.split())}")
            raise typer.Exit(2) from error
        except OSError as error:
            if error.filename is None or isinstance(error, BrokenPipeError):
                raise
            tell(f"error: cannot use {error.filename}: {error.strerror}; check the path and rights")
            raise typer.Exit(2) from error
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's, which may not be loaded
                raise
            from synthaug.devices import NO_MEMORY

            tell(f"error: {NO_MEMORY}")
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(130) from error


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,
    help="Turn one labelled image into synthetic image+mask pairs for training segmenters.",
)
app.command("demo")(demo_command)
app.command("fit")(fit_command)
app.command("pretrain")(pretrain_command)
app.command("generate")(generate_command)
app.command("edit")(edit_command)
app.command("segment")(segment_command)
app.command("recreate")(recreate_command)
app.command("filter")(filter_command)
app.command("evaluate")(evaluate_command)
app.command("compare")(compare_command)
app.command("report")(report_command)
app.command("run")(run_command)
app.command("convert")(convert_command)
app.command("info")(info_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"synthaug {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    # albumentations asks the package index for news at import unless told not to.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    # Pillow warns of pictures of half the size that it refuses.
    warnings.filterwarnings("ignore", "Image size .* decompression bomb")


def main() -> None:
    """Run the command line.

    SIGTERM, which batch systems and containers send, stops as Ctrl-C, and so does SIGHUP, of a
    terminal that is closed, unless nohup has it ignored.
    """
    deaf = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as a script's background jobs are

    def stop(*_: object) -> None:
        if deaf and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # no SIGHUP on Windows
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold what it cannot encode
    try:
        app()
    except SystemExit:
        lost = _flush()
        if lost is None or isinstance(lost, BrokenPipeError):
            raise
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _flush()
        lost = error
    else:
        return
    tell(f"error: cannot write output: {lost.strerror}; what was finished is there")
    raise SystemExit(2)


def _flush() -> OSError | None:
    """Write out what was printed; return why stdout does not take it.

    What is not taken is dropped, else the interpreter would try again at its end, and complain.
    """
    lost = None
    for stream in (sys.stderr, sys.stdout):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError as error:
            lost = error if stream is sys.stdout else None
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    return lost
