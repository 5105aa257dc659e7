"""python -m pipeline: the rankdistil command."""

from pipeline.cli import main

if __name__ == "__main__":  # launchers import this file in their own processes
    main()
