"""What `distnet classroom` checks: the exercises of docs/classroom, one file each."""
