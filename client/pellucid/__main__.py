"""`python -m pellucid`: the command line."""

from .cli import main

main()
