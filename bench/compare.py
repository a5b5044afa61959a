#!/usr/bin/env python3
"""Compares two results by medians and says what is outside the noise.

usage: bench/compare.py OLD.json NEW.json
Takes results of the kernel benchmarks (Google Benchmark JSON, with --benchmark_repetitions), results.json of bench/report.py, and what
`lanewise bench train|prefill|decode --json` prints. A change counts when it is larger than three times the median absolute deviations of
both results together, and larger than 3%. One value has no noise to be seen: then 10% is asked for.
Results of `lanewise bench` must be of the same path, model, dtype and threads. Another cpu or isa is warned of.
Exit code 1 when something became slower, 2 when there is nothing to compare, else 0.
"""
import json, statistics, sys


def refuse(message):
    print(f'compare.py: {message}', file=sys.stderr)
    sys.exit(2)


def read(path):
    """The file's document, machine and results, or the end of the program."""
    try:
        document = json.load(open(path))
        values, where = parse(document), machine(document)
        if not all(v > 0 for runs in values.values() for v in runs): values = {}
    except OSError as error:
        refuse(f'{path}: {error.strerror}')
    except json.JSONDecodeError as error:
        refuse(f'{path}: no JSON: {error}')
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError, ZeroDivisionError):
        values = {}
    if not values: refuse(f"{path}: no results of Lanewise's benchmarks")
    return document, where, values


def parse(result):
    """name -> values where more is better."""
    values = {}
    if 'benchmarks' in result:
        for b in result['benchmarks']:
            if b.get('run_type', 'iteration') == 'iteration':
                values.setdefault(b.get('run_name', b['name']), []).append(1 / b['real_time'])
    elif 'tokens_per_second' in result:
        values['tokens_per_second'] = [result['tokens_per_second']]
    else:
        for section, cases in result.items():
            for case, programs in cases.items():
                for program, runs in programs.items():
                    if isinstance(runs, list) and runs and 'tokens_per_second' in runs[0]:
                        values[f'{section}, {case}, {program}'] = [r['tokens_per_second'] for r in runs]
    return values


def differences(old, new, fields):
    """"dtype float32, bf16" for each of the fields that both have and that differs."""
    for field in fields:
        if field not in old or field not in new or old[field] == new[field]: continue
        if isinstance(old[field], dict) and isinstance(new[field], dict):
            yield from (f'{field} {text}' for text in differences(old[field], new[field], old[field]))
        else:
            yield f'{field} {old[field]}, {new[field]}'


def machine(document):
    """The cpu and isa of all that was run."""
    if 'benchmarks' in document:
        context = document.get('context', {})
        runs = [{'cpu': context.get('cpu'), 'isa': context.get('simd_target')}]
    elif 'tokens_per_second' in document:
        runs = [document]
    else:
        runs = [run for cases in document.values() for programs in cases.values() for runs in programs.values() for run in runs or []]
    found = {field: sorted({run[field] for run in runs if run.get(field)}) for field in ('cpu', 'isa')}
    return {field: ' and '.join(names) for field, names in found.items() if names}


def noise(values):
    middle = statistics.median(values)
    return statistics.median(abs(v - middle) for v in values) / middle


def compare(old, new):
    """(name, ratio, threshold) of what both have."""
    for name in old:
        if name in new:
            least = 0.03 if min(len(old[name]), len(new[name])) > 1 else 0.10
            yield (name, statistics.median(new[name]) / statistics.median(old[name]), max(least, 3 * (noise(old[name]) + noise(new[name]))))


def main():
    if {'-h', '--help'} & set(sys.argv[1:]):
        print(__doc__, end='')
        return
    if len(sys.argv) != 3: refuse('two files are compared\n' + __doc__)
    (old_document, old_machine, old), (new_document, new_machine, new) = read(sys.argv[1]), read(sys.argv[2])
    unlike = list(differences(old_document, new_document, ['path', 'model', 'dtype', 'threads']))
    if unlike: refuse(f"{sys.argv[1]} and {sys.argv[2]} measured different things: {'; '.join(unlike)}")
    for text in differences(old_machine, new_machine, ['cpu', 'isa']):
        print(f'compare.py: not the same machine: {text}', file=sys.stderr)
    if not old.keys() & new.keys(): refuse(f'{sys.argv[1]} and {sys.argv[2]} have no benchmark in common')
    slower = 0
    for name, ratio, threshold in compare(old, new):
        outside = abs(ratio - 1) > threshold
        slower += outside and ratio < 1
        print(f"{name:60} {ratio:6.3f} times  (noise {threshold:.1%})  {('faster' if ratio > 1 else 'SLOWER') if outside else ''}".rstrip())
    for name in old.keys() ^ new.keys():
        print(f"{name:60} only in {sys.argv[1] if name in old else sys.argv[2]}")
    sys.exit(1 if slower else 0)


if __name__ == '__main__':
    main()
