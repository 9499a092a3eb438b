"""The model card: what a model was trained on, how, how well it does, and how it is loaded."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from microgpt import files
from microgpt.checkpoints.model import ModelFolder
from microgpt.config.build import flat
from microgpt.config.schema import TrainConfig
from microgpt.data.sources import CORPORA
from microgpt.errors import visible
from microgpt.export.formats import Format
from microgpt.runs.find import Run
from microgpt.runs.folder import SAMPLES, read_lines

MOST_SAMPLES = 8
#: settings that name places on the machine of the run: a card is given to others
PLACES = ("data.path", "data.mixture", "init_from", "from_run", "resume")
UNKNOWN = "not known to this card: ask whoever has the data"


def model_card(
    opened: ModelFolder, config: TrainConfig | None, run: Run | None, form: Format, pictures: Iterable[str]
) -> str:
    """Markdown for README.md of an export.

    Args:
        opened: the model.
        config: of its run, where it is known.
        run: its run, where it is known.
        form: of the export, which says how it is used.
        pictures: files that lie beside the card.
    """
    lines = [*form.card_head, f"# {opened.meta.get('name', opened.path.name)}", "", *_what(opened, run)]
    lines += ["", "## Data", "", *_data(opened, config)]
    lines += ["", "## Scores", "", *_scores(opened, run)]
    if names := list(pictures):
        lines += ["", "## Curves", "", *(f"![{Path(name).stem} by step]({name})" for name in names)]
    if samples := _samples(opened, run):
        lines += ["", "## Samples", "", "As they came, not chosen:", "", *_fenced(samples)]
    if config is not None:
        kept = {k: v for k, v in flat(config).items() if v not in ("", [], None) and not k.startswith("tracking.")}
        lines += ["", "## Config", "", *_fenced(f"{k}={_without_places(k, v)}" for k, v in kept.items())]
    commands = [form.chat if opened.tokenizer.is_chat else form.use, *form.more]
    lines += ["", "## Use", "", *_fenced(c.format(target="THIS_FOLDER") for c in commands)]
    if opened.tokenizer.is_chat:
        lines += [
            "",
            "The conversation format goes along as a chat template; Hugging Face and llama.cpp render the same ids",
            "with it. One exception: text that spells a control token (`<end_turn>`) stays text in microgpt, while",
            "they read it as the control token. Remove such text before you use the template.",
        ]
    lines += ["", "## Limits", "", *_limits(opened)]
    return "\n".join(lines) + "\n"


def _fenced(texts: Iterable[str]) -> list[str]:
    """Texts in a fence that none of them can end."""
    shown = [visible(text) for text in texts]
    fence = "```"
    while any(fence in text for text in shown):
        fence += "`"
    return [fence, *shown, fence]


def _without_places(key: str, value: Any) -> Any:
    if key not in PLACES:
        return value
    return [Path(v).name for v in value] if isinstance(value, list) else Path(value).name


def _what(opened: ModelFolder, run: Run | None) -> list[str]:
    m, meta = opened.config, opened.meta
    lines: list[str] = []
    if origin := meta.get("imported"):
        lines += [f"Imported into microgpt from `{origin.get('name')}` ({origin.get('kind')}).", ""]
    else:
        lines += ["A small GPT trained with microgpt.", ""]
    lines += [
        f"- shape: {m.n_layer} layers, {m.n_embd} wide, {m.n_head} heads, context of {m.block_size} tokens",
        f"- parts: {m.norm}, {m.position} positions, {m.mlp} MLP{', qk-norm' if m.qk_norm else ''}",
        f"- tokenizer: {opened.tokenizer.kind}, {opened.vocab_size:,} tokens",
    ]
    if meta.get("step"):
        lines.append(f"- trained for {meta['step']:,} steps on {meta.get('tokens', 0):,} tokens")
    commit = run.facts.get("git", {}).get("commit") if run else None
    return [*lines, f"- code: commit {commit}"] if commit else lines


def _data(opened: ModelFolder, config: TrainConfig | None) -> list[str]:
    data: dict[str, Any] = opened.meta.get("data", {})
    if not data.get("sources"):
        return ["What this model was trained on is not known here: see where it comes from."]
    lines: list[str] = []
    for source in data["sources"]:
        if source.get("format") == "hub":
            lines.append(f"- `{source['path']}` of the Hugging Face hub; licence: see its page there")
        else:
            name = Path(source["path"]).name
            size = f"{source['bytes']:,} bytes, sha256 `{source['sha256']}`"
            lines.append(f"- `{name}`, {size}; licence: {licences().get(source['sha256'], UNKNOWN)}")
    if config is not None and config.data.mixture:
        lines.append(f"- mixed by weight: {', '.join(Path(entry).name for entry in config.data.mixture)}")
    sizes: list[Mapping[str, int]] = [data.get("train", {}), data.get("val", {})]
    if all("documents" in size for size in sizes):
        lines.append(f"- {sizes[0]['documents']:,} documents to train on, {sizes[1]['documents']:,} held out")
    if data.get("fingerprint"):
        lines.append(f"- digest of all: `{data['fingerprint']}`")
    return lines


@functools.cache
def licences() -> dict[str, str]:
    """The licence of each named data set, by the sha256 of its file."""
    return {
        corpus.sha256 or files.sha256_file(files.shipped("corpora") / corpus.file): corpus.licence
        for corpus in CORPORA.values()
    }


def _evaluation(opened: ModelFolder, run: Run | None) -> dict[str, Any]:
    """What evaluating this very checkpoint found, or nothing."""
    if run is None or not (run.path / "evaluation.json").exists():
        return {}
    found: dict[str, Any] = files.read_json(run.path / "evaluation.json")
    return found if Path(str(found.get("checkpoint"))).name == opened.path.resolve().name else {}


def _scores(opened: ModelFolder, run: Run | None) -> list[str]:
    val: dict[str, Any] = opened.meta.get("val", {})
    lines = [f"- {key}: {value:.4f}" for key, value in val.items() if isinstance(value, float)]
    if found := _evaluation(opened, run):
        lines.append(f"- whole validation set: loss {found['loss']:.4f}, bigram baseline {found['bigram_loss']:.4f}")
        if found.get("bits_per_byte") is not None:
            lines.append(f"- whole validation set: {found['bits_per_byte']:.4f} bits a byte")
    return lines or ["It was not scored here."]


def _samples(opened: ModelFolder, run: Run | None) -> list[str]:
    """Samples of this checkpoint: those of its evaluation, or the last ones drawn on the way to it."""
    if found := _evaluation(opened, run):
        return list(found.get("samples", []))[:MOST_SAMPLES]
    last: list[str] = []
    for _, line in read_lines(run.path / SAMPLES) if run else ():
        if line.get("step", 0) <= opened.meta.get("step", 0):
            texts: list[str] = line.get("samples", [])
            prompts: list[str] = line.get("prompts", [])
            last = [f"{prompt} -> {text}" for prompt, text in zip(prompts, texts)] if prompts else texts
    return last[:MOST_SAMPLES]


def _limits(opened: ModelFolder) -> list[str]:
    lines = [
        "- Small models repeat what they have read and make things up. Do not rely on what it says.",
        "- It knows nothing but its data, has every bias of it, and was not trained to refuse anything.",
        f"- It reads at most {opened.config.block_size:,} tokens at a time; what stood before is forgotten.",
    ]
    if not opened.tokenizer.is_chat:
        lines.append("- It goes on with a text; it was not trained to follow instructions or to hold a conversation.")
    if opened.tokenizer.kind == "char":
        alphabet = opened.vocab_size - len(opened.tokenizer.control)
        lines.append(f"- It reads the {alphabet} characters of its data and refuses all others.")
    return lines
