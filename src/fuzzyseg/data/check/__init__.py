"""Detection of problems in dataset files, without changing them."""
