"""A private Prometheus for the tests, and questions to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import requests
import yaml

from tests.support.servers import Server, find_program


class PrometheusServer(Server):
    """A private Prometheus.

    Args:
        config: What its configuration file says.
        rules: What its rule file says, if it has one.
    """

    programs = ("prometheus",)

    def __init__(self, config: dict[str, Any], rules: dict[str, Any] | None = None) -> None:
        super().__init__()
        if rules is not None:
            self._write("rules.yml", rules)
            config = {**config, "rule_files": ["rules.yml"]}
        self._config = self._write("prometheus.yml", config)

    def _write(self, name: str, content: dict[str, Any]) -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        """Tell whether it answers questions."""
        try:
            return requests.get(f"{self.url}/-/ready", timeout=5).ok
        except requests.RequestException:
            return False

    def _commands(self) -> list[list[str]]:
        return [
            [
                find_program("prometheus") or "prometheus",
                f"--config.file={self._config}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ]
        ]

    def ask(self, path: str, **parameters: str) -> Any:
        """Ask its API.

        Args:
            path: What comes after ``/api/v1/``.
            parameters: As the API has them.

        Returns:
            The answer's data.
        """
        answer = requests.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=20).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Evaluate an expression now.

        Args:
            expression: PromQL.

        Returns:
            The series of the answer; a scalar as one.
        """
        data = self.ask("query", query=expression)
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        result: list[dict[str, Any]] = data["result"]
        return result

    def value(self, expression: str) -> float | None:
        """Evaluate an expression that gives one number.

        Args:
            expression: PromQL.

        Returns:
            The number, or None when there is no data.
        """
        series = self.query(expression)
        assert len(series) <= 1, series
        return float(series[0]["value"][1]) if series else None

    def alerts(self, state: str = "firing") -> dict[str, list[dict[str, str]]]:
        """List alerts.

        Args:
            state: ``pending`` or ``firing``.

        Returns:
            An alert's name to the labels of each of its instances in that state.
        """
        found: dict[str, list[dict[str, str]]] = {}
        for alert in self.ask("alerts")["alerts"]:
            if alert["state"] == state:
                found.setdefault(alert["labels"]["alertname"], []).append(alert["labels"])
        return found
