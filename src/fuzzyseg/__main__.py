"""Entry point of `python -m fuzzyseg`."""

from fuzzyseg.cli import main

if __name__ == "__main__":
    main()
