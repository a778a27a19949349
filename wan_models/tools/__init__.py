"""Tools that are run by hand, with `python -m`."""
