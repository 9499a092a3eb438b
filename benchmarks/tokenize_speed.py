"""Tokenizing a corpus into shards against a bare `encode_batch` of the tokenizers library over the same text."""

from __future__ import annotations

import os
import time

from common import arguments, compared, data_file, scratch

from microgpt.config.schema import DataConfig, TokenizerConfig


def main() -> None:
    given = arguments(__doc__ or "", 5)
    os.environ["MICROGPT_CACHE_DIR"] = str(scratch())
    from microgpt.data import prepare as module
    from microgpt.data.documents import BadRows, read_documents
    from microgpt.data.sources import find_sources

    text = data_file("tinyshakespeare.txt").read_text()
    path = scratch() / "corpus.txt"
    path.write_text(text * (1 if given.smoke else 8))
    data = DataConfig(path=[str(path)])
    _, tokenizer = module.prepare(data, TokenizerConfig())
    sources = find_sources(data)
    split = module.scan(sources, data)
    texts = [d.text for d in read_documents(sources, data, BadRows())]
    size = sum(len(t.encode()) for t in texts) / 1e6

    def ours() -> float:
        folder = scratch()
        started = time.perf_counter()
        module._tokenize(folder, sources, data, split, tokenizer, module._Progress(0, False), None)
        return size / (time.perf_counter() - started)

    def bare() -> float:
        started = time.perf_counter()
        tokenizer._fast.encode_batch(texts, add_special_tokens=False)  # pyright: ignore
        return size / (time.perf_counter() - started)

    compared("tokenizing into shards over encode_batch", ours, bare, given.rounds, "at least 0.9", "MB/s")


if __name__ == "__main__":
    main()
