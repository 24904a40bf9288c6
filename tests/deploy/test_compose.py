"""deploy/compose held against the code: settings, ports, commands, rights, what is secret, what it costs."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml

from carpark.rabbitmq.connection import MAX_MESSAGE_BYTES
from carpark.rabbitmq.topology import EXCHANGE, all_queues, with_companions
from carpark.records.connection import connect
from carpark.settings import Settings, load_settings
from carpark.settings.fields import options_of, shown
from carpark.settings.model import MOST_PARTITIONS
from tests.deploy.files import COMPOSE, SERVICES, compose, filled, mebibytes, redis_conf, variables, with_overlay
from tests.support.processes import ROOT

STACK = compose()["services"]
ALL = with_overlay()
OURS = {option.variable: option for option in options_of(Settings).values()}
VALUES = {
    **{f"RABBITMQ_{name.upper()}_PASSWORD": f"{name}-_1" for name in SERVICES if name != "writer"},
    "REDIS_PASSWORD": "s-_2",
    "WRITER_TOKEN": "t-_3",
    "DASHBOARD_PASSWORD": "d-_4",
}
DOCKERFILE = (COMPOSE / "Dockerfile").read_text(encoding="utf-8")
PORTS = {
    "rabbitmq": {15762: 15672},
    **{name: {service.port: service.port} for name, service in SERVICES.items() if name != "worker"},
    "prometheus": {9090: 9090},
    "grafana": {3000: 3000},
}


@pytest.mark.parametrize("services", [STACK, ALL], ids=["one machine", "cluster"])
def test_every_variable_of_a_service_is_a_setting_with_a_right_value(services: dict[str, Any]) -> None:
    for name in SERVICES:
        environ = {key: filled(value, VALUES) for key, value in services[name]["environment"].items()}
        assert environ.keys() <= OURS.keys()
        settings = load_settings(environ)
        for value in shown(settings).values():
            assert not any(secret in value for secret in VALUES.values())
        assert settings.bind == "0.0.0.0"
        assert settings.writer_url == "http://writer:40000"
        assert settings.writer_token == "t-_3"
        assert settings.dashboard_login == ("carpark:d-_4" if name in ("writer", "dashboard") else "")
        connect(settings.redis_url).close()
        if name == "writer":
            assert "CARPARK_BROKER_URL" not in environ
        else:
            assert all(url.startswith(f"amqp://{name}:{name}-_1@") for url in settings.broker_url.split(";"))


def test_defaults_that_the_file_repeats_are_those_of_the_code_but_the_rate_that_its_redis_holds() -> None:
    found = variables((COMPOSE / "compose.yaml").read_text(encoding="utf-8"))
    repeated = {name: default for name, default, _ in found if name in OURS}
    assert float(repeated.pop("CARPARK_RATE") or 0) < float(OURS["CARPARK_RATE"].default)
    assert "CARPARK_RETENTION" in repeated
    assert repeated == {name: OURS[name].default for name in repeated}


def test_what_the_file_needs_is_what_the_first_start_writes() -> None:
    source = (COMPOSE / "prepare.py").read_text(encoding="utf-8")
    written = set(re.findall(r'^    "([A-Z_]+)",$', source, re.MULTILINE)) | {"STACK_UID", "STACK_GID"}
    for name in ("compose.yaml", "cluster.yaml"):
        for variable, default, needed in variables((COMPOSE / name).read_text(encoding="utf-8")):
            assert variable in written or variable in OURS or default is not None, variable
            assert not needed or variable in written


def test_the_cluster_is_quorum_queues_and_a_primary_named_by_sentinels() -> None:
    environs = [{key: filled(value, VALUES) for key, value in ALL[name]["environment"].items()} for name in SERVICES]
    for environ, settings in zip(environs, map(load_settings, environs), strict=True):
        assert settings.queue_type == "quorum"
        assert "CARPARK_BROKER_URL" not in environ or [
            part.partition("@")[2] for part in settings.broker_url.split(";")
        ] == [f"{node}:5672/carpark" for node in ("rabbitmq", "rabbitmq2", "rabbitmq3")]
        client = connect(settings.redis_url)
        sentinels = client.connection_pool.sentinel_manager.sentinels  # type: ignore[attr-defined]
        hosts = [each.connection_pool.connection_kwargs["host"] for each in sentinels]
        assert hosts == ["sentinel1", "sentinel2", "sentinel3"]
        client.close()
    assert {"rabbitmq2", "rabbitmq3", "redis2", "sentinel1", "sentinel2", "sentinel3"} <= ALL.keys()


def test_each_service_is_a_command_of_the_one_image() -> None:
    for name, service in SERVICES.items():
        assert " ".join(STACK[name]["command"]).startswith(service.command)
        assert STACK[name]["image"].startswith("carpark:")
    assert 'ENTRYPOINT ["carpark"]' in DOCKERFILE
    assert [name for name, service in STACK.items() if "build" in service] == ["queues"]


def test_ports_are_the_contracts_on_the_address_of_the_setting() -> None:
    for name, service in ALL.items():
        published = {}
        for port in service.get("ports", []):
            match = re.fullmatch(r"\$\{CARPARK_BIND:-127\.0\.0\.1\}:(\d+):(\d+)", port)
            assert match, port
            published[int(match[1])] = int(match[2])
        assert published == PORTS.get(name, {}), name
    assert STACK["worker"]["expose"] == [str(SERVICES["worker"].port)]


def test_what_make_up_says_is_where_the_ports_are() -> None:
    source = (COMPOSE / "stack.py").read_text(encoding="utf-8")
    places = re.findall(r'^    \("(\w+)", (\d+), ".*"\),$', source, re.MULTILINE)
    assert {name for name, _ in places} == {"writer", "dashboard", "rabbitmq", "prometheus", "grafana"}
    assert [name for name, port in places if int(port) not in PORTS[name]] == []


def test_every_service_is_watched_limited_and_started_again() -> None:
    for name, service in ALL.items():
        assert service["healthcheck"]["test"], name
        assert service["restart"] == "unless-stopped", name
        assert mebibytes(service["mem_limit"]), name
    checks = {name: STACK[name]["healthcheck"]["test"] for name in SERVICES}
    assert f"'127.0.0.1', {SERVICES['dashboard'].port}" in checks.pop("dashboard")
    for name, check in checks.items():
        assert f"http://127.0.0.1:{SERVICES[name].port}/{'healthz' if name == 'writer' else 'metrics'}" in check


def test_the_memory_limits_add_up_to_under_one_and_a_half_gigabytes() -> None:
    assert sum(mebibytes(service["mem_limit"]) for service in STACK.values()) * 2**20 < 1.5e9


def test_services_wait_until_what_they_need_is_healthy() -> None:
    for services in (STACK, ALL):
        for name, service in services.items():
            for needed, condition in service.get("depends_on", {}).items():
                assert needed in services, name
                assert condition == {"condition": "service_healthy"}
    assert set(STACK["worker"]["depends_on"]) == {"redis", "queues", "writer"}
    assert {"rabbitmq", "rabbitmq2", "rabbitmq3"} <= ALL["queues"]["depends_on"].keys()


def test_minimal_leaves_out_what_only_shows_things() -> None:
    assert {name for name, service in STACK.items() if "profiles" in service} == {"dashboard", "prometheus", "grafana"}


def test_ours_run_without_root_rights_and_cannot_write_but_where_they_must() -> None:
    for name in SERVICES:
        service = STACK[name]
        assert service["user"] == "${STACK_UID:-10001}:${STACK_GID:-10001}"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["tmpfs"] == ["/tmp"]
    assert [name for name in SERVICES if STACK[name].get("volumes")] == ["writer"]
    assert STACK["writer"]["environment"]["CARPARK_CSV"] == "/data/summaries.csv"


def test_what_must_survive_is_in_a_named_volume_or_a_folder_of_the_host() -> None:
    more = compose()["volumes"] | compose("cluster.yaml")["volumes"]
    for services, volumes in ((STACK, compose()["volumes"]), (ALL, more)):
        used = set()
        for service in services.values():
            for volume in service.get("volumes", []):
                source = filled(volume, {}).partition(":")[0]
                if not source.startswith("."):
                    used.add(source)
                elif not source.startswith(("./secrets/", "../../data/")):
                    assert (COMPOSE / source).exists(), source
                    assert volume.endswith(":ro")
        assert used == set(volumes)


def test_images_are_pinned_to_a_version() -> None:
    images = {service["image"] for service in ALL.values()} | set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
    for image in images:
        assert re.search(r":v?\d+\.\d+\.\d+(-[\w.-]+)?$", image), image
    families = {PurePosixPath(image).name.partition(":")[0] for image in images}
    assert families == {"carpark", "rabbitmq", "redis", "prometheus", "grafana", "python"}


def test_the_image_says_what_it_is_and_runs_without_root() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', DOCKERFILE))
    assert labels["title"] == project["name"]
    assert labels["version"] == project["version"]
    assert labels["licenses"] == project["license"]
    assert project["description"].startswith(labels["description"])
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    assert STACK["queues"]["image"] == f"{project['name']}:{project['version']}"
    environ = dict(re.findall(r"(CARPARK_\w+)=(\S+)", DOCKERFILE))
    assert shown(load_settings(environ)).items() >= environ.items()


def test_the_image_is_built_of_the_three_packages_and_what_they_need() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    assert {"carpark", "generators", "writer", "pyproject.toml", "deploy/image.lock"} <= let_in
    assert all((ROOT / name).exists() for name in let_in)


QUEUES = [name for queue in all_queues(MOST_PARTITIONS) for name in with_companions(queue)]
EVENTS = [name for name in QUEUES if re.fullmatch(r"vehicle_[^.]+(\.\d+)?", name)]
DECLARES = ({EXCHANGE, *QUEUES}, {"amq.default", *EVENTS}, {EXCHANGE, *QUEUES})
RIGHTS = {
    "queues": DECLARES,
    "worker": DECLARES,
    "entry": (set(), {EXCHANGE}, set()),
    "exit": (set(), {EXCHANGE}, set()),
    "dashboard": (set(), {"amq.default"}, set(QUEUES)),
}
"""What docs/reference/rights.md says: to configure, to write, to read."""


def test_each_service_has_a_user_that_may_do_what_it_does_and_no_more() -> None:
    definitions = json.loads((COMPOSE / "rabbitmq" / "definitions.json").read_text(encoding="utf-8"))
    assert {user["name"]: user["tags"] for user in definitions["users"]} == {
        **{name: [] for name in RIGHTS},
        "queues": ["management"],
        "dashboard": ["monitoring"],
        "admin": ["administrator"],
    }
    assert RIGHTS.keys() == SERVICES.keys() - {"writer"}
    assert all(user.keys() == {"name", "tags"} for user in definitions["users"])
    rights = {each["user"]: each for each in definitions["permissions"]}
    assert rights.keys() == {*RIGHTS, "admin"}
    others = {"other", "vehicle_entry.XQ.x", "vehicle_entry.0", "vehicle_events.XQ", "amq.topic", "carpark_work.1"}
    for user, wanted in RIGHTS.items():
        for right, names in zip(("configure", "write", "read"), wanted, strict=True):
            may = {name for name in {EXCHANGE, "amq.default", *QUEUES, *others} if re.search(rights[user][right], name)}
            assert may == names, (user, right)
    queues = QUEUES
    (limits,) = (each["value"] for each in definitions["parameters"])
    assert limits["max-queues"] == len(queues)
    (policy,) = definitions["policies"]
    assert {name for name in queues if re.search(policy["pattern"], name)} == {n for n in queues if ".XQ" not in n}


def test_no_secret_has_a_default() -> None:
    text = "".join((COMPOSE / name).read_text(encoding="utf-8") for name in ("compose.yaml", "cluster.yaml"))
    for name, default, _ in variables(text):
        if re.search("PASSWORD|TOKEN|COOKIE", name):
            assert default is None, name
    assert "guest" not in text


def test_the_rabbitmq_nodes_know_each_other_by_the_names_of_the_services() -> None:
    conf = (COMPOSE / "rabbitmq" / "cluster.conf").read_text(encoding="utf-8")
    nodes = re.findall(r"nodes\.\d = rabbit@(\w+)", conf)
    assert nodes == [name for name in ALL if re.fullmatch(r"rabbitmq\d?", name)]
    assert [ALL[name]["hostname"] for name in nodes] == nodes


def test_prometheus_asks_every_service_that_has_metrics_on_its_port() -> None:
    jobs = yaml.safe_load((COMPOSE.parent / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))[
        "scrape_configs"
    ]
    asked = {}
    for job in jobs:
        for each in job.get("static_configs", ()):
            asked |= {target.split(":")[0]: int(target.split(":")[1]) for target in each["targets"]}
        for each in job.get("dns_sd_configs", ()):
            asked |= dict.fromkeys(each["names"], each["port"])
            assert each["type"] == "A"
    assert asked == {name: service.port for name, service in SERVICES.items() if name != "dashboard"}
    assert STACK["grafana"]["environment"]["PROMETHEUS_URL"] == "http://prometheus:9090"


def test_the_overlay_replaces_no_list_which_podman_compose_would_append_to() -> None:
    for name, service in compose("cluster.yaml")["services"].items():
        if name in STACK:
            assert not service.keys() & {"command", "ports", "tmpfs", "cap_drop"}, name


def test_every_redis_keeps_every_write_and_throws_no_record_away() -> None:
    conf = redis_conf()
    assert (conf["appendonly"], conf["appendfsync"], conf["maxmemory-policy"]) == ("yes", "always", "noeviction")
    servers = [service for service in ALL.values() if "redis-server" in service.get("command", ())]
    assert len(servers) == 2
    for service in servers:
        assert service["command"][1] == "/etc/carpark/redis.conf"
        assert "./redis/redis.conf:/etc/carpark/redis.conf:ro" in service["volumes"]
        assert not any(word.startswith(("--append", "--save", "--maxmemory")) for word in service["command"])


def test_rabbitmq_takes_no_message_that_is_longer_than_a_worker_reads() -> None:
    conf = (COMPOSE / "rabbitmq" / "rabbitmq.conf").read_text(encoding="utf-8")
    assert f"\nmax_message_size = {MAX_MESSAGE_BYTES}\n" in conf
    for page in ("how-to/deploy.md", "reference/messages.md"):
        assert f"max_message_size = {MAX_MESSAGE_BYTES}" in (ROOT / "docs" / page).read_text(encoding="utf-8")
