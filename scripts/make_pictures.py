"""Run the notebooks over a month of the sandbox's chat, and keep their plots for the README in docs/pictures/.

    python scripts/make_pictures.py

The month is loaded day by day with a lookback of two days. Meanwhile messages are edited and deleted, and one channel
misses some days: so the plots have something to show.
"""

from __future__ import annotations

import base64
import contextlib
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from airflow_provider_chatexport import pipeline
from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.polling import ExportPoller, wait_for_exports
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.plan import ExportFlags, plan_channels
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.sandbox import Sandbox, SandboxSettings

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
PICTURES = ROOT / "docs" / "pictures"
CHANNELS = ("livestream:ubuntu", "messaging:ubuntu-support", "messaging:rust", "team:ubuntu-meeting")
# Notebook and number of the plot -> file.
KEPT = {
    ("operations", 1): "coverage.png",
    ("tour", 1): "volume.png",
    ("tour", 2): "rhythm.png",
    ("tour", 4): "threads.png",
}
START, N_DAYS = datetime(2025, 1, 1, tzinfo=UTC), 34
MISSING = {("messaging:rust", number) for number in range(11, 15)}


def execute(notebook: Path, lake: str) -> Iterator[bytes]:
    """Run a notebook over a lake, and yield its pictures, as PNG.

    :raises CellExecutionError: a cell failed.
    """
    os.environ["CHATEXPORT_LAKE"] = lake
    book = nbformat.read(notebook, as_version=4)
    NotebookClient(book, timeout=120, resources={"metadata": {"path": str(notebook.parent)}}).execute()
    for cell in book.cells:
        for output in cell.get("outputs", ()):
            if picture := output.get("data", {}).get("image/png"):
                yield base64.b64decode(picture)


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


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        lake = str(Path(folder) / "lake")
        load_month(lake)
        for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
            for number, picture in enumerate(execute(notebook, lake), 1):
                if name := KEPT.get((notebook.stem, number)):
                    (PICTURES / name).write_bytes(picture)
                    sys.stdout.write(f"docs/pictures/{name}  {len(picture) // 1000} kB\n")


if __name__ == "__main__":
    main()
