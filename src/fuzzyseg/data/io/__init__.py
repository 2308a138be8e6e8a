"""Reading and writing of image and mask files."""
