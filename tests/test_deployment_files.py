"""The examples for containers: what they refer to exists. No container engine runs here, so nothing is started."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.cli.cli_parser import get_parser
from airflow.configuration import conf

from airflow_provider_chatexport.cli.sandbox import sandbox as sandbox_command
from airflow_provider_chatexport.provider_info import get_provider_info
from airflow_provider_chatexport.sandbox import Sandbox

DOCKER = Path(__file__).parents[1] / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
AIRFLOW = [name for name, service in SERVICES.items() if service["image"] == "chatexport-airflow"]
VALUES: dict[str, Any] = yaml.safe_load((DOCKER / "helm-values.yaml").read_text())
SANDBOX = list(yaml.safe_load_all((DOCKER / "sandbox-service.yaml").read_text()))


def test_the_compose_file_starts_every_component_that_many_workers_need() -> None:
    """A missing dag-processor, for one, leaves Airflow without a DAG and without an error."""
    components = {"api-server", "scheduler", "dag-processor", "triggerer", "worker"}
    assert {"sandbox", "postgres", "redis", "init"} | components == SERVICES.keys()
    assert components | {"init"} == set(AIRFLOW)
    assert {"triggerer", "worker"} == {
        name for name, each in SERVICES.items() if each.get("deploy", {}).get("replicas") == 2
    }


@pytest.mark.parametrize("name", AIRFLOW)
def test_commands_of_airflow_exist(name: str) -> None:
    """Airflow renames commands: `webserver` became `api-server`."""
    command = SERVICES[name]["command"]
    lines = command[2].split(" && ") if command[0] == "bash" else [shlex.join(["airflow", *command])]
    for line in lines:
        program, *arguments = shlex.split(line)
        assert "airflow" == program
        if "celery" in arguments:  # a command of a provider that this environment does not have
            assert ["celery", "worker"] == arguments
        else:
            get_parser().parse_args(arguments)


def test_services_wait_only_for_what_can_tell_that_it_is_ready() -> None:
    """Compose refuses a dependency that does not exist, and waits for ever for one without a health check."""
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                build = SERVICES[other].get("build")
                assert (
                    "healthcheck" in SERVICES[other]
                    or "HEALTHCHECK" in (DOCKER.parent / build["dockerfile"]).read_text()
                )
            else:
                assert "service_completed_successfully" == how["condition"]
                assert "no" == SERVICES[other]["restart"]


def test_volumes_and_secrets_are_declared() -> None:
    """A volume that is not declared is an error. A secret in the file would be that of everybody."""
    mounted = {volume.split(":")[0] for each in SERVICES.values() for volume in each.get("volumes", [])}
    assert mounted == COMPOSE["volumes"].keys()
    for setting in ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET"):
        assert re.fullmatch(r"\$\{[A-Z_]+:\?.+\}", SERVICES["worker"]["environment"][setting])
    assert ["127.0.0.1:8080:8080"] == [port for each in SERVICES.values() for port in each.get("ports", [])]


def test_every_setting_is_one_of_airflow() -> None:
    """A misspelt setting is silently ignored."""
    named = [name.split("__")[1:] for name in SERVICES["worker"]["environment"] if name.startswith("AIRFLOW__")]
    named += [[section, key] for section, keys in VALUES["config"].items() for key in keys]
    known = conf.configuration_description
    ours = {section.lower(): [key.lower() for key in known[section]["options"]] for section in known}
    for section, key in named:
        # The provider of Celery is not in this environment.
        if section.lower() != "celery":
            assert key.lower() in ours[section.lower()], (section, key)


@pytest.mark.parametrize("build", ["sandbox", "worker"])
def test_the_builds_copy_what_exists(build: str) -> None:
    """A file that moved would be found missing by the first person who builds the image."""
    dockerfile = (DOCKER / SERVICES[build]["build"]["context"] / SERVICES[build]["build"]["dockerfile"]).resolve()
    for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile.read_text(), re.MULTILINE):
        for source in line.split()[:-1]:
            assert (DOCKER.parent / source).exists(), source
    assert dockerfile.with_name(f"{dockerfile.name}.dockerignore").exists()


def test_the_connection_and_the_sandbox_fit_together() -> None:
    """Tasks reach the sandbox under the name of its service, with its key."""
    connection = yaml.safe_load(SERVICES["worker"]["environment"]["AIRFLOW_CONN_CHATEXPORT_DEFAULT"])
    (known,) = get_provider_info()["connection-types"]
    assert known["connection-type"] == connection["conn_type"]
    assert (Sandbox.api_key, Sandbox.api_secret) == (connection["login"], connection["password"])
    assert "http://sandbox:8900" == connection["host"]
    assert "8900" in (DOCKER / "sandbox.Dockerfile").read_text().rpartition("ENTRYPOINT")[2]


def test_options_of_the_sandbox_exist() -> None:
    """In the compose file, and in the cluster."""
    deployment, service = SANDBOX
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for arguments in (SERVICES["sandbox"]["command"], container["args"]):
        sandbox_command.make_context("sandbox", list(arguments))
    assert container["ports"][0]["containerPort"] == service["spec"]["ports"][0]["port"] == 8900
    assert deployment["spec"]["template"]["metadata"]["labels"] == service["spec"]["selector"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]


def test_a_pod_has_room_for_any_load() -> None:
    """docs/operating.md: a load takes up to 950 MB; Airflow's own process takes 250 MB."""
    pod = VALUES["workers"]["kubernetes"]
    mebibytes = int(pod["resources"]["requests"]["memory"].removesuffix("Mi"))
    assert mebibytes * 2**20 >= 1.2e9
    assert pod["resources"]["requests"]["memory"] == pod["resources"]["limits"]["memory"]
    (volume,), (mount,), (variable,) = pod["extraVolumes"], pod["extraVolumeMounts"], pod["env"]
    assert volume["name"] == mount["name"]
    assert {"name": "TMPDIR", "value": mount["mountPath"]} == variable
