"""The data sets that have a name: a file for each, or for those that are stored alike."""
