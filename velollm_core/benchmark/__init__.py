"""Measuring a backend: workloads, the runner, the statistics, and a verdict that can be trusted."""
