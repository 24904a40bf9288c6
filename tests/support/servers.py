"""Private RabbitMQ and Redis for the tests; `python -m tests.support.servers` sees to it that there can be any.

Servers that ``CARPARK_TEST_BROKER_URL`` and ``CARPARK_TEST_REDIS_URL`` name are used as they are. Otherwise the
programs on this machine are started on free ports, in a temporary folder, touching no service that may be running.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from abc import ABC, abstractmethod
from pathlib import Path
from urllib.parse import urlsplit

import redis
import requests

from tests.support.guard import GUARD
from tests.support.helpers import eventually, find_free_port, is_listening

BROKER_VARIABLE = "CARPARK_TEST_BROKER_URL"
REDIS_VARIABLE = "CARPARK_TEST_REDIS_URL"

UNMARKED_VARIABLE = "CARPARK_TEST_UNMARKED"
"""Has the name of the test that runs, if that is not marked `servers`; its processes inherit it."""

BROWSER = {"chromium": ("chromium",), "chromium-driver": ("chromedriver",)}
"""The browser of the dashboard's tests, and what drives it, in the same form as `TOOLS`."""

TOOLS = {"prometheus": ("prometheus", "promtool"), **BROWSER}
"""Debian package to the programs of it that the tests start or run themselves, whatever servers are named."""

# Folders that Debian installs servers to and that an ordinary user's PATH leaves out.
FURTHER_FOLDERS = ("/usr/lib/rabbitmq/bin", "/usr/sbin", "/usr/local/sbin")

START_TIMEOUT = 100.0


class ServersMissing(Exception):
    """There are no servers to test on, and none can be had. The message is one line."""


def find_program(name: str) -> str | None:
    """Look for a program on PATH and in the folders where servers are put.

    Args:
        name: The program's name.

    Returns:
        Its path, or None.

    Raises:
        AssertionError: A test that is not marked `servers` asks.
    """
    if unmarked := os.environ.get(UNMARKED_VARIABLE):
        raise AssertionError(f"{unmarked} needs {name}, so it has to be marked `servers`: `make check` has none")
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *FURTHER_FOLDERS]))


