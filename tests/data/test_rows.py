"""What stands in any row is a function of (seed, epoch, row) alone, and an epoch is every position once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microgpt.data.batches import Batches, document_ids
from microgpt.data.order import content_share, hashed, key_of, permuted
from microgpt.data.rows import Rows, arrange
from microgpt.data.shards import SetWriter, TokenSet, open_set

BOS = 999


def token_set(folder: Path, lengths: list[int], masks: list[list[int]] | None = None) -> TokenSet:
    """Documents of these lengths; token i of document d is d * 100 + i."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = SetWriter(folder, "train", "uint16", BOS, masked=masks is not None)
    for d, length in enumerate(lengths):
        ids = (np.arange(length) + d * 100) % 60_000
        writer.add(ids, None if masks is None else np.array(masks[d], np.uint8))
    writer.close()
    return open_set(folder, "train", "uint16")


def lengths_of(count: int, most: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(1, most, count).tolist()


# order


@given(st.integers(1, 5000), st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_the_keyed_order_is_a_permutation(size: int, key: int) -> None:
    assert np.array_equal(np.sort(permuted(np.arange(size), size, key)), np.arange(size))


def test_the_keyed_order_is_a_permutation_for_all_small_sizes() -> None:
    for size in range(1, 300):
        assert np.array_equal(np.sort(permuted(np.arange(size), size, size)), np.arange(size))


@given(st.integers(2, 5000), st.integers(0, 2**64 - 1), st.data())
@settings(max_examples=40, deadline=None)
def test_a_part_of_the_order_is_had_without_the_rest(size: int, key: int, data: st.DataObject) -> None:
    at = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=9))
    whole = permuted(np.arange(size), size, key)
    assert np.array_equal(permuted(np.array(at), size, key), whole[at])
    assert permuted(np.array([at]), size, key).shape == (1, len(at))


def test_other_keys_give_other_orders_that_are_well_mixed() -> None:
    first, second = (permuted(np.arange(1000), 1000, key_of(seed)) for seed in (1, 2))
    assert (first == second).mean() < 0.02
    assert abs(np.corrcoef(first, np.arange(1000))[0, 1]) < 0.15
    assert len(set(hashed(np.arange(1000), 7).tolist())) == 1000


def test_shares_are_even_and_depend_on_the_content_alone() -> None:
    shares = [content_share(f"name {i}") for i in range(4000)]
    assert shares == [content_share(f"name {i}") for i in range(4000)]
    counts, _ = np.histogram(shares, bins=10, range=(0, 1))
    assert counts.min() > 320
    assert counts.max() < 480


# arrange


PIECES = st.integers(1, 24).flatmap(
    lambda block: st.tuples(st.just(block), st.lists(st.integers(1, 3 * block), min_size=1, max_size=30))
)


