"""``python -m writer``."""

from carpark.settings.options import run_command
from writer.cli import writer

if __name__ == "__main__":
    run_command(writer, name="python -m writer")
