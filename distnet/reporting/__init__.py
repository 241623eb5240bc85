"""What `distnet report` makes of runs: one page of HTML that needs nothing else."""
