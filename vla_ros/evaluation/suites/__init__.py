"""Suites of tasks that others made, by one protocol: LIBERO's and robosuite's environments, under our contracts."""
