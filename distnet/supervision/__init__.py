"""What `distnet supervise` does: keeps a training job going until its run is finished."""
