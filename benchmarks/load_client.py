"""A load on a chat server, from a process of its own: N streams at once, each asked for T tokens.

    python benchmarks/load_client.py PORT MODEL STREAMS TOKENS

Prints one JSON line. Bytes are only searched, not parsed, so that the client takes little of a machine that it shares
with the server. Tokens are those asked for where an answer ended for its length, else the events with text.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time


async def stream(port: int, model: str, tokens: int, number: int) -> tuple[float, int]:
    """(seconds to the first text, tokens) of one streamed answer."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"Tell me a tale of number {number}."}],
        "max_tokens": tokens,
        "temperature": 0.0,
        "stream": True,
    }
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    started = time.perf_counter()
    writer.write(head.encode() + content)
    first, events, length, seen = 0.0, 0, False, b""
    while block := await reader.read(1 << 16):
        if not seen.startswith(b"HTTP") and not block.startswith(b"HTTP/1.1 200") and not seen:
            raise SystemExit(f"the server says {block[:300]!r}")
        seen = seen or block[:4]
        count = block.count(b'"content"')
        if count and not first:
            first = time.perf_counter() - started
        events += count
        length = length or b'"length"' in block
    writer.close()
    return first, tokens if length else events


async def load(port: int, model: str, streams: int, tokens: int) -> dict[str, float]:
    """All streams at once."""
    started = time.perf_counter()
    found = await asyncio.gather(*(stream(port, model, tokens, i) for i in range(streams)))
    spent = time.perf_counter() - started
    return {
        "tokens_per_s": sum(n for _, n in found) / spent,
        "first_s": statistics.median(first for first, _ in found),
        "tokens": sum(n for _, n in found),
    }


if __name__ == "__main__":
    port, model, streams, tokens = sys.argv[1:5]
    print(json.dumps(asyncio.run(load(int(port), model, int(streams), int(tokens)))))
