"""Looks whether a run could begin here: what is installed, reachable, writable and licensed."""
