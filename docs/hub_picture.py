"""Makes docs/hub.gif: the hub itself, with a real training started in it, photographed as it runs.

`python docs/hub_picture.py [TARGET]` needs the `hub` extra, Pillow (it comes with matplotlib) and a Chromium, which
turns the hub's own SVG pictures into pixels. It works in a temporary folder and takes about a minute.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from microgpt.hub.app import HubApp

SIZE = (96, 27)
WIDTH = 820
COLOURS = 32
FIELDS = {
    "trainer.max_steps": "1500", "data.batch_size": "16", "trainer.eval_interval": "75", "trainer.eval_batches": "8",
    "device.threads": "1", "tracking.system_interval": "0.5", "sampling.max_new_tokens": "12",
}  # fmt: skip


class Film:
    """Pictures of an app, each with how long it stands."""

    def __init__(self, app: HubApp) -> None:
        self.app = app
        self.frames: list[tuple[str, int]] = []

    def take(self, milliseconds: int) -> None:
        """Photograph what is on the screen."""
        self.frames.append((self.app.export_screenshot(title="microgpt hub"), milliseconds))

    def save(self, target: Path) -> None:
        """Write the GIF."""
        pictures = [_pixels(svg) for svg, _ in self.frames]
        sheet = Image.new("RGB", (WIDTH, sum(p.height for p in pictures)))
        for i, picture in enumerate(pictures):
            sheet.paste(picture, (0, i * picture.height))
        # most of it is background: half of the palette is for that, half for the few coloured dots
        methods = (Image.Quantize.MEDIANCUT, Image.Quantize.MAXCOVERAGE)
        halves = [sheet.quantize(COLOURS, method, dither=Image.Dither.NONE).getpalette() or [] for method in methods]
        palette = Image.new("P", (1, 1))
        palette.putpalette([*halves[0][: 3 * COLOURS], *halves[1][: 3 * COLOURS]])
        paged = [p.quantize(COLOURS, palette=palette, dither=Image.Dither.NONE) for p in pictures]
        paged[0].save(
            target, save_all=True, append_images=paged[1:], duration=[ms for _, ms in self.frames], loop=0,
            optimize=True,
        )  # fmt: skip


def _pixels(svg: str) -> Image.Image:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "a Chromium is needed to draw SVG"
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert box is not None
    with tempfile.TemporaryDirectory() as folder:
        page, out = Path(folder) / "a.svg", Path(folder) / "a.png"
        page.write_text(svg, encoding="utf-8")
        size = f"--window-size={int(float(box[1])) + 2},{int(float(box[2])) + 2}"
        words = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", size]
        subprocess.run([*words, f"--screenshot={out}", page.as_uri()], check=True, capture_output=True, timeout=60)
        picture = Image.open(io.BytesIO(out.read_bytes())).convert("RGB")
    return picture.resize((WIDTH, picture.height * WIDTH // picture.width), Image.Resampling.LANCZOS)


async def perform(film: Film) -> None:
    """What a visitor would do."""
    app = film.app
    async with app.run_test(size=SIZE) as pilot:

        async def press(*keys: str, stand: int = 0) -> None:
            await pilot.press(*keys)
            await pilot.pause()
            await app.workers.wait_for_complete()
            await pilot.pause()
            if stand:
                film.take(stand)

        await press(stand=1200)
        pane: Any = app.pane("train")
        pane.form.chosen |= {"data": "names", "tokenizer": "char", "model": "micro", "tracking": "off"}
        for key, value in FIELDS.items():
            pane.form.set(key, value)
        pane.recompose_config()
        await press("c", stand=1600)
        await press("s")
        ends = time.monotonic() + 60
        while (app.watched is None or app.watched.step < 20) and time.monotonic() < ends:
            await pilot.pause(0.1)
        app.clear_notifications()
        await press("f2")
        for _ in range(8):
            film.take(450)
            await pilot.pause(0.7)
        while app.watched is not None and app.watched.status == "RUNNING" and time.monotonic() < ends:
            await pilot.pause(0.2)
        app.clear_notifications()
        await press("enter", "g", stand=1600)
        await press("f4")
        await press("enter", "f6")
        chat: Any = app.pane("chat")
        while chat.sides["a"].busy:
            await pilot.pause(0.1)
        for _ in range(4):
            await press("N")
        await press("enter", *"ma", stand=700)
        await press("enter", "escape", "v", "left", "left", stand=2500)


def main(target: Path) -> None:
    """Make the picture."""
    os.environ["OMP_NUM_THREADS"] = "1"
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        film = Film(HubApp(ascii_only=False, theme="dark"))
        asyncio.run(perform(film))
        os.chdir(home)
    film.save(target)
    print(f"{target}: {len(film.frames)} pictures, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("hub.gif")))
