"""Ports, and an HTTP server on one."""
