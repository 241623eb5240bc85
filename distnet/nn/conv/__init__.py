"""Convolution and pooling: the layers, and the algorithms that compute them."""
