"""``python -m batchscope`` is the same as ``batchscope``."""

from batchscope.cli import main

if __name__ == "__main__":
    main()
