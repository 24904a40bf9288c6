"""The dashboard: dramatiq-dashboard's pages over RabbitMQ and over the in-process broker, and ``carpark dlq``."""

from __future__ import annotations

from carpark.ops.dashboard.server import DashboardServer, make_app, mount_dashboard

__all__ = ["DashboardServer", "make_app", "mount_dashboard"]
