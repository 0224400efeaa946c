"""Charts, tables and the HTML page: the only part of the project that draws.

The libraries that draw are loaded when something is drawn, so printing an analysis is quick.
"""

from batchscope.report.content import DataSample, PageContent, Provenance
from batchscope.report.page import write_page
from batchscope.report.pictures import write_pictures
from batchscope.report.terminal import print_analysis, summary_table

__all__ = [
    "DataSample",
    "PageContent",
    "Provenance",
    "print_analysis",
    "summary_table",
    "write_page",
    "write_pictures",
]
