"""The append-only file of summaries, each id once: one for the writer, the sinks `csv` and `jsonl`, and the audit."""

from carpark.ledger.ledger import Ledger
from carpark.ledger.rows import COLUMNS, CSV_LINES, JSON_LINES, Line, LineFormat

__all__ = ["COLUMNS", "CSV_LINES", "JSON_LINES", "Ledger", "Line", "LineFormat"]
