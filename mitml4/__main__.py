"""`python -m mitml4`."""

from mitml4.cli.main import main

main()
