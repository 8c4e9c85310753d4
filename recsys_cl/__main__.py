"""Entry point of ``python -m recsys_cl``: the command line, also for launchers such as ``torchrun -m recsys_cl``."""

from recsys_cl.cli import main

if __name__ == "__main__":
    main()
