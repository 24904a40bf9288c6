"""The built-in summary sinks."""
