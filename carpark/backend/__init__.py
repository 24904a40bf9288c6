"""What a worker process does: it records events, and brings summaries to the sinks."""
