"""From the start of a command to its first token (I3): `generate` and `chat-once`, against importing torch."""

from __future__ import annotations

import subprocess
import sys
import time

from common import arguments, compared, seconds
from random_models import random_model


def first_output(words: list[str]) -> float:
    """Seconds until a command has written its text, of one token."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "microgpt.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    if not process.stdout.read(1):
        raise SystemExit(f"{words} wrote nothing")
    spent = time.perf_counter() - started
    process.communicate()
    return spent


def main() -> None:
    given = arguments(__doc__ or "", 9)
    folder = str(random_model("tiny" if given.smoke else "small").path)
    once = ["chat-once", folder, "hello", "--max-new-tokens", "1", "--min-new-tokens", "0", "--device", "cpu"]
    text = ["generate", "-m", folder, "--num-samples", "1", "--max-new-tokens", "1", "--device", "cpu"]
    for name, words in (("generate", text), ("chat-once", once)):
        first_output(words)
        compared(
            f"start to first token, {name}, small: over `import torch`",
            lambda words=words: first_output(words),
            lambda: seconds([sys.executable, "-c", "import torch"]),
            given.rounds,
            "ours at most 0.5 s (I3)",
            "s",
        )


if __name__ == "__main__":
    main()