class Server(ABC):
    """A server program in a temporary folder; it can be killed and started again on the same ports and data."""

    programs: tuple[str, ...] = ()
    """What has to be installed."""

    def __init__(self) -> None:
        # Short, because a socket's path may not be longer than some 100 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="carpark-", dir="/tmp"))
        GUARD.watch("folder", self.folder)
        self.port = find_free_port()
        self._group: list[subprocess.Popen[bytes]] = []

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it is."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Tell whether it answers."""

    @abstractmethod
    def _commands(self) -> list[list[str]]:
        """The programs to start, the server itself last."""

    def _environ(self) -> dict[str, str]:
        return {}

    @property
    def log(self) -> Path:
        """The file that has what it printed."""
        return self.folder / "output.log"

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return bool(self._group) and self._group[-1].poll() is None

    @property
    def group(self) -> int:
        """The id of the process group that it runs in."""
        return self._group[0].pid

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers. Does nothing when it runs.

        Raises:
            AssertionError: It did not come up; the message has the end of its log.
        """
        if self.is_running:
            return
        self.kill()
        environ = {**os.environ, **self._environ()}
        with self.log.open("ab") as stream:
            for command in self._commands():
                self._group.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=stream,
                        stderr=subprocess.STDOUT,
                        env=environ,
                        cwd=self.folder,
                        process_group=self._group[0].pid if self._group else 0,
                    )
                )
        GUARD.watch("group", self._group[0].pid)
        try:
            eventually(lambda: not self.is_running or self.is_ready(), START_TIMEOUT, f"{type(self).__name__} is ready")
            assert self.is_running, "it ended"
        except AssertionError as error:
            self.kill()
            tail = self.log.read_text(errors="replace")[-3000:]
            raise AssertionError(f"{type(self).__name__} did not start: {error}\n{tail}") from None

    def stop(self, timeout: float = 30.0) -> None:
        """Shut it down in the ordinary way; what it keeps on disk stays.

        Args:
            timeout: Seconds until it is killed instead.
        """
        if self.is_running:
            self._group[-1].send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._group[-1].wait(timeout)
        self.kill()

    def kill(self) -> None:
        """End it with SIGKILL, as a crash does; what it keeps on disk stays."""
        if not self._group:
            return
        leader = self._group[0].pid
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)
        for process in self._group:
            process.wait(10)
        # RabbitMQ's own process is a child of its start script, so nobody here can wait for it.
        eventually(lambda: not is_listening(self.port), 10, f"{type(self).__name__} is gone")
        GUARD.forget("group", leader)
        self._group.clear()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server: SIGSTOP lets it stand still until SIGCONT.

        Args:
            number: The signal.
        """
        self._group[-1].send_signal(number)

    def close(self) -> None:
        """End it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        GUARD.forget("folder", self.folder)


class RedisServer(Server):
    """A private Redis.

    Args:
        appendonly: Whether each write is kept in a file, so that a killed server has its data again when restarted.
    """

    programs = ("redis-server",)

    def __init__(self, *, appendonly: bool = False) -> None:
        super().__init__()
        self.appendonly = appendonly

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def is_ready(self) -> bool:
        """Tell whether it answers a ping; not yet while it loads its file."""
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def _commands(self) -> list[list[str]]:
        kept = "yes" if self.appendonly else "no"
        server = find_program("redis-server") or "redis-server"
        options = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder), "save": "", "appendonly": kept}
        # As in what is shipped: each write is on disk before its answer.
        options["appendfsync"] = "always"
        # A replica has its copy at once; by default a primary waits 5 s for others to ask for one, too.
        options["repl-diskless-sync-delay"] = "0"
        return [[server, *(word for name, value in options.items() for word in (f"--{name}", value))]]


class RabbitmqServer(Server):
    """A private RabbitMQ with its management API, and an epmd of its own, so that no other Erlang node notices it.

    Args:
        max_message_size: The longest message that it takes, in bytes; by default as in what is shipped.
    """

    programs = ("rabbitmq-server", "epmd")

    def __init__(self, max_message_size: int = 1024 * 1024) -> None:
        super().__init__()
        self.management_port, self._dist_port, self._epmd_port = (find_free_port() for _ in range(3))
        (self.folder / "plugins").write_text("[rabbitmq_management].\n", encoding="ascii")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.local = 127.0.0.1:{self.port}\n"
            f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self.management_port}\n"
            # Numbers of the management API are as old as this; 5 s would make tests wait.
            "collect_statistics_interval = 500\n"
            f"disk_free_limit.absolute = 10MB\nmax_message_size = {max_message_size}\n",
            encoding="ascii",
        )

    @property
    def url(self) -> str:
        """The URL of the default virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}"

    @property
    def management_url(self) -> str:
        """The management API, user and password included."""
        return f"http://guest:guest@127.0.0.1:{self.management_port}"

    def is_ready(self) -> bool:
        """Tell whether both the broker and the management API answer."""
        return is_listening(self.port) and is_management_there(self.management_url)

    def _commands(self) -> list[list[str]]:
        epmd = find_program("epmd") or "epmd"
        # Debian's program on PATH is a wrapper that changes the user; the real one is beside what it links to.
        server = Path(find_program("rabbitmq-server") or "rabbitmq-server").resolve().with_name("rabbitmq-server")
        return [[epmd, "-port", str(self._epmd_port), "-address", "127.0.0.1"], [str(server)]]

    def _environ(self) -> dict[str, str]:
        folder = self.folder
        return {
            # Its start script becomes the server then, instead of waiting for it: a child that is ours to end and reap.
            "RUNNING_UNDER_SYSTEMD": "true",
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"{folder.name}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_BASE": str(folder),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        }


def is_management_there(management_url: str) -> bool:
    """Ask RabbitMQ's management API for its name.

    Args:
        management_url: The API's URL, user and password included.

    Returns:
        Whether it answered and took the user.
    """
    try:
        return requests.get(f"{management_url}/api/whoami", timeout=5).ok
    except requests.RequestException:
        return False


