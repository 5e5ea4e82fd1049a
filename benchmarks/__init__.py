"""Every number that the README claims: `python -m benchmarks` prints them as ratios of one run."""
