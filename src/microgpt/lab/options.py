"""What a session can be made of, for the page's form."""

from __future__ import annotations

from typing import Any

from microgpt.data.sources import CORPORA
from microgpt.lab.messages import Start
from microgpt.lab.panels import PANELS

#: trained numbers of a session; three times as many are kept for each recorded step
MOST_PARAMETERS = 30_000_000
PRESETS = ("micro_first", "micro", "tiny", "small", "medium", "nanogpt_shakespeare")


def options() -> dict[str, Any]:
    """Presets, corpora (those of `embedded` need no network), limits, and the schema of `Start`."""
    return {
        "models": list(PRESETS),
        "data": list(CORPORA),
        "embedded": [name for name, corpus in CORPORA.items() if not corpus.sha256],
        "tokenizers": ["char", "bpe"],
        "optimizers": ["adamw", "muon"],
        "panels": list(PANELS),
        "most_parameters": MOST_PARAMETERS,
        "start": Start.model_json_schema(),
    }
