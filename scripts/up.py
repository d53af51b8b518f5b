"""`make up`: run Airflow's UI on localhost over the sandbox, with the example DAGs, until Ctrl-C."""

from __future__ import annotations

import signal
import sys

from airflow_stack import ROOT, AirflowStack, StackError, sandbox_connection

from airflow_provider_chatexport.sandbox import Sandbox, SandboxSettings

HOME = ROOT / ".demo" / "up"
LAKE = ROOT / ".demo" / "lake"


def main() -> None:
    """Start the sandbox and Airflow, and wait for Ctrl-C."""
    with Sandbox(SandboxSettings(task_s=5.0)) as sandbox:
        print(f"the sandbox stands in for the chat service on {sandbox.url}", flush=True)
        environment = {
            "AIRFLOW_CONN_CHATEXPORT_DEFAULT": sandbox_connection(sandbox.url),
            "CHATEXPORT_LAKE": str(LAKE),
        }
        print("starting Airflow; this takes about half a minute", flush=True)
        try:
            with AirflowStack(HOME, environment) as stack:
                print(f"Airflow is on {stack.url}. Trigger chatexport_daily with this configuration:", flush=True)
                print('  {"since": "2025-01-06T00:00:00Z", "until": "2025-01-07T00:00:00Z"}')
                print(f"The rows go to {LAKE.relative_to(ROOT)}. Press Ctrl-C to stop everything", flush=True)
                signal.sigwait({signal.SIGINT, signal.SIGTERM})
        except StackError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
