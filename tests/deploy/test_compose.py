"""docker-compose.yml without containers: what it says is consistent, and its commands work together here."""

import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from blockyard.base.units import MIB
from blockyard.client import Client
from blockyard.client.definitions import file, raw
from blockyard.client.jobs import raise_unless_succeeded

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = [name for name, service in COMPOSE["services"].items() if "build" in service]
START_S = 40


def loaded(name: str) -> Any:
    return yaml.safe_load((ROOT / "deploy" / name).read_text())


# --- what it says ---------------------------------------------------------------------------------------


def test_all_three_services_are_there_with_health_checks_and_environment():
    assert OURS == ["node", "jobs", "stats"]
    for name in OURS:
        service = COMPOSE["services"][name]
        assert service["command"] == [f"blockyard-{name}"]
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["environment"]["BLOCKYARD_LISTEN"]


def test_volumes_and_files_and_services_that_are_named_exist():
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).is_file() if source.startswith("./") else source in COMPOSE["volumes"]
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])


def test_ports_are_published_on_this_host_only():
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_every_variable_is_an_option_of_its_program():
    for name in OURS:
        manual = subprocess.run(
            [program(f"blockyard-{name}"), "--help"], capture_output=True, text=True, check=True, timeout=60
        ).stdout
        manual = re.sub(r"[\s│]+", "", manual)
        for variable in COMPOSE["services"][name]["environment"]:
            assert variable.startswith("OTEL_") or variable in manual, variable


def test_the_collector_passes_on_what_it_receives_to_who_is_there():
    pipelines = loaded("collector.yaml")["service"]["pipelines"]
    exporters = loaded("collector.yaml")["exporters"]
    assert {name for pipeline in pipelines.values() for name in pipeline["exporters"]} == set(exporters)
    assert exporters["otlp/jaeger"]["endpoint"].split(":")[0] in COMPOSE["services"]
    targets = [target for job in loaded("prometheus.yaml")["scrape_configs"] for target in static(job)]
    assert targets == [
        "stats:" + COMPOSE["services"]["stats"]["environment"]["BLOCKYARD_PROMETHEUS_LISTEN"].split(":")[1],
        "collector:" + exporters["prometheus"]["endpoint"].split(":")[1],
    ]


def static(job: dict[str, Any]) -> list[str]:
    return [target for group in job["static_configs"] for target in group["targets"]]


def test_the_image_runs_as_nobody_in_particular_and_checks_its_health():
    text = (ROOT / "Dockerfile").read_text()
    final = text[text.rindex("FROM ") :]
    assert re.search(r"^USER \d+$", final, re.MULTILINE)
    assert "HEALTHCHECK" in final and '"blockyard.rpc.health"' in final
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists(), name


# --- and it works ---------------------------------------------------------------------------------------


def program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


class Here:
    """Where hosts, ports and paths of the compose file are in a test."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._ports: dict[str, int] = {}

    def port(self, port: str) -> int:
        if port not in self._ports:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self._ports[port] = probe.getsockname()[1]
        return self._ports[port]

    def value(self, text: str) -> str:
        text = {"/images": str(self._root), "/state": f"{self._root}/state"}.get(text, text)
        return re.sub(r"\b(?:0\.0\.0\.0|node|collector):(\d+)", lambda m: f"127.0.0.1:{self.port(m[1])}", text)

    def environment(self, service: str) -> dict[str, str]:
        given = COMPOSE["services"][service]["environment"]
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("BLOCKYARD_", "OTEL_"))
        }
        return inherited | {name: self.value(value) for name, value in given.items()}

    def address(self, service: str) -> str:
        return self.value(COMPOSE["services"][service]["environment"]["BLOCKYARD_LISTEN"])


@contextmanager
def running(here: Here, service: str) -> Iterator[subprocess.Popen[bytes]]:
    name, *arguments = COMPOSE["services"][service]["command"]
    process = subprocess.Popen([program(name), *arguments], env=here.environment(service))
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(timeout=20) == 0


def wait_for_health(here: Here, service: str, process: "subprocess.Popen[bytes]") -> None:
    _, *check = COMPOSE["services"][service]["healthcheck"]["test"]
    check[0] = sys.executable if check[0] == "python" else check[0]
    for _ in range(START_S):
        assert process.poll() is None, f"{service} ended"
        # It waits for a connection by itself, for seconds.
        if not subprocess.run(check, env=here.environment(service), capture_output=True, check=False).returncode:
            return
    pytest.fail(f"{service} is not healthy")


@pytest.mark.slow
async def test_the_commands_with_their_environment_serve_a_mirror_across_services(tmp_path: Path):
    here = Here(tmp_path)
    with ExitStack() as stack:
        for service in OURS:
            wait_for_health(here, service, stack.enter_context(running(here, service)))
        await mirror(here)
        metrics = here.value(COMPOSE["services"]["stats"]["environment"]["BLOCKYARD_PROMETHEUS_LISTEN"])
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as answer:
            assert b"blockyard" in answer.read()
    assert (tmp_path / "b.raw").read_bytes() == (tmp_path / "a.raw").read_bytes() != bytes(MIB)


async def mirror(here: Here) -> None:
    """One call chain through all three: a job at jobs moves bytes in node, and stats knows of it."""
    async with (
        Client.connect(here.address("node")) as node,
        Client.connect(here.address("jobs")) as jobs,
        Client.connect(here.address("stats")) as stats,
    ):
        for name in "ab":
            await node.images.create(f"{name}.raw", MIB)
            await node.nodes.open(raw(file(f"{name}.raw"), node_name=name))
        await node.data.write("a", 4096, os.urandom(65536))
        job = await jobs.jobs.mirror("a", "b")
        await jobs.jobs.wait(job.job_id, "ready")
        await jobs.jobs.complete(job.job_id)
        raise_unless_succeeded(await jobs.jobs.wait(job.job_id))
        async for seen in stats.stats.watch(["a"], interval_s=0.2):
            if seen.stats:
                break


def test_a_health_check_of_nobody_says_so():
    check = [sys.executable, "-m", "blockyard.rpc.health", "unix:/nowhere/at/all.sock"]
    done = subprocess.run(check, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and done.stderr.strip()
