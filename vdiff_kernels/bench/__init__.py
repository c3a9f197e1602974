"""What measurements are made with: clocks, counts, floors and ceilings, shapes of published models, what stands beside ours.

The scripts that measure are in benchmarks/. Nothing here imports them, nor tests.
"""
