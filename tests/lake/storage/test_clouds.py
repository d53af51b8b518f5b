"""Lakes at addresses of Azure and Google, each on a server that speaks the protocol. `make test-clouds` runs it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from lakes import write_export

ROOT: Final = Path(__file__).parents[3]
ENVIRONMENT: Final = ROOT / ".venv-clouds"
# Microsoft publishes these for its emulator.
ACCOUNT: Final = "devstoreaccount1"
KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

# What a person does with a lake. It runs in an environment with the file systems, and prints what readers saw.
SCRIPT: Final = """
import json, sys
import fsspec
from airflow_provider_chatexport.lake import Lake

address, make_bucket, first, second, is_published = sys.argv[1:]
fsspec.filesystem(address.partition("://")[0]).mkdir(make_bucket)
seen = {}
with Lake(address) as lake:
    def texts():
        return dict(sorted(lake.sql("SELECT id, text FROM messages").fetchall()))

    lake.load(first, since="2026-01-01", until="2026-01-02", exported_at="2026-01-03T01:00:00Z")
    seen["first"] = texts()
    lake.load(second, since="2026-01-01T08:00:00Z", until="2026-01-01T09:00:00Z", exported_at="2026-01-03T02:00:00Z")
    seen["second"] = texts()
    lake.compact()
    lake.vacuum()
    seen["compacted"], seen["is_well"] = texts(), lake.verify().ok
    if is_published == "yes":
        import deltalake
        seen["changed"] = [lake.publish("delta").changed for _ in range(2)]
        rows = deltalake.DeltaTable(f"{address}/_files/messages").to_pyarrow_table().to_pylist()
        seen["published"] = dict(sorted((row["id"], row["text"]) for row in rows))
    lake.forget_user("u1")
    seen["forgotten"], seen["is_well_after"] = texts(), lake.verify().ok
print(json.dumps(seen))
"""


@dataclass(frozen=True, slots=True)
class Cloud:
    """A store's server.

    :param command: starts it; ``{port}`` and ``{folder}`` are replaced.
    :param variables: by which clients find it; ``{url}`` is replaced.
    """

    address: str
    program: Path
    command: Sequence[str]
    variables: Mapping[str, str]
    is_published: bool


AZURE: Final = Cloud(
    "abfs://chat/lake",
    ENVIRONMENT / "node_modules" / ".bin" / "azurite-blob",
    (
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        "{port}",
        "--location",
        "{folder}",
        "--silent",
        "--disableTelemetry",
        # The client's version of the protocol is newer than the server's.
        "--skipApiVersionCheck",
    ),
    {
        "AZURE_STORAGE_CONNECTION_STRING": f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
        f"BlobEndpoint={{url}}/{ACCOUNT};",
        # deltalake has a client of its own.
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        "AZURE_STORAGE_USE_EMULATOR": "true",
        "AZURITE_BLOB_STORAGE_URL": "{url}",
    },
    is_published=True,
)
GOOGLE: Final = Cloud(
    "gs://chat/lake",
    next(
        ENVIRONMENT.glob("lib/python3*/site-packages/fake_gcs_server*/vendor/*/bin/*linux-amd64"), ENVIRONMENT / "none"
    ),
    (
        "-scheme",
        "http",
        "-host",
        "127.0.0.1",
        "-port",
        "{port}",
        "-backend",
        "memory",
        "-public-host",
        "127.0.0.1:{port}",
        "-external-url",
        "{url}",
    ),
    # Without the last one, gcsfs asks Google what kind of bucket it is.
    {"STORAGE_EMULATOR_HOST": "{url}", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"},
    # deltalake asks for lists of objects in a protocol that this server does not speak.
    is_published=False,
)


@contextlib.contextmanager
def running(cloud: Cloud, folder: Path) -> Iterator[dict[str, str]]:
    """Run a server while the context lasts, and yield the environment by which clients find it."""
    assert cloud.program.exists(), f"{cloud.program} is missing; run `make test-clouds`"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    cloud.program.chmod(0o755)
    command = [each.format(port=port, folder=folder, url=url) for each in cloud.command]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen([cloud.program, *command], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert server.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.05)
        variables = {name: value.format(url=url) for name, value in cloud.variables.items()}
        yield {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("cloud", [AZURE, GOOGLE], ids=["azure", "google"])
def test_a_lake_of_another_cloud_is_as_any_other(cloud: Cloud, tmp_path: Path) -> None:
    """Loads, a reload, compaction, vacuum, verify and a removal; on Azure Delta tables, too."""
    first = write_export(tmp_path / "first", {"a": (8, "a1"), "b": (9, "b1")}, user={"id": "u1"})
    second = write_export(tmp_path / "second", {"a": (8, "a2")}, user={"id": "u2"})
    bucket = cloud.address.partition("://")[2].partition("/")[0]
    arguments = [cloud.address, bucket, str(first), str(second), "yes" if cloud.is_published else "no"]
    with running(cloud, tmp_path) as environment:
        command = [str(ENVIRONMENT / "bin" / "python"), "-c", SCRIPT, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    after = {"a": "a2", "b": "b1"}
    published = {"changed": [True, False], "published": after} if cloud.is_published else {}
    assert {
        "first": {"a": "a1", "b": "b1"},
        "second": after,
        "compacted": after,
        "is_well": True,
        **published,
        "forgotten": {"a": "a2"},
        "is_well_after": True,
    } == json.loads(done.stdout.splitlines()[-1])
