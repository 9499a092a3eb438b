"""The dial: typed keys win over it, what it sets is checked and saved, and the table in the docs is what it gives."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from microgpt.config.auto import Facts, resolved
from microgpt.config.build import build, plain
from microgpt.config.compose import compose, overlaid
from microgpt.config.depth import EPOCHS, TOKENS_A_PARAMETER, plan
from microgpt.config.schema import TrainConfig
from microgpt.errors import UsageError
from microgpt.model.shapes import parameter_shapes

PAGE = Path(__file__).parents[2] / "docs" / "what-to-try.md"


def parameters(config: TrainConfig, vocab_size: int = 4096) -> int:
    return sum(math.prod(s) for s in parameter_shapes(config.model, vocab_size).values())


def filled(words: list[str], train_tokens: int = 10**12) -> TrainConfig:
    config = compose(words)
    return resolved(config, Facts(100, 10**6, train_tokens, parameters(config)))


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_table_of_the_page_is_what_the_dial_gives() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(depth) for depth, _ in rows] == list(range(1, 13))
    for depth, rest in rows:
        c = filled([f"model.depth={depth}"])
        m, o, t = c.model, c.optimizer, c.trainer
        given = [m.n_embd, m.n_head, parameters(c), o.learning_rate, c.data.batch_size, t.accumulate, t.max_steps]
        told = [float(cell.replace(",", "")) for cell in rest.split(" | ")]
        assert m.n_layer == int(depth)
        assert [float(f"{v:.3g}") if isinstance(v, float) else v for v in given] == told, f"depth {depth}"


def test_typed_keys_win_and_a_preset_does_not() -> None:
    model = compose(["model=small", "model.depth=3", "model.n_embd=96"]).model
    assert (model.n_layer, model.n_embd, model.n_head, model.block_size) == (3, 96, 3, 512)
    c = filled(["model.depth=2", "data.batch_size=8", "trainer.max_steps=50", "optimizer.learning_rate=0.5"])
    assert (c.data.batch_size, c.trainer.accumulate, c.trainer.max_steps) == (8, 1, 50)
    assert c.optimizer.learning_rate == 0.5
    twice = filled(["model.depth=4", "trainer.accumulate=4"])
    assert twice.trainer.accumulate == 4
    assert twice.data.batch_size == 32, "the rows of a step are as without"
    assert build(TrainConfig, plain(c)) == c, "filled once, it stays"


def test_the_tokens_are_twenty_a_parameter_or_four_epochs() -> None:
    for size, data in ((10**6, 10**12), (10**6, 10**6), (10**8, 10**7)):
        p = plan(size, 256, data)
        tokens = p.batch_size * p.accumulate * p.steps * 256
        wanted = min(TOKENS_A_PARAMETER * size, EPOCHS * data)
        assert 0.9 * wanted < tokens <= wanted
        assert p.steps >= 100
    # the power law: 1000 times the operations are 1000^0.3271 = 9.6 times the tokens a step
    small, large = plan(10**6, 16, 10**12), plan(32 * 10**6, 16, 10**12)
    ratio = large.batch_size * large.accumulate / (small.batch_size * small.accumulate)
    assert 0.5 < ratio / 1024**0.3271 < 2


@pytest.mark.parametrize("word", ["model.depth=0", "model.depth=2.5", "model.depth=many", "model.depth=129"])
def test_a_depth_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match=r"model\.depth"):
        compose([word])


def test_a_typed_key_that_does_not_fit_the_dial_is_refused() -> None:
    with pytest.raises(UsageError, match=r"model\.n_embd=100: must be divisible by model\.n_head=3"):
        compose(["model.depth=3", "model.n_embd=100"])


def test_a_saved_run_keeps_its_depth() -> None:
    words = ["model.depth=2"]
    saved = plain(filled(words))
    assert overlaid(saved, words, compose(words)).model.n_embd == 128
    for had, typed in ((saved, "model.depth=3"), (plain(compose([])), "model.depth=2")):
        with pytest.raises(UsageError, match=r"leave model\.depth out"):
            overlaid(had, [typed], compose([typed]))
