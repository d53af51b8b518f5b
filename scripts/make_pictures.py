"""Run the notebooks over a month of the sandbox's chat, and keep them with their outputs in docs/notebooks/.

    python scripts/make_pictures.py

The month is loaded day by day with a lookback of two days. Meanwhile messages are edited and deleted, and one channel
misses some days: so the plots have something to show.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import random
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image, ImageDraw, ImageFont

from airflow_provider_chatexport import pipeline
from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.polling import ExportPoller, wait_for_exports
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.cli.charts import draw_coverage
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.plan import ExportFlags, plan_channels
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.sandbox import Sandbox, SandboxSettings

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
PICTURES = ROOT / "docs" / "pictures"
PAGES = ROOT / "docs" / "notebooks"
CHANNELS = ("livestream:ubuntu", "messaging:ubuntu-support", "messaging:rust", "team:ubuntu-meeting")
# Notebook -> its plots, by their names in docs/pictures/.
PLOTS = {
    "tour": ("volume", "rhythm", "people", "threads", "reactions"),
    "operations": ("covered", "late-changes", "durations"),
}
# What is real in the data, and what is not: below the title of each page, and in short below each picture.
DATA = """\
> **The data** is the chat that ships with the sandbox: public IRC channels, published for research, with pseudonyms.
> Each day is an excerpt of one log, so hours and minutes are real, but how many messages a day has, its date and its
> weekday are not. Seconds are not real where the log had none. Reactions, edits and deletions are computed, and happen
> by the sandbox's clock, two years after the chat. `python scripts/make_pictures.py` writes this page from
> [the notebook](../../notebooks/{name}.ipynb)."""
CAPTIONS = {
    "volume": "Chat of the sandbox: an excerpt of one IRC log a day. How much a day has is not real.",
    "rhythm": "Chat of the sandbox: an excerpt of one IRC log a day. Hours are real, dates are not.",
    "people": "Chat of the sandbox: excerpts of IRC logs, with pseudonyms.",
    "threads": "Chat of the sandbox: excerpts of IRC logs. Minutes are real, seconds are not.",
    "reactions": "Chat of the sandbox. The reactions are computed.",
    "covered": "A run over the sandbox that left out some days.",
    "late-changes": "The sandbox's clock is two years after its chat, and its edits and deletions are computed.",
    "durations": "34 loads from the sandbox, whose exports are ready at once, on two cores shared with other work.",
    "coverage": "A run over the sandbox that left out some days.",
}
START, N_DAYS = datetime(2025, 1, 1, tzinfo=UTC), 34
MISSING = {("messaging:rust", number) for number in range(11, 15)}


def execute(notebook: Path, lake: str) -> nbformat.NotebookNode:
    """Run a notebook over a lake, and return it with its outputs.

    :raises CellExecutionError: a cell failed.
    """
    os.environ["CHATEXPORT_LAKE"] = lake
    book = nbformat.read(notebook, as_version=4)
    NotebookClient(book, timeout=120, resources={"metadata": {"path": str(notebook.parent)}}).execute()
    return book


def pictures_of(book: nbformat.NotebookNode) -> list[bytes]:
    """Return the plots of an executed notebook, as PNG."""
    outputs = [output.get("data", {}) for cell in book.cells for output in cell.get("outputs", ())]
    return [base64.b64decode(data["image/png"]) for data in outputs if "image/png" in data]


def captioned(picture: bytes, caption: str) -> bytes:
    """Return a PNG with a line of text below it."""
    plot = Image.open(io.BytesIO(picture)).convert("RGB")
    font = ImageFont.load_default(size=plot.width / 75)
    line = int(font.size * 1.8)
    whole = Image.new("RGB", (plot.width, plot.height + line), "white")
    whole.paste(plot, (0, 0))
    at = (plot.width - font.size / 2, plot.height + line / 2)
    ImageDraw.Draw(whole).text(at, caption, font=font, fill="#666666", anchor="rm")
    whole.quantize(256).save(written := io.BytesIO(), format="PNG", optimize=True)
    return written.getvalue()


def page_of(book: nbformat.NotebookNode, name: str) -> str:
    """Return a notebook as a page, with those outputs that it has."""
    plots = iter(PLOTS[name])
    parts = []
    for cell in book.cells:
        parts.append(cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                plot = next(plots)
                parts.append(f"![{plot.replace('-', ' ')}](../pictures/{plot}.png)")
            elif text := data.get("text/plain"):
                parts.append(f"```text\n{text}\n```")
    parts.insert(1, DATA.format(name=name))
    return "\n\n".join(parts) + "\n"


def load_month(lake: str) -> None:
    """Load a month day by day, while the history changes."""
    chosen = random.Random(5)
    sandbox_settings = SandboxSettings(port=0, task_s=0.01, rate_limit=False)
    with Sandbox(sandbox_settings) as sandbox:
        ids = [message["id"] for message in sandbox.world.messages(CHANNELS[0])]
        settings = ServiceSettings(api_key=sandbox.api_key, api_secret=sandbox.api_secret, base_url=sandbox.url)
        with ChatExportClient(settings) as client:
            for number in range(N_DAYS):
                day = START + timedelta(days=number)
                window = Window(since=day - timedelta(days=2), until=day + timedelta(days=1))
                channels = [cid for cid in CHANNELS if (cid, number) not in MISSING]
                _load(client, channels, window, lake)
                for message_id in chosen.sample(ids[: 1200 * (number + 1)][-2400:], 12):
                    with contextlib.suppress(CallError):  # the message may be deleted already
                        sandbox.control.edit_message(message_id, text="edited")
                for message_id in chosen.sample(ids[: 1200 * (number + 1)][-2400:], 4):
                    with contextlib.suppress(CallError):
                        sandbox.control.delete_message(message_id, hard=chosen.random() < 0.5)


def _load(client: ChatExportClient, channels: list[str], window: Window, lake: str) -> None:
    receipts = [
        Receipt(task_id=client.submit_channels(request), request=request)
        for request in plan_channels(channels, window, ExportFlags())
    ]
    poller = ExportPoller(
        [receipt.task_id for receipt in receipts], started_epoch_s=0.0, deadline_epoch_s=1e12, poll_s=0.02
    )
    wait_for_exports(client, poller)
    pipeline.load_exports(client, receipts, lake_uri=lake, options=LoadOptions(accept_shrink=True))


def keep(name: str, picture: bytes) -> None:
    picture = captioned(picture, CAPTIONS[name])
    (PICTURES / f"{name}.png").write_bytes(picture)
    sys.stdout.write(f"docs/pictures/{name}.png  {len(picture) // 1000} kB\n")


def main() -> None:
    for folder in (PICTURES, PAGES):
        folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        lake = str(Path(temporary) / "lake")
        load_month(lake)
        drawn = Path(temporary) / "coverage.png"
        draw_coverage(Lake(lake).coverage_runs(), "./lake", drawn)
        keep("coverage", drawn.read_bytes())
        for name, plots in PLOTS.items():
            book = execute(NOTEBOOKS / f"{name}.ipynb", lake)
            (PAGES / f"{name}.md").write_text(page_of(book, name))
            for plot, picture in zip(plots, pictures_of(book), strict=True):
                keep(plot, picture)


if __name__ == "__main__":
    main()
