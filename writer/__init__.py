"""The writer: a small HTTP server that appends the summaries of finished stays to a CSV file, each id once."""
