"""A Redis that speaks TLS, with a certificate of a CA of its own."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.helpers import find_free_port
from tests.support.processes import Processes
from tests.support.servers import RedisServer, find_program

pytestmark = pytest.mark.servers

ADVICE = "TLS: certificate verify failed; name its port for TLS, or its CA, in CARPARK_REDIS_URL (docs/how-to/tls.md)"


class TlsRedis(RedisServer):
    """A Redis with another port, for TLS; it makes its CA and certificate itself."""

    def __init__(self) -> None:
        super().__init__()
        self.tls_port = find_free_port()
        openssl = find_program("openssl") or "openssl"
        new = [openssl, "req", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-x509"]
        for name, more in {
            "ca": ["-subj", "/CN=a CA"],
            "other": ["-subj", "/CN=another CA"],
            "server": ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", *self._signed()],
        }.items():
            files = ["-keyout", self._file(f"{name}.key"), "-out", self._file(f"{name}.pem")]
            subprocess.run([*new, *files, *more], check=True, capture_output=True)

    def _file(self, name: str) -> str:
        return str(self.folder / name)

    def _signed(self) -> list[str]:
        return ["-CA", self._file("ca.pem"), "-CAkey", self._file("ca.key")]

    def url_for(self, ca: str) -> str:
        """Give the URL with a CA, or without one."""
        option = f"?ssl_ca_certs={self._file(ca)}" if ca else ""
        return f"rediss://localhost:{self.tls_port}/0{option}"

    def _commands(self) -> list[list[str]]:
        (command,) = super()._commands()
        files = {"cert-file": "server.pem", "key-file": "server.key", "ca-cert-file": "ca.pem"}
        words = [word for name, file in files.items() for word in (f"--tls-{name}", self._file(file))]
        return [[*command, "--tls-port", str(self.tls_port), "--tls-auth-clients", "no", *words]]


@pytest.fixture(scope="module")
def tls_redis() -> Iterator[TlsRedis]:
    with contextlib.closing(TlsRedis()) as server:
        server.start()
        yield server


@pytest.mark.parametrize(("ca", "is_right"), [("ca.pem", True), ("other.pem", False), ("", False)])
def test_a_certificate_that_is_not_believed_is_named_with_what_helps(
    processes: Processes, server_environ: dict[str, str], tls_redis: TlsRedis, tmp_path: Path, ca: str, is_right: bool
) -> None:
    environ = {**server_environ, "CARPARK_REDIS_URL": tls_redis.url_for(ca)}
    doctor = processes.start(["carpark", "doctor"], env=environ, name="doctor")
    doctor.wait()
    found = [line for line in doctor.output.splitlines() if line.split()[1].startswith("redis")]
    if is_right:
        assert "redis rights: enough for worker" in doctor.output
        worker = processes.start(["carpark", "worker", "--processes", "1", "--threads", "1"], env=environ)
        worker.wait_for_line("Worker process is ready")
        assert worker.terminate() == 0
        return
    assert len(found) == 1, doctor.output
    assert found[0].startswith("problem  redis: Redis at rediss://localhost:")
    assert found[0].endswith(ADVICE)
    Path(environ["CARPARK_CSV"]).write_text(
        "id,vehicle_plate,entry_date_time,exit_date_time,duration\n", encoding="utf-8"
    )
    (tmp_path / "entry.jsonl").write_text('{"confirmed": 0}\n', encoding="utf-8")
    verify = ["carpark", "verify", "--journal", "entry.jsonl", "--redis-url", environ["CARPARK_REDIS_URL"]]
    for command in (["carpark", "worker"], ["carpark", "dashboard", "--port", "0"], verify):
        process = processes.start(command, env=environ, cwd=tmp_path, name=command[1])
        assert process.wait() == 2, process.output
        assert process.output.count("\n") == 1
        assert process.output.endswith(f"{ADVICE}\n")
