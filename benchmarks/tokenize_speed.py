"""Tokenizing a corpus into shards against a bare `encode_batch` of the tokenizers library over the same text."""

from __future__ import annotations

import os
import time

from common import arguments, compared, data_file, scratch

from microgpt.config.schema import DataConfig, TokenizerConfig


def main() -> None:
    given = arguments(__doc__ or "", 5)
    os.environ["MICROGPT_CACHE_DIR"] = str(scratch())
    from microgpt.data.bar import Passes
    from microgpt.data.documents import BadRows, read_documents
    from microgpt.data.journal import Journal
    from microgpt.data.prepare import prepare
    from microgpt.data.scan import scan
    from microgpt.data.sources import find_sources
    from microgpt.data.tokenizing import tokenize

    text = data_file("tinyshakespeare.txt").read_text()
    path = scratch() / "corpus.txt"
    path.write_text(text * (1 if given.smoke else 8))
    data = DataConfig(path=[str(path)])
    _, tokenizer = prepare(data, TokenizerConfig())
    sources = find_sources(data)
    split = scan(sources, data)
    texts = [d.text for d in read_documents(sources, data, BadRows())]
    size = sum(len(t.encode()) for t in texts) / 1e6

    def ours(workers: int = 0) -> float:
        folder = scratch()
        started = time.perf_counter()
        tokenize(folder, sources, data, split, tokenizer, Journal(), Passes(sources, False), None, workers)
        return size / (time.perf_counter() - started)

    def bare() -> float:
        started = time.perf_counter()
        tokenizer._fast.encode_batch(texts, add_special_tokens=False)  # pyright: ignore
        return size / (time.perf_counter() - started)

    cores = os.cpu_count() or 1
    name = f"tokenizing by {cores} processes over threads of one (processes start anew each time)"
    compared(name, lambda: ours(cores), ours, given.rounds, "at least 1", "MB/s")
    compared("tokenizing into shards over encode_batch", ours, bare, given.rounds, "at least 0.9", "MB/s")


if __name__ == "__main__":
    main()
