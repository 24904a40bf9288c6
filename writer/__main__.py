"""``python -m writer``."""

from carpark.plugins.options import warn_of_unknown_variables
from carpark.settings.options import run_command
from writer.cli import writer

if __name__ == "__main__":
    warn_of_unknown_variables()
    run_command(writer, name="python -m writer")
