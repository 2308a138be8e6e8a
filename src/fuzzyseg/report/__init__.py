"""Reports and figures from plain numbers and arrays; does not import torch."""
