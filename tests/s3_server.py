"""A real S3 server for tests: SeaweedFS, on loopback only, one for each test process, and gone when that ends."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fsspec
import httpx

WEED: Final = Path(__file__).parents[1] / ".venv-s3" / "bin" / "weed"
# Every bucket reserves volumes of its own, so tests share one, and each has a folder of its own in it.
BUCKET: Final = "chat"
_KEY, _SECRET = "lakekey", "lakesecret123"
# The access key whose policy is the one in docs/object-storage.md.
WITH_POLICY: Final = "policy"
# Below the ports that systems give to outgoing connections, with the ports for gRPC, which are 10,000 higher.
_PORTS: Final = range(12_000, 22_000)
# The server ends when the pipe to it closes, also if the test process is killed.
_UNTIL_STDIN_CLOSES: Final = '"$@" & server=$!; read _; kill -9 $server; wait $server'


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A running server with one bucket, ``BUCKET``.

    :param master_port: where its shell connects to.
    :param iceberg_port: of its Iceberg REST catalog.
    """

    port: int
    master_port: int
    iceberg_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def variables(self) -> dict[str, str]:
        """The variables of the environment by which every AWS client finds the server."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @property
    def storage_options(self) -> dict[str, object]:
        """The same as options of fsspec."""
        return {
            "key": _KEY,
            "secret": _SECRET,
            "endpoint_url": self.url,
            "client_kwargs": {"region_name": "us-east-1"},
        }

    def new_warehouse(self) -> dict[str, str]:
        """Create a bucket of tables, and return the properties by which pyiceberg finds the REST catalog over it."""
        name = f"tables-{uuid.uuid4().hex}"
        command = f"s3tables.bucket -create -name {name} -account 000000000000"
        shell = [str(WEED), "shell", f"-master=127.0.0.1:{self.master_port}"]
        subprocess.run(shell, input=command, text=True, check=True, capture_output=True, timeout=60, env={})
        return {
            "type": "rest",
            "uri": f"http://127.0.0.1:{self.iceberg_port}",
            "warehouse": f"s3://{name}",
            "rest.sigv4-enabled": "true",
            "rest.signing-name": "s3tables",
            "rest.signing-region": "us-east-1",
            "client.access-key-id": _KEY,
            "client.secret-access-key": _SECRET,
            "client.region": "us-east-1",
            "s3.endpoint": self.url,
            "s3.access-key-id": _KEY,
            "s3.secret-access-key": _SECRET,
            "s3.region": "us-east-1",
        }


def new_lake() -> str:
    """Return an address of a lake that no other test has."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/lake"


@contextlib.contextmanager
def running() -> Iterator[S3Server]:
    """Run a server while the context lasts."""
    assert WEED.exists(), "the S3 server is missing; run `make .venv-s3/.ready`"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="s3-server-")))
        for _ in range(5):  # another process may take a port first
            ports = _free_ports(5)
            server = S3Server(port=ports[3], master_port=ports[0], iceberg_port=ports[4])
            with (folder / "log").open("wb") as log:
                process = subprocess.Popen(
                    ["sh", "-c", _UNTIL_STDIN_CLOSES, "sh", *_command(folder, *ports)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env={},
                )
            stack.callback(_stop, process, ports)
            if _is_ready(server, process):
                break
        else:
            raise AssertionError((folder / "log").read_text()[-2_000:])
        yield server


def documented_policy() -> dict[str, Any]:
    """Return the policy that docs/object-storage.md recommends for the lake ``s3://chat/lake``."""
    page = (Path(__file__).parents[1] / "docs" / "object-storage.md").read_text()
    return json.loads(page.partition("```json\n")[2].partition("```")[0])


def _policies() -> dict[str, dict[str, Any]]:
    """Return policies by access key: the documented one, and for each of its actions one without it."""
    whole = documented_policy()
    actions = [action for statement in whole["Statement"] for action in _listed(statement["Action"])]
    without = {
        action: {
            **whole,
            "Statement": [
                {**statement, "Action": rest}
                for statement in whole["Statement"]
                if (rest := [each for each in _listed(statement["Action"]) if each != action])
            ],
        }
        for action in actions
    }
    return {WITH_POLICY: whole, **{without_action(action): policy for action, policy in without.items()}}


def _listed(actions: str | list[str]) -> list[str]:
    return [actions] if isinstance(actions, str) else actions


def without_action(action: str) -> str:
    """Return the access key whose policy lacks an action of the documented one."""
    return f"{WITH_POLICY}-without-{action.removeprefix('s3:')}"


def _command(folder: Path, master: int, volume: int, filer: int, s3: int, iceberg: int) -> list[str]:
    admin = {
        "name": "lake",
        "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    policies = _policies()
    limited = [
        {"name": key, "credentials": [{"accessKey": key, "secretKey": _SECRET}], "policyNames": [key]}
        for key in policies
    ]
    named = [{"name": key, "content": json.dumps(policy)} for key, policy in policies.items()]
    (folder / "s3.json").write_text(json.dumps({"identities": [admin, *limited], "policies": named}))
    return [
        str(WEED),
        "-logtostderr=true",
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={master}",
        "-master.telemetry=false",  # on by default: it reports to its makers
        "-master.volumeSizeLimitMB=64",
        "-master.volumePreallocate=false",
        f"-volume.port={volume}",
        "-volume.max=60",
        "-filer",
        f"-filer.port={filer}",
        f"-filer.localSocket={folder}/filer.sock",
        "-s3",
        f"-s3.port={s3}",
        "-s3.autoCreateBucket=false",
        f"-s3.localSocket={folder}/s3.sock",
        f"-s3.config={folder}/s3.json",
        f"-s3.port.iceberg={iceberg}",
        "-s3.port.lance=0",
    ]


def _is_ready(server: S3Server, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the server has a bucket that it writes to; False if it does not come up."""
    deadline = time.monotonic() + 60
    fs = fsspec.filesystem("s3", **server.storage_options, skip_instance_cache=True)
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError, OSError):
            httpx.get(f"{server.url}/healthz", timeout=1).raise_for_status()
            fs.mkdir(BUCKET)
            fs.pipe_file(f"{BUCKET}/ready", b"")
            return True
        time.sleep(0.05)
    return False


def _stop(process: subprocess.Popen[bytes], ports: list[int]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait(timeout=20)
    # It leaves sockets behind, in this one place.
    for part, port in zip(("master", "volume", "filer", "s3"), ports, strict=False):
        Path(f"/tmp/seaweedfs-{part}-grpc-{port + 10_000}.sock").unlink(missing_ok=True)


def _free_ports(n: int) -> list[int]:
    found: list[int] = []
    while len(found) < n:
        port = random.choice(_PORTS)
        if port not in found and all(map(_is_free, (port, port + 10_000))):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
