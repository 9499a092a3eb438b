"""The model card: what a model was trained on, how, and how well it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from microgpt import files
from microgpt.checkpoints.model import ModelFolder
from microgpt.config.build import flat
from microgpt.config.schema import TrainConfig
from microgpt.data.sources import CORPORA
from microgpt.export.formats import Format


def model_card(
    opened: ModelFolder, config: TrainConfig | None, facts: dict[str, Any], run: Path | None, form: Format
) -> str:
    """Markdown for README.md of an export.

    Args:
        opened: the model.
        config: of its run, where it is known.
        facts: run.json of its run.
        run: the run folder, where an evaluation may be.
        form: of the export, which says how it is used.
    """
    data: dict[str, Any] = opened.meta.get("data", {})
    val: dict[str, Any] = opened.meta.get("val", {})
    lines = [*form.card_head, f"# {opened.meta.get('name', opened.path.name)}", ""]
    lines += ["A small GPT trained with microgpt.", ""]
    m = opened.config
    lines += [
        f"- shape: {m.n_layer} layers, {m.n_embd} wide, {m.n_head} heads, context of {m.block_size} tokens",
        f"- tokenizer: {opened.tokenizer.kind}, {opened.vocab_size:,} tokens",
        f"- trained for {opened.meta.get('step', 0):,} steps on {opened.meta.get('tokens', 0):,} tokens",
    ]
    if facts.get("git", {}).get("commit"):
        lines.append(f"- code: commit {facts['git']['commit']}")
    lines += ["", "## Data", ""]
    for source in data.get("sources", []):
        lines.append(f"- `{Path(source['path']).name}`, {source['bytes']:,} bytes, sha256 `{source['sha256']}`")
    if config is not None and not config.data.path:
        lines.append(f"- licence: {CORPORA[config.data.corpus].licence}")
    lines += ["", "## Scores", ""]
    lines += [f"- {key}: {value:.4f}" for key, value in val.items() if isinstance(value, float)]
    if run is not None and (run / "evaluation.json").exists():
        evaluation = files.read_json(run / "evaluation.json")
        lines.append(
            f"- whole validation set: loss {evaluation['loss']:.4f}, bigram baseline {evaluation['bigram_loss']:.4f}"
        )
    if config is not None:
        lines += ["", "## Config", "", "```"]
        lines += [f"{key}={value}" for key, value in flat(config).items() if value not in ("", [], None)]
        lines.append("```")
    chat = opened.tokenizer.is_chat
    lines += ["", "## Use", "", "```", (form.chat if chat else form.use).format(target="THIS_FOLDER"), "```", ""]
    if chat:
        lines += [
            "The conversation format goes along as a chat template; Hugging Face and llama.cpp render the same ids",
            "with it. One exception: text that spells a control token (`<end_turn>`) stays text in microgpt, while",
            "they read it as the control token. Remove such text before you use the template.",
            "",
        ]
    lines += [
        "Small models repeat what they have read and make things up. Do not rely on what it says.",
    ]
    return "\n".join(lines) + "\n"
