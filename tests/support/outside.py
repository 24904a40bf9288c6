"""A fresh environment beside the project, as someone has it who has installed carpark and writes a plugin."""

from __future__ import annotations

import os
import site
import subprocess
import sysconfig
import venv
from pathlib import Path

from tests.support.processes import ROOT

_PROGRAMS = {
    "carpark": "import sys; sys.argv[0] = 'carpark'; from carpark.cli import main; main()",
    "pip": "import runpy; runpy.run_module('pip', run_name='__main__')",
    "pytest": "import sys, pytest; sys.exit(pytest.console_main())",
}


class Outside:
    """A virtual environment that sees what is installed where the tests run, and whose own packages are its own.

    Nothing is fetched: pip builds with what is there and installs nothing that a package asks for.

    Args:
        folder: Where the environment is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, with_pip=False, symlinks=True)
        own = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
        below = [path for path in (*site.getsitepackages(), str(ROOT)) if Path(path).is_dir()]
        # A folder that is only on the path would not have its own .pth files read, those of editable installs.
        lines = [f"import site; site.addsitedir({path!r})" for path in below]
        (own / "below.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for name, source in _PROGRAMS.items():
            program = folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -c "{source}" "$@"\n', encoding="utf-8")
            program.chmod(0o755)

    def run(self, command: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command line in the environment.

        Args:
            command: For the shell.
            cwd: The folder it runs in.
            environ: Further variables.

        Returns:
            What became of it; stderr is in stdout.
        """
        env = {name: value for name, value in os.environ.items() if not name.startswith(("CARPARK_", "PYTEST_"))}
        env |= {
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "VIRTUAL_ENV": str(self.folder),
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads a "no" that is off as: no isolation
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
            "PYTHONDONTWRITEBYTECODE": "1",
            **environ,
        }
        return subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )

    def succeed(self, command: str, cwd: Path, **environ: str) -> str:
        """Run a command line that has to end with status 0.

        Args:
            command: For the shell.
            cwd: The folder it runs in.
            environ: Further variables.

        Returns:
            What it printed.

        Raises:
            AssertionError: It ended with another status; the message shows what it printed.
        """
        done = self.run(command, cwd, **environ)
        if done.returncode:
            raise AssertionError(f"{command!r} ended with status {done.returncode}:\n{done.stdout}")
        return done.stdout
