"""python -m pipeline.reproduce: the rankdistil-reproduce command."""

from pipeline.reproduce import main

main()
