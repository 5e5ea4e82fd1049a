"""`python -m boilstream`, the same as the `boilstream` command."""

from boilstream.cli import main

if __name__ == "__main__":
    main(prog_name="python -m boilstream")
