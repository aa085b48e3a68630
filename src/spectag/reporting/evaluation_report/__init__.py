"""The evaluation report: report.html, a single file."""
