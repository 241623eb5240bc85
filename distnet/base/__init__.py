"""The ground floor: arrays, keys of randomness, files, options. Imports nothing of distnet."""
