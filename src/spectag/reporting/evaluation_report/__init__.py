"""report.html: an evaluation as one file that needs nothing else."""
