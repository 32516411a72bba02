"""Benchmarks: dscache beside what people use today, on real servers. They print, and assert nothing."""