class VirtualHost:
    """A virtual host of its own for a test, made and removed through the management API.

    Args:
        broker_url: A URL of the broker; its virtual host is replaced.
        management_url: The management API, user and password included.
    """

    def __init__(self, broker_url: str, management_url: str) -> None:
        self.name = f"test-{uuid.uuid4().hex[:12]}"
        self._api = f"{management_url}/api"
        split = urlsplit(broker_url)
        self.url = split._replace(path=f"/{self.name}").geturl()
        user = split.username or "guest"
        requests.put(f"{self._api}/vhosts/{self.name}", timeout=30).raise_for_status()
        requests.put(
            f"{self._api}/permissions/{self.name}/{user}",
            json={"configure": ".*", "write": ".*", "read": ".*"},
            timeout=30,
        ).raise_for_status()

    def close(self) -> None:
        """Remove it with all its queues and connections; a server that is down is let be."""
        with contextlib.suppress(requests.ConnectionError):
            requests.delete(f"{self._api}/vhosts/{self.name}", timeout=30)


# From here: how `make test` makes sure that there are servers.


def missing_programs() -> dict[str, list[str]]:
    """Find out what has to be installed before the tests can start their own servers.

    Returns:
        Debian package to the programs of it that are missing; servers that a variable names need none.
    """
    wanted = dict(TOOLS)
    if not os.environ.get(BROKER_VARIABLE):
        wanted["rabbitmq-server"] = RabbitmqServer.programs
    if not os.environ.get(REDIS_VARIABLE):
        wanted["redis-server"] = RedisServer.programs
    missing = {
        package: [name for name in programs if find_program(name) is None] for package, programs in wanted.items()
    }
    return {package: names for package, names in missing.items() if names}


def ensure_servers() -> None:
    """Install what is missing, where that is possible without asking anything.

    Raises:
        ServersMissing: It is not.
    """
    missing = missing_programs()
    if not missing:
        return
    way_out = f"install {' and '.join(missing)}"
    if missing.keys() - TOOLS.keys():
        way_out += (
            f", or name running servers in {BROKER_VARIABLE} (amqp://user:password@host:port) "
            f"and {REDIS_VARIABLE} (redis://host:port/0)"
        )
    install(missing, way_out)


def install(missing: dict[str, list[str]], way_out: str) -> None:
    """Install Debian packages, where that is possible without asking anything.

    Args:
        missing: Package to the programs of it that are wanted.
        way_out: What somebody can do where it is not.

    Raises:
        ServersMissing: It is not.
    """
    prefix = _privilege()
    if find_program("apt-get") is None or prefix is None:
        raise ServersMissing(f"the tests need {_names(missing)}, which are not here and cannot be installed: {way_out}")
    print(f"test: installing {' and '.join(missing)} with apt-get, for the tests to start", flush=True)
    apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    with tempfile.NamedTemporaryFile("w+", prefix="carpark-apt-", suffix=".log") as log:
        subprocess.run([*apt, "update"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
        command = [*apt, "install", "--yes", "--no-install-recommends", *missing]
        status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode
        log.seek(0)
        said = [line.strip() for line in log if line.startswith("E:")]
    if status or any(find_program(name) is None for names in missing.values() for name in names):
        reason = said[-1] if said else f"status {status}"
        raise ServersMissing(f"apt-get could not install {' and '.join(missing)} ({reason}): {way_out}")


def _privilege() -> list[str] | None:
    if os.geteuid() == 0:
        return []
    if (
        find_program("sudo")
        and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    ):
        return ["sudo", "-n"]
    return None


def _names(missing: dict[str, list[str]]) -> str:
    return " and ".join(name for names in missing.values() for name in names)


def main() -> int:
    """See to it that there are servers.

    Returns:
        0, or 2 after one line on stderr.
    """
    try:
        ensure_servers()
    except ServersMissing as error:
        print(f"test: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
