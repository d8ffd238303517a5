"""``python -m metahp_cli`` is ``metahp``."""

from metahp_cli.main import main

main()
