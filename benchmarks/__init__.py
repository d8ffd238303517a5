"""What recording costs, measured: ``python -m benchmarks.bench_logging`` and ``python -m benchmarks.bench_store``.

A development tool, no part of the wheel. Every benchmark measures its candidates in turns in one process, so that a busy machine
slows all of them alike, and writes its table into docs/performance.md.
"""
