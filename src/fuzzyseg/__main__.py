"""`python -m fuzzyseg`, the same as the command `fuzzyseg`."""

from fuzzyseg.cli import main

if __name__ == "__main__":
    main()
