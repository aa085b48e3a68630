"""report.html: an evaluation as one file that needs nothing else, to be read, listened to, printed and sent."""

from spectag.report.page import N_CLIPS, write_report

__all__ = ["N_CLIPS", "write_report"]
