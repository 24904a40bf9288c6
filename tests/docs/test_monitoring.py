"""The rules and dashboards in deploy/: complete, alike, and right by themselves."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from carpark.services import ON_METRICS_PORT, SERVICES
from tests.support.metrics_docs import documented
from tests.support.processes import ROOT
from tests.support.servers import find_program
from tests.support.system import DASHBOARDS, LOCAL, RULES, panels, queries, quickened, read_yaml, rules

DEPLOY = ROOT / "deploy"
RUNBOOK = (ROOT / "docs/how-to/alerts.md").read_text(encoding="utf-8")
STACK = DEPLOY / "prometheus" / "prometheus.yml"
RULES_TEST = DEPLOY / "prometheus" / "rules_test.yml"
ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = {rule["record"]: rule for rule in rules() if "record" in rule}
COMPARED = re.compile(r"([\w:]+) ([<>]|==) ([\d.]+)")


def promtool(*arguments: str | Path) -> str:
    ended = subprocess.run([find_program("promtool") or "promtool", *arguments], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.mark.servers
def test_prometheus_takes_the_configurations_and_rules() -> None:
    for path in (LOCAL, STACK):
        assert "15 rules found" in promtool("check", "config", path)


@pytest.mark.servers
def test_the_rules_do_what_their_unit_tests_say() -> None:
    assert "SUCCESS" in promtool("test", "rules", RULES_TEST)


def test_every_rule_has_a_unit_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    tests = read_yaml(RULES_TEST)["tests"]
    fires, silent = (
        {
            case["alertname"]
            for test in tests
            for case in test.get("alert_rule_test", [])
            if bool(case["exp_alerts"]) == it
        }
        for it in (True, False)
    )
    assert fires == silent == set(ALERTS)
    asked = " ".join(case["expr"] for test in tests for case in test.get("promql_expr_test", []))
    compared = {COMPARED.match(rule["expr"])[1] for rule in ALERTS.values()}  # type: ignore[index]
    assert set(RECORDED) - {name for name in RECORDED if name in asked} - compared == set()


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_to_do_and_has_its_panel(name: str) -> None:
    rule = ALERTS[name]
    compared = COMPARED.fullmatch(rule["expr"])
    assert compared, "one recorded series, compared with one number"
    assert compared[1] in RECORDED
    assert rule["labels"]["severity"] in ("critical", "warning")
    notes = rule["annotations"]
    assert notes.keys() == {"summary", "description", "runbook"}
    assert notes["runbook"].endswith(f"See docs/how-to/alerts.md#{name.lower()}")
    assert f"### {name}\n" in RUNBOOK
    shown = [panel for _, panel in panels() if f"Alert: {name}," in panel["description"]]
    assert shown
    for panel in shown:
        assert compared[1] in [target["expr"] for target in panel["targets"]]
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        # A count above 0 is 1 at least, and what is up is 1.
        limit = 1.0 if compared[3] == "0" else float(compared[3])
        assert [step["value"] for step in steps] == [None, limit]


def test_jobs_are_asked_at_the_ports_that_the_services_have() -> None:
    ports = {service.name: service.port for service in (*ON_METRICS_PORT, SERVICES["writer"])}
    found = {}
    for job in read_yaml(LOCAL)["scrape_configs"]:
        [[target]] = [static["targets"] for static in job["static_configs"]]
        found[job["job_name"]] = int(target.rpartition(":")[2])
    assert found == ports
    text = STACK.read_text(encoding="utf-8")
    for name, port in ports.items():
        assert name == "run" or re.search(rf"job_name: {name}\n.*\b{port}\b", text), name
    [alternatives] = re.findall(r'up{job=~"([^"]*)"}', RULES.read_text(encoding="utf-8"))
    assert set(alternatives.split("|")) == ports.keys() - {"run"}


def test_a_test_s_copy_of_the_rules_differs_in_its_durations_alone() -> None:
    quick = quickened(read_yaml(RULES))
    assert quick != read_yaml(RULES)
    as_text = [re.sub(r"\b\d+[smh]\b", "T", json.dumps(rules)) for rules in (quick, read_yaml(RULES))]
    assert as_text[0] == as_text[1]
    assert quickened({"for": "5m", "expr": "rate(x[1m]) > 0.5", "annotations": {"d": "5m"}}) == {
        "for": "25s",
        "expr": "rate(x[8s]) > 0.5",
        "annotations": {"d": "5m"},
    }


@pytest.mark.parametrize(("name", "panel"), list(panels()), ids=lambda given: given if isinstance(given, str) else "")
def test_a_panel_asks_a_question_and_says_what_it_shows(name: str, panel: dict[str, Any]) -> None:
    assert panel["title"].endswith("?")
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "prometheus"}
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert target["expr"]
        assert target["legendFormat"]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_s_panels_have_a_place_each(path: Path) -> None:
    board = json.loads(path.read_text(encoding="utf-8"))
    assert board["uid"] == f"carpark-{path.stem}"
    assert [name for name, count in Counter(panel["id"] for panel in board["panels"]).items() if count > 1] == []
    assert [name for name, count in Counter(panel["title"] for panel in board["panels"]).items() if count > 1] == []
    cells = [
        {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        for at in (panel["gridPos"] for panel in board["panels"])
    ]
    assert not any(one & other for one, other in combinations(cells, 2))
    assert all(x < 24 for cell in cells for x, _ in cell)


def test_the_dashboards_are_the_four_that_there_shall_be_and_are_found() -> None:
    assert [path.stem for path in DASHBOARDS] == ["backend", "generators", "overview", "writer"]
    provisioning = DEPLOY / "grafana" / "provisioning"
    [source] = read_yaml(provisioning / "datasources" / "prometheus.yml")["datasources"]
    assert (source["uid"], source["type"], source["url"]) == ("prometheus", "prometheus", "${PROMETHEUS_URL}")
    stack = read_yaml(DEPLOY / "compose" / "compose.yaml")["services"]
    assert stack["grafana"]["environment"]["PROMETHEUS_URL"] == "http://prometheus:9090"
    [provider] = read_yaml(provisioning / "dashboards" / "carpark.yml")["providers"]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"


def test_every_metric_has_a_panel() -> None:
    used = " ".join([expr for _, expr in queries()] + [rule["expr"] for rule in RECORDED.values()])
    assert [name for name in documented() if not re.search(rf"\b{name}(_bucket|_count|_sum)?\b", used)] == []


def test_panels_and_rules_name_only_metrics_that_there_are() -> None:
    known = {f"{name}{suffix}" for name in documented() for suffix in ("", "_bucket", "_count", "_sum")}
    known |= {
        *RECORDED,
        "ALERTS",
        "up",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
    }
    named = set()
    for expr in [expr for _, expr in queries()] + [rule["expr"] for rule in rules()]:
        bare = re.sub(r'"[^"]*"|\[[^\]]*\]|\{[^}]*\}|\b(by|on) \([^)]*\)', "", re.sub(r'"[^"]*"', "", expr))
        named |= set(re.findall(r"\b[a-z_:][\w:]*\b(?!\()", bare, re.IGNORECASE))
    assert named - known == {"or", "unless", "bool", "sum", "max"}


def test_the_rules_are_those_that_both_configurations_load() -> None:
    for path in (LOCAL, STACK):
        assert [path.parent / name for name in read_yaml(path)["rule_files"]] == [RULES]
