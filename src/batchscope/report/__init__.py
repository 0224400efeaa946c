"""Charts, tables and the HTML page: the only part of the project that draws.

Nothing is imported here, so that printing an analysis to a terminal does not load the charts:

- `batchscope.report.terminal.print_analysis` and `summary_table` print with Rich;
- `batchscope.report.pictures.write_pictures` writes every figure as PNG and SVG;
- `batchscope.report.page.write_page` writes the HTML page.
"""
