"""What benchmarks/gpu_day.py runs: one module a group, each with `run(day)`. None of them imports another group.

report_*.py: what benchmarks/gpu_report.py makes of their rows.
"""
