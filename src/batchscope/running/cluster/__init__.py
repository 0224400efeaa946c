"""The Ray executor: trials as tasks of a Ray cluster. Ray itself is imported only where a run asks for it."""
