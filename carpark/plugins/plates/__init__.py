"""The built-in plate generators, a module each."""