@given(PIECES)
@settings(max_examples=200, deadline=None)
def test_arranging_keeps_every_position_and_fills_rows(case: tuple[int, list[int]]) -> None:
    block, lengths = case
    begins = (np.cumsum(lengths) - lengths).tolist()
    total = sum(lengths)
    rows = -(-total // block)
    starts, sizes = arrange(begins, lengths, rows, block)
    covered = np.concatenate([np.arange(s, s + n) for s, n in zip(starts.tolist(), sizes.tolist())])
    assert np.array_equal(np.sort(covered), np.arange(total))
    ends = np.cumsum(sizes)
    for row in range(1, total // block + 1):
        assert row * block in ends, "a piece stands across the border of two rows"


@given(PIECES)
@settings(max_examples=200, deadline=None)
def test_arranging_is_best_fit_and_cuts_only_where_nothing_fits(case: tuple[int, list[int]]) -> None:
    block, lengths = case
    begins = (np.cumsum(lengths) - lengths).tolist()
    rows = -(-sum(lengths) // block)
    starts, sizes = arrange(begins, lengths, rows, block)
    waiting = dict(zip(begins, lengths))
    room = block
    for start, size in zip(starts.tolist(), sizes.tolist()):
        fitting = [n for n in waiting.values() if n <= room]
        whole = waiting.pop(start)
        if fitting:
            assert size == whole == max(fitting), "not the largest piece that fits"
        else:
            assert (size, whole) == (room, max([whole, *waiting.values()])), "not the longest was cut"
            waiting[start + size] = whole - size
        room = room - size or block


# rows


@pytest.mark.parametrize("block", [2, 7, 16, 64])
@pytest.mark.parametrize("case", ["short", "long", "mixed", "one"])
def test_an_epoch_is_every_position_once_but_for_the_dropped_row(case: str, block: int, tmp_path: Path) -> None:
    lengths = {"short": lengths_of(900, 9), "long": [400, 333, 1000], "mixed": lengths_of(300, 90), "one": [3000]}
    tokens = token_set(tmp_path, lengths[case])
    rows = Rows(tokens, block, seed=3, packing=True)
    assert rows.per_epoch == tokens.positions // block
    for epoch in (0, 1, 5):
        index = rows.take(epoch * rows.per_epoch, rows.per_epoch).index
        assert index.min() >= 0, "training rows are full"
        assert len(np.unique(index)) == index.size == rows.per_epoch * block
        assert tokens.positions - index.size < block


@pytest.mark.parametrize("block", [7, 16])
def test_segments_and_positions_tell_pieces_of_documents_apart(block: int, tmp_path: Path) -> None:
    tokens = token_set(tmp_path, lengths_of(400, 40))
    made = Rows(tokens, block, seed=1, packing=True).take(0, 200)
    document = np.searchsorted(tokens.starts, made.index, side="right") - 1
    follows = np.diff(made.index, axis=1) == 1
    same = np.diff(made.segments, axis=1) == 0
    assert not (same & (np.diff(document, axis=1) != 0)).any(), "a segment holds two documents"
    assert (follows | ~same).all(), "a segment has a gap"
    assert (np.diff(made.positions, axis=1) == 1)[same].all()
    assert (made.positions[:, 1:][~same] == 0).all()
    assert (made.positions[:, 0] == 0).all()
    for row in made.segments:  # a segment comes once in a row
        assert len(np.unique(row)) == 1 + int((np.diff(row) != 0).sum())


def test_best_fit_cuts_half_as_many_documents_as_a_plain_stream(tmp_path: Path) -> None:
    tokens = token_set(tmp_path, lengths_of(3000, 60))
    made = Rows(tokens, 64, seed=1, packing=True).take(0, tokens.positions // 64)
    cut = int((~np.isin(made.index[made.positions == 0], tokens.starts)).sum())
    plain = int((~np.isin(np.arange(0, tokens.positions, 64), tokens.starts)).sum())
    assert cut < plain / 2


def test_the_order_is_the_same_for_any_history_of_calls(tmp_path: Path) -> None:
    tokens = token_set(tmp_path, lengths_of(2500, 40))
    straight = Rows(tokens, 16, seed=5, packing=True)
    per = straight.per_epoch
    assert per > 64 * 10, "several chunks"
    wanted = np.concatenate([straight.take(i, 1).index for i in range(0, 3 * per, 97)])
    rng = np.random.default_rng(0)
    for _ in range(2):
        other = Rows(tokens, 16, seed=5, packing=True)
        numbers = list(range(0, 3 * per, 97))
        got = {int(n): other.take(int(n), 1).index for n in rng.permutation(numbers)}
        assert np.array_equal(np.concatenate([got[n] for n in numbers]), wanted)
    across = Rows(tokens, 16, seed=5, packing=True).take(per - 100, 200).index
    apart = [straight.take(n, 1).index for n in range(per - 100, per + 100)]
    assert np.array_equal(across, np.concatenate(apart))


def test_seeds_and_epochs_have_orders_of_their_own(tmp_path: Path) -> None:
    tokens = token_set(tmp_path, lengths_of(500, 30))
    first, again, other = (Rows(tokens, 16, seed=s, packing=True) for s in (1, 1, 2))
    per = first.per_epoch
    assert np.array_equal(first.take(0, per).index, again.take(0, per).index)
    assert not np.array_equal(first.take(0, per).index, other.take(0, per).index)
    assert not np.array_equal(first.take(0, per).index, first.take(per, per).index)


def test_windows_of_a_long_document_move_with_the_epoch_and_cover_it(tmp_path: Path) -> None:
    tokens = token_set(tmp_path, [1000])
    rows = Rows(tokens, 64, seed=1, packing=False)
    borders = []
    for epoch in range(12):
        made = rows.take(epoch * rows.per_epoch, rows.per_epoch)
        real = made.index[made.index >= 0]
        assert np.array_equal(np.sort(real), np.arange(tokens.positions))
        borders.append(int(min(i for i in made.index[:, 0].tolist() if i > 0)) % 64)
    assert len(set(borders)) > 6, "the offsets do not differ"


def test_without_packing_a_row_is_one_document_from_its_start(tmp_path: Path) -> None:
    lengths = lengths_of(300, 15)
    tokens = token_set(tmp_path, lengths)
    batches = Batches(tokens, 16, 4, seed=2, packing=False)
    assert batches.rows.per_epoch == 300
    seen = []
    for step in range(75):
        batch = batches.micro_batch(step)
        assert batch.segments is None
        for row in batch.index:
            real = row[row >= 0]
            document = int(np.searchsorted(tokens.starts, real[0], side="right")) - 1
            assert np.array_equal(real, np.arange(tokens.starts[document], tokens.starts[document + 1]))
            assert (row[len(real) :] == -1).all()
            seen.append(document)
    assert sorted(seen) == list(range(300))


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_without_packing_no_row_is_empty(seed: int | None, tmp_path: Path) -> None:
    tokens = token_set(tmp_path, [5, 100, 33, 16, 15, 47])
    rows = Rows(tokens, 16, seed=seed, packing=False)
    for epoch in range(6):
        made = rows.take(epoch * rows.per_epoch, rows.per_epoch)
        empty = (made.index < 0).all(axis=1)
        assert not empty.any(), f"{empty.sum()} of {len(empty)} rows have no target: a step of one learns nothing"


# batches


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("lengths", [[3], [15], [200], [5, 100, 3, 40], [7] * 50])
def test_the_fixed_set_is_every_target_once(lengths: list[int], packing: bool, tmp_path: Path) -> None:
    tokens = token_set(tmp_path, lengths)
    batches = Batches(tokens, 16, 3, None, packing)
    index, count = [], 0
    for number in range(batches.per_epoch):
        batch = batches.fixed(number)
        assert batch.inputs.shape == batch.targets.shape == batch.positions.shape == (3, 16)
        real = batch.index >= 0
        assert np.array_equal(real, batch.targets >= 0)
        assert np.array_equal(batch.inputs[real], tokens.tokens[batch.index[real]])
        assert np.array_equal(batch.targets[real], tokens.tokens[batch.index[real] + 1])
        index.append(batch.index[real])
        count += batch.target_count
    assert np.array_equal(np.sort(np.concatenate(index)), np.arange(tokens.positions))
    assert count == tokens.positions


def test_a_row_never_mixes_documents_without_segments(tmp_path: Path) -> None:
    for packing in (True, False):
        tokens = token_set(tmp_path / str(packing), [9, 3, 50, 2, 2, 2])
        batch = Batches(tokens, 16, 4, 1, packing).micro_batch(0)
        for row, index in enumerate(batch.index):
            documents = np.searchsorted(tokens.starts, index[index >= 0], side="right") - 1
            if batch.segments is None:
                assert len(np.unique(documents)) <= 1
            else:
                assert len(np.unique(batch.segments[row][index >= 0])) >= len(np.unique(documents))


def test_ranks_and_micro_batches_divide_the_same_rows(tmp_path: Path) -> None:
    tokens = token_set(tmp_path, lengths_of(600, 30))
    whole = Batches(tokens, 16, 12, seed=4)
    part = Batches(tokens, 16, 2, seed=4)
    for step in (0, 3, 50):
        pieces = [
            part.micro_batch(step, micro, accumulate=3, rank=rank, world=2).inputs
            for micro in range(3)
            for rank in range(2)
        ]
        assert np.array_equal(np.concatenate(pieces), whole.micro_batch(step).inputs)


def test_masked_tokens_are_no_targets_and_the_others_are(tmp_path: Path) -> None:
    lengths = lengths_of(60, 20)
    rng = np.random.default_rng(1)
    masks = [rng.integers(0, 2, n + 1).tolist() for n in lengths]
    tokens = token_set(tmp_path, lengths, masks)
    assert tokens.mask is not None
    assert tokens.mask[0] == 0
    assert tokens.mask[1:].tolist() == [m for mask in masks for m in mask]
    for batches in (Batches(tokens, 16, 5, None), Batches(tokens, 16, 5, None, packing=False)):
        total = 0
        for number in range(batches.per_epoch):
            batch = batches.fixed(number)
            real = batch.index >= 0
            counts = tokens.mask[batch.index[real] + 1] > 0
            assert np.array_equal(batch.targets[real] >= 0, counts)
            assert (batch.targets[~real] == -1).all()
            total += batch.target_count
        assert total == sum(map(sum, masks))


def test_a_masked_document_written_in_pieces_keeps_its_mask(tmp_path: Path) -> None:
    writer = SetWriter(tmp_path, "train", "uint16", BOS, masked=True)
    writer.add(np.array([1, 2]), np.array([1, 0, 1]))
    writer.add(np.array([3]), np.array([1, 0]), continues=True)
    writer.add(np.array([4]))
    writer.close()
    tokens = open_set(tmp_path, "train", "uint16")
    assert tokens.tokens.tolist() == [BOS, 1, 2, 3, BOS, 4, BOS]
    assert tokens.mask is not None
    assert tokens.mask.tolist() == [0, 1, 0, 1, 0, 1, 1]


def test_documents_of_a_batch_are_named(tmp_path: Path) -> None:
    tokens = token_set(tmp_path, [3, 3, 3, 3, 3, 3])
    batch = Batches(tokens, 8, 1, None).fixed(1)
    assert document_ids(tokens, batch.index) == [2, 3]


def test_written_documents_come_back(tmp_path: Path) -> None:
    lengths = [1, 5, 3]
    tokens = token_set(tmp_path, lengths)
    assert (tokens.documents, tokens.positions) == (3, 9 + 3)
    for d, length in enumerate(lengths):
        assert tokens.document(d).tolist() == [d * 100 + i for i in range(length)]
    assert (tokens.tokens[tokens.starts] == BOS).all()


MEMORY = """
import sys
from pathlib import Path
import numpy as np
from microgpt.data.batches import Batches
from microgpt.data.shards import SetWriter, open_set
folder, documents, long = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
lengths = np.full(documents, 3)
lengths[documents // 2] += long
starts = np.concatenate([[0], np.cumsum(lengths)])
starts.astype(np.int64).tofile(folder / "train.starts")
np.zeros(starts[-1] + 1, np.uint16).tofile(folder / "train.tokens")
del starts, lengths
tokens = open_set(folder, "train", "uint16")
def anonymous():
    line = next(x for x in open("/proc/self/status") if x.startswith("RssAnon"))
    return int(line.split()[1])
before = anonymous()
batches = Batches(tokens, 64, 8, seed=1)
for step in range(0, 20000, 2000):
    batches.micro_batch(step)
print(anonymous() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("long", [0, 1000], ids=["short documents", "with a long one"])
def test_ten_times_the_documents_need_no_more_memory(long: int, tmp_path: Path) -> None:
    grown = []
    for documents in (100_000, 1_000_000):
        words = [sys.executable, "-c", MEMORY, str(tmp_path), str(documents), str(long)]
        grown.append(int(subprocess.run(words, capture_output=True, text=True, timeout=240, check=True).stdout))
    assert grown[1] < grown[0] + 3000, f"{grown} kB"
