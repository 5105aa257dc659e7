"""python -m pipeline: the rankdistil command."""

from pipeline.cli import main

main()
