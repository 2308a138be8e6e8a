"""Tensor operations shared by methods and losses."""
