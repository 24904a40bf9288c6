"""Ports, an HTTP server on one, and the signals that end a process."""
