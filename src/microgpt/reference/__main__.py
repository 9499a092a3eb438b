"""Trains the reference model on a file of names and lets it invent new ones.

For example:
    python -m microgpt.reference                            the names that come with the project
    python -m microgpt.reference --download                 the published data: the published losses
    python -m microgpt.reference --input my-names.txt --steps 200
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import shlex
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from .corpus import DataError, download, embedded_names, read_documents
from .train import PRESETS, Revision, Training

COMMAND = "python -m microgpt.reference"
USAGE, BAD_DATA, DISK, INTERRUPTED, PIPE_CLOSED = 2, 3, 5, 130, 141


class Options(argparse.Namespace):
    """The command line, typed."""

    input: Path | None
    download: bool
    steps: int | None
    stop_after: int | None
    seed: int
    revision: Revision
    samples: int
    temperature: float


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line instead of repeating the usage."""

    def error(self, message: str) -> NoReturn:
        how = "" if " - " in message else f" - see {COMMAND} --help"
        self.exit(USAGE, f"error: {one_line(message)}{how}\n")


def whole_number(least: int) -> Callable[[str], int]:
    """An argument type: a whole number of at least `least`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r} will not do - give a whole number, {least} or more")
        return number

    return parse


def positive_number(text: str) -> float:
    """An argument type: a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0.0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} will not do - give a number above 0, such as 0.5")
    return number


def parse(arguments: Sequence[str]) -> Options:
    """The command line as options; exits with 2 and one line where it makes no sense."""
    parser = Parser(
        prog=COMMAND,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--input", type=Path, metavar="FILE", help="text file, one document a line")
    source.add_argument(
        "--download",
        action="store_true",
        help="the 32,033 names of the original, from $MICROGPT_DATA_DIR/names.txt or ./names.txt, "
        "fetched (228 KB) where neither is there",
    )
    parser.add_argument(
        "--steps",
        type=whole_number(1),
        metavar="N",
        help="documents to train on; the learning rate reaches 0 at N (default: 1000, or 500 for first)",
    )
    parser.add_argument(
        "--stop-after", type=whole_number(1), metavar="N", help="end after N steps, on the same schedule"
    )
    parser.add_argument("--seed", type=whole_number(0), default=42, help="default: 42")
    parser.add_argument(
        "--revision",
        choices=list(PRESETS),
        default="current",
        help="which version of the original program (default: current)",
    )
    parser.add_argument(
        "--samples", type=whole_number(0), default=20, metavar="N", help="texts to invent (default: 20)"
    )
    parser.add_argument(
        "--temperature",
        type=positive_number,
        default=0.5,
        metavar="T",
        help="low: likely and alike; high: wild (default: 0.5)",
    )
    options = parser.parse_args(arguments, namespace=Options())
    steps = options.steps or PRESETS[options.revision].max_steps
    if options.stop_after and options.stop_after > steps:
        parser.error(f"--stop-after {options.stop_after} is past the last step, {steps} - raise --steps too")
    return options


def one_line(text: str) -> str:
    """Text that is safe to print: what would steer the terminal or break the line is spelled out."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


@contextlib.contextmanager
def progress_bar(steps: int) -> Generator[Callable[[], object]]:
    """A bar below the printed lines, moved by calling what this yields. Only on a terminal with rich."""
    if not sys.stderr.isatty():  # spares the slow import too
        yield lambda: None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield lambda: None
        return
    # Rich lifts our printed lines above the bar, but only where both go to the terminal: `> log.txt`
    # must still receive them.
    bar = Progress(console=Console(stderr=True), redirect_stdout=sys.stdout.isatty(), transient=True)
    with bar:
        task = bar.add_task("training", total=steps)
        yield lambda: bar.advance(task)


def run(options: Options, arguments: Sequence[str]) -> None:
    """Reads, trains, samples; prints as it goes."""
    if options.input:
        path = options.input
    elif options.download:
        path = download(Path())
    else:
        path = embedded_names()
    preset = PRESETS[options.revision]
    preset = replace(preset, max_steps=options.steps or preset.max_steps)
    training = Training(read_documents(path), preset, options.seed)
    print(
        f"{len(training.documents)} documents | {training.tokenizer.vocab_size} tokens | "
        f"{len(training.model.parameters())} weights | {one_line(str(path))}",
        flush=True,
    )

    last = options.stop_after or preset.max_steps
    width = max(4, len(str(preset.max_steps)))
    with progress_bar(last) as advance:
        for step in training.steps():
            # Flushed, so that a pipe or a log file sees each step when it is done.
            print(f"step {step.number:{width}d} / {preset.max_steps} | loss {step.loss:.4f}", flush=True)
            advance()
            if step.number == last:
                break

    print()
    for number in range(1, options.samples + 1):
        print(f"sample {number:2d} | {one_line(training.sample(options.temperature))}", flush=True)
    if last < preset.max_steps:
        then, why = without_stop(arguments), "the whole schedule"
    elif options.input or options.download:
        then, why = shlex.join(["microgpt", "train", "--input", str(path)]), "a larger model, and faster"
    else:
        then, why = f"{COMMAND} --download", "the original's data, with published losses"
    print(f"\nnext: {one_line(then)}  ({why})")


def without_stop(arguments: Sequence[str]) -> str:
    """The command that was given, less its --stop-after."""
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--stop-after":
            next(words)
        elif not word.startswith("--stop-after="):
            rest.append(word)
    return shlex.join([*COMMAND.split(), *rest])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    0 done; 2 wrong usage; 3 a corpus that cannot be used; 5 nowhere to write to; 130 Ctrl-C; 141 the
    reader of the output is gone.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        # A corpus may hold characters that this terminal cannot show.
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        run(parse(arguments), arguments)
    except DataError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return BAD_DATA
    except KeyboardInterrupt:
        print("stopped - nothing was saved; the same command gives the same losses again", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        # Python flushes once more at exit, and would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # whoever read our output has left, as `| head` does
            return PIPE_CLOSED
        print(f"error: {one_line(str(error))} - check free space and permissions", file=sys.stderr)
        return DISK
    return 0


if __name__ == "__main__":
    sys.exit(main())
