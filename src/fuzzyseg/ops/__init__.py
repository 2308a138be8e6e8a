"""Tensor operations that methods and losses share."""
