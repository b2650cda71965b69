"""Run the command line from a checkout: ``python cli.py mix my-song/`` is ``mixrl mix my-song/``."""

from mixrl.commands import script

if __name__ == "__main__":
    script()
