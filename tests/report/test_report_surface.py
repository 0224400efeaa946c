from __future__ import annotations

import subprocess
import sys

import batchscope.report


def test_public_names() -> None:
    assert set(batchscope.report.__all__) == {
        "DataSample",
        "PageContent",
        "Provenance",
        "print_analysis",
        "summary_table",
        "write_page",
        "write_pictures",
    }


def test_printing_does_not_load_what_draws() -> None:
    code = (
        "import sys, batchscope.report; "
        "print([name for name in ('altair', 'vl_convert', 'keras', 'tensorflow') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
