"""Training by code of one's own, a function or a command: what it is given, and what it reports."""
