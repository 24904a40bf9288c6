"""For who runs it: the audit, the dashboard, the doctor. Nothing on an event's way imports this."""
