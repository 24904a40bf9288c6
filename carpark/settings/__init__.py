"""What can be set: one frozen object, read once from flags and environment, passed down."""

from carpark.settings.model import Settings as Settings
from carpark.settings.model import load_settings as load_settings
