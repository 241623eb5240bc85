"""File formats: bytes on disk to arrays, checked."""
