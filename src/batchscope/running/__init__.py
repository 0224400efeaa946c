"""Running: plan, store, execution on this machine, progress."""
