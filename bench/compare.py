#!/usr/bin/env python3
"""Compares two results of the kernel benchmarks (Google Benchmark JSON, with --benchmark_repetitions) by medians.

usage: bench/compare.py OLD.json NEW.json
A change counts when it is larger than three times the median absolute deviation of both results, and larger than 3%.
Exit code 1 when something became slower, else 0.
"""
import collections, json, statistics, sys


def read(path):
    times = collections.defaultdict(list)
    for b in json.load(open(path))['benchmarks']:
        if b.get('run_type', 'iteration') == 'iteration':
            times[b.get('run_name', b['name'])].append(b['real_time'])
    return times


def noise(values):
    middle = statistics.median(values)
    return statistics.median(abs(v - middle) for v in values) / middle


if len(sys.argv) != 3:
    sys.exit(__doc__)
old, new = read(sys.argv[1]), read(sys.argv[2])
slower = 0
for name in old:
    if name not in new:
        continue
    ratio = statistics.median(old[name]) / statistics.median(new[name])
    threshold = max(0.03, 3 * (noise(old[name]) + noise(new[name])))
    verdict = ''
    if abs(ratio - 1) > threshold:
        verdict = 'faster' if ratio > 1 else 'SLOWER'
        slower += ratio < 1
    print(f'{name:60} {ratio:6.3f} times  (noise {threshold:.1%})  {verdict}')
sys.exit(1 if slower else 0)
