"""Benchmarks: dscache beside what people use today. They print, and assert nothing."""
