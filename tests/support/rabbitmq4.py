"""Tests on RabbitMQ 4, whatever this machine has: ``python -m tests.support.rabbitmq4 tests/integration``.

Debian's trixie has it. Its programs run in that release's own folder, with the network, the processes and the temporary
folder of this machine, and leave nothing mounted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from tests.support.processes import ROOT
from tests.support.servers import BROKER_VARIABLE, ServersMissing, find_program, install

FOLDER = ROOT / ".run" / "rabbitmq-4"
"""Where the release is put, once; `make clean` removes it."""

PROGRAMS = {"rabbitmq-server": "/usr/lib/rabbitmq/bin/rabbitmq-server", "epmd": "/usr/bin/epmd"}

# The mounts are in a namespace of the process's own, and gone with it. Of a machine that does not know its own name
# RabbitMQ asks a name server, now and then for five seconds.
_WRAPPER = """#!/bin/sh
exec unshare --mount sh -ec '
root=$1; shift
for each in proc dev tmp etc/hosts; do mount --rbind /$each "$root/$each"; done
exec /usr/sbin/chroot "$root" /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
' sh '{root}' {program} "$@"
"""


def programs() -> Path:
    """See to it that RabbitMQ 4 is there.

    Returns:
        The folder of its programs, for the beginning of PATH.

    Raises:
        ServersMissing: It cannot be had.
    """
    if os.geteuid() != 0:
        raise ServersMissing("RabbitMQ 4 is run in a folder with Debian's trixie, which only root can make and enter")
    if not (FOLDER / "ready").exists():
        _install()
    wrappers = FOLDER / "bin-outside"
    wrappers.mkdir(exist_ok=True)
    for name, program in PROGRAMS.items():
        wrapper = wrappers / name
        wrapper.write_text(_WRAPPER.format(root=FOLDER, program=program), encoding="utf-8")
        wrapper.chmod(0o755)
    return wrappers


def _install() -> None:
    if find_program("debootstrap") is None:
        install({"debootstrap": ["debootstrap"]}, "install debootstrap")
    print(f"test: installing Debian's trixie with RabbitMQ 4 into {FOLDER}; takes two minutes, once", flush=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.parent.mkdir(exist_ok=True)
    command = ["unshare", "--mount", "debootstrap", "--variant=minbase", "--include=rabbitmq-server", "trixie"]
    made = subprocess.run(
        [*command, str(FOLDER)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if made.returncode:
        said = [line for line in (made.stdout + made.stderr).splitlines() if line.startswith(("E:", "W:"))]
        raise ServersMissing(f"debootstrap could not install trixie ({said[-1] if said else made.returncode})")
    (FOLDER / "ready").touch()


def main() -> NoReturn:
    """Run pytest with the arguments of the command line, on RabbitMQ 4; status 2 and one line if there is none."""
    try:
        found = programs()
    except ServersMissing as error:
        print(f"test: not run on RabbitMQ 4: {error}", file=sys.stderr)
        sys.exit(2)
    environ = {name: value for name, value in os.environ.items() if name != BROKER_VARIABLE}
    environ["PATH"] = os.pathsep.join([str(found), environ.get("PATH", os.defpath)])
    os.execve(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[1:]], environ)


if __name__ == "__main__":
    main()
