"""What `distnet doctor` looks at: the machine of each rank, how ranks start, how they get on."""
