"""The files of a run: what is written, where it lies, and how it is read again."""
