"""The proof of an export: the program that it is for gives what the project's own model gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from microgpt import files
from microgpt.checkpoints.model import ModelFolder
from microgpt.errors import ModelError
from microgpt.export.runtimes import Runtime
from microgpt.export.vocabulary import end_tokens
from microgpt.tokenizer.char import CharTokenizer

PROMPTS, LONGEST, GREEDY = 64, 256, 100
#: what a tokenizer can get wrong: spaces, line ends, digits, contractions, accents, scripts, joined emoji
TORTURE = (
    "  Hello, world!\t\n\n\r\n don't we'll I'M 3.14159 1000000 --- a_b <tag> {{x}} 'quoted' \"both\" \n "
    " naïve café e\u0301 Straße ﬁ İ 日本語 한국어 العربية עברית हिन्दी \u200b\u00a0\u2003x "
    "😀👩‍👩‍👧🇩🇪 𝕏 \ufeff ... \\ / % ^ ~ ` | end   "
)
MEND = "use format=safetensors, and report this with the model's config"


def torture_text(folder: ModelFolder) -> str:
    """The text whose ids must be equal; for a char tokenizer what of it the alphabet has, and the alphabet itself."""
    tokenizer = folder.tokenizer
    if isinstance(tokenizer, CharTokenizer):
        known = set(tokenizer.characters)
        return "".join(c for c in TORTURE if c in known) + "".join(reversed(tokenizer.characters))
    return TORTURE


def prompts_for(folder: ModelFolder) -> list[list[int]]:
    """Random prompts that begin with BOS, 1 to 256 tokens long but shorter than the context; the same every time."""
    generator = np.random.default_rng(0)
    longest = min(LONGEST, folder.config.block_size - 1)
    lengths = [1 + (longest - 1) * i * i // (PROMPTS - 1) ** 2 for i in range(PROMPTS)]
    vocabulary = folder.vocab_size
    return [[folder.tokenizer.bos, *generator.integers(0, vocabulary, n - 1).tolist()] for n in lengths]


def prove(folder: ModelFolder, own: Runtime, runtime: Runtime, tolerance: float) -> dict[str, Any]:
    """Compare a runtime with the model that was exported.

    Args:
        folder: what was exported.
        own: has it loaded in the project's own code.
        runtime: has the export loaded.
        tolerance: largest difference of a log-probability in nats.

    Returns:
        What was compared and how far apart it is.

    Raises:
        ModelError: text becomes other ids, a log-probability differs by more, or another token is likeliest by more.
    """
    text = torture_text(folder)
    wanted, found = own.encode(text), runtime.encode(text)
    if wanted != found:
        at = next((i for i, (a, b) in enumerate(zip(wanted, found)) if a != b), min(len(wanted), len(found)))
        raise ModelError(
            f"{runtime.name} reads the same text as other tokens, from token {at} on: "
            f"{found[at : at + 3]} instead of {wanted[at : at + 3]}",
            MEND,
        )
    prompts = prompts_for(folder)
    worst, same = 0.0, 0
    for prompt in prompts:
        ours, theirs = own.scores(prompt), runtime.scores(prompt)
        said = ~np.isnan(theirs)
        worst = max(worst, float(np.abs(ours - theirs)[said].max())) if said.any() else np.inf
        if worst > tolerance:
            raise ModelError(
                f"{runtime.name} gives other results: log-probabilities differ by {worst:.2g} nats, "
                f"{tolerance:g} is allowed",
                MEND,
            )
        same += int(ours.argmax() == np.nanargmax(theirs))
    drawn, alike = greedy_alike(folder, own, runtime, prompts, tolerance)
    return {
        "runtime": runtime.name,
        "prompts": len(prompts),
        "max_difference": worst,
        "tolerance": tolerance,
        "same_choice": same / len(prompts),
        "greedy_tokens": drawn,
        "greedy_same": alike,
        "text_tokens": len(wanted),
    }


def greedy_alike(
    folder: ModelFolder, own: Runtime, runtime: Runtime, prompts: list[list[int]], tolerance: float
) -> tuple[int, int]:
    """Draw 100 greedy tokens from both. Where they part, the two tokens must be as good as equally likely.

    Returns:
        (tokens drawn, tokens that are the same).
    """
    end = end_tokens(folder.tokenizer)
    drawn = alike = 0
    for prompt in prompts:
        count = min(GREEDY - drawn, folder.config.block_size - len(prompt))
        if count <= 0:
            break
        ours, theirs = own.greedy(prompt, count, end), runtime.greedy(prompt, count, end)
        parted = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        drawn += len(ours)
        alike += parted
        if parted == len(ours) == len(theirs):
            continue
        scores = own.scores([*prompt, *ours[:parted]])
        chosen = [scores[end].max() if len(ids) == parted else scores[ids[parted]] for ids in (ours, theirs)]
        if not chosen[0] - chosen[1] <= 2 * tolerance:
            raise ModelError(
                f"{runtime.name} writes another text: after {len(prompt) + parted} tokens it takes one that is less "
                f"likely by {chosen[0] - chosen[1]:.2g} nats",
                MEND,
            )
    return drawn, alike


def proof_text(proof: dict[str, Any]) -> str:
    """The proof for the model card.

    Args:
        proof: what `prove` returned, with `files`: size and sha256 by name.
    """
    lines = ["", "## Proof", ""]
    if "prompts" in proof:
        lines += [
            f"Loaded in {proof['runtime']} and compared with the checkpoint in the project's own model:",
            "",
            f"- {proof['prompts']} prompts: log-probabilities differ by at most {proof['max_difference']:.2g} nats "
            f"({proof['tolerance']:g} is allowed); the likeliest token is the same in {proof['same_choice']:.1%}",
            f"- {proof['greedy_tokens']} tokens drawn greedily: {proof['greedy_same']} are the same",
            f"- a text of {proof['text_tokens']} tokens that is hard on tokenizers: the same ids",
        ]
    else:
        lines += [
            f"Read back with {proof['runtime']}: every tensor is, byte for byte, what the checkpoint's becomes."
        ]
    lines += ["", "| file | bytes | sha256 |", "|---|---|---|"]
    lines += [f"| `{name}` | {entry['bytes']:,} | `{entry['sha256']}` |" for name, entry in proof["files"].items()]
    return "\n".join(lines) + "\n"


def files_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of each file of an export."""
    paths = sorted(p for p in folder.iterdir() if p.is_file())
    return {p.name: {"bytes": p.stat().st_size, "sha256": files.sha256_file(p)} for p in paths}
