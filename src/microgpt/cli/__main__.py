"""`python -m microgpt.cli` is `microgpt`."""

from microgpt.cli import main

if __name__ == "__main__":
    main()
