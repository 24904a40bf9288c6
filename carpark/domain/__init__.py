"""What the system is about: events, plates, times, the rule by which entries and exits become stays."""
