"""``python -m anytime_bench`` is the ``anytime-bench`` command."""

from anytime_bench.cli.main import main

main()
