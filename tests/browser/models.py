"""Small models that say what the tests expect: taught by heart, never ending, or without conversations.

`python models.py FOLDER` writes them: FOLDER/taught, FOLDER/endless, FOLDER/plain.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import torch

from microgpt.checkpoints.folder import write_folder
from microgpt.checkpoints.model import model_files
from microgpt.config.schema import ModelConfig
from microgpt.model.gpt import GPT, IGNORED
from microgpt.tokenizer.base import BOS, CHAT_TOKENS, Tokenizer
from microgpt.tokenizer.bpe import train_bpe
from microgpt.tokenizer.template import encode_turns

STORY = (
    "A grey cat lived at the harbour. Every morning it sat on the wall and waited for the boats. "
    "One day a boat came home with no fish at all, and the cat shared its breakfast with the crew."
)
HTML = '<b>bold</b> <img src="x" onerror="alert(1)"> <script>alert(2)</script> &amp; done'
TALKS = [
    [("user", "Hello!"), ("assistant", "Hello! How are you today?")],
    [("user", "Hello!"), ("assistant", "Good morning! What shall we talk about?")],
    [("user", "Tell me a story."), ("assistant", STORY)],
    [("user", "Show some HTML."), ("assistant", HTML)],
    [("user", "Who are you?"), ("assistant", "I am a small model, and I can say four things. 🐟")],
]


def taught(tokenizer: Tokenizer, steps: int = 150) -> GPT:
    """A GPT that knows `TALKS` by heart; after "Hello!" it may say either of two things."""
    torch.set_num_threads(1)
    rows = [
        [tokenizer.bos, *itertools.chain(*(turn.ids for turn in encode_turns(tokenizer, talk)))] for talk in TALKS
    ]
    length = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.bos] * (length - len(row)) for row in rows])
    targets = torch.tensor([row[1:] + [IGNORED] * (length - len(row) + 1) for row in rows])
    model = GPT(ModelConfig(n_layer=2, n_head=4, n_embd=64, block_size=256), tokenizer.vocab_size)
    model.init_weights(1)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    wanted = int((targets != IGNORED).sum())
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
        optimizer.zero_grad()
        (model.loss(ids, targets) / wanted).backward()
        optimizer.step()
    return model.eval()


def endless(tokenizer: Tokenizer) -> GPT:
    """A GPT that goes round in a circle of words and never ends its turn.

    Its embedding is the identity and its layers add nothing: the logits depend on the last token alone.
    """
    width = -(-tokenizer.vocab_size // 8) * 8
    shape = ModelConfig(n_layer=8, n_head=4, n_embd=width, block_size=8192, mlp="relu", mlp_hidden=4 * width)
    model = GPT(shape, tokenizer.vocab_size)
    model.init_weights(1)
    circle = tokenizer.encode_batch([" and on"])[0].tolist()
    assert len(circle) == len(set(circle))
    with torch.no_grad():
        model.wte.zero_()
        model.wte[:, : tokenizer.vocab_size] = torch.eye(tokenizer.vocab_size)
        assert model.lm_head is not None
        model.lm_head.zero_()
        for before, after in itertools.pairwise([*circle, circle[0]]):
            model.lm_head[after, before] = 50.0
        model.lm_head[circle[0], tokenizer.control["<assistant>"]] = 50.0
    return model.eval()


def main(folder: Path) -> None:
    """Write the models as an export has them."""
    texts = [text for talk in TALKS for _, text in talk if "🐟" not in text] * 4
    chat = train_bpe([*texts, " and on"], 400, (BOS, *CHAT_TOKENS))
    plain = train_bpe([STORY] * 4, 320, (BOS,))
    babbler = GPT(ModelConfig(n_layer=1, n_head=2, n_embd=16, block_size=64, init="normal"), plain.vocab_size)
    babbler.init_weights(3)
    for name, model, tokenizer in (
        ("taught", taught(chat), chat),
        ("endless", endless(chat), chat),
        ("plain", babbler.eval(), plain),
    ):
        write_folder(folder / name, model_files(model, tokenizer, {}), 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
