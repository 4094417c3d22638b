"""The report of an advice: one HTML file that needs nothing else."""
