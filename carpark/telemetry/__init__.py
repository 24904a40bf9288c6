"""How numbers are measured and shown, whatever they are about."""
