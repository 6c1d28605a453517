"""The files of Compose, by their text: who is shut in, what is reserved, what the pages promise."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]


def services(name: str) -> dict[str, dict[str, Any]]:
    described: dict[str, dict[str, Any]] = yaml.safe_load((REPOSITORY / name).read_text())[
        "services"
    ]
    return described


SERVICES = services("compose.yaml")
CLUSTER = services("docker/cluster.yaml")


def test_the_services_that_others_rely_on() -> None:
    assert set(SERVICES) == {"train", "test", "evaluate", "report", "bench", "shell"}


@pytest.mark.parametrize("name", SERVICES)
def test_nobody_may_do_more_than_needed(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == "${UID:-1000}:${GID:-1000}"
    assert "privileged" not in service
    assert "deploy" not in service  # no GPU is asked for by default
    assert [port.rpartition(":")[0].split(":")[0] for port in service.get("ports", [])] in (
        [],
        ["127.0.0.1"],
    )


@pytest.mark.parametrize("name", SERVICES)
def test_a_stop_leaves_time_for_a_checkpoint(name: str) -> None:
    assert SERVICES[name]["init"] is True
    assert SERVICES[name]["stop_grace_period"] == "3m"
    assert SERVICES[name]["shm_size"] == "8gb"


def test_up_alone_trains() -> None:
    assert [name for name, service in SERVICES.items() if "profiles" not in service] == ["train"]
    assert all("profiles" in service for service in CLUSTER.values())


@pytest.mark.parametrize(
    ("override", "whom"),
    [
        ("docker/gpu.yaml", set(SERVICES) - {"report"}),
        ("docker/data.yaml", set(SERVICES) - {"report"}),
        ("docker/cluster-gpu.yaml", set(CLUSTER) - {"data"}),
    ],
)
def test_an_override_is_for_every_service_that_computes(override: str, whom: set[str]) -> None:
    assert set(services(override)) == whom


@pytest.mark.parametrize("override", ["docker/gpu.yaml", "docker/cluster-gpu.yaml"])
def test_all_gpus_are_reserved(override: str) -> None:
    for service in services(override).values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


def test_machines_of_a_cluster_meet_and_come_back() -> None:
    for name in ("worker", "machine"):
        service = CLUSTER[name]
        assert service["extends"] == {"file": "compose.yaml", "service": "train"}
        assert service["restart"].startswith("on-failure:")
        command = service["command"][-1]
        assert "--rdzv-backend c10d" in command
        assert '--rdzv-endpoint "$$FIRST:29400"' in command
        assert int(re.search(r"--max-restarts (\d+)", command)[1]) > 0  # type: ignore[index]
        # A second signal, from whoever, would interrupt the checkpoint.
        assert service["environment"]["TINI_KILL_PROCESS_GROUP"] == 0
        assert service["stop_signal"] == "SIGTERM"
