#!/usr/bin/env python3
"""Lanewise beside its peers, in interleaved runs: a page of tables and pictures.

usage: bench/report.py [--only training,decoding,prefill,kernels] [--cases TEXT] [--threads 1,2] [--rounds 5] [--dtypes float32,bf16]
Writes build/report/results.json (every single result; a later run adds to it), README.md and SVG pictures. `--only none` makes the page of
the results that are there.

Peers, each left out where it is missing: PyTorch and matplotlib (pip install -r bench/requirements.txt), gcc for the plain loops of
bench/peers/rows.c, llama.cpp's benchmark (--llama-bench PATH; it needs pip install gguf too). All run on as many threads as Lanewise.
Each round runs Lanewise and then every peer; figures are medians over the rounds, ratios are medians of each round's ratio, and Lanewise
probes the machine's peak within each of its runs. PyTorch's processes stay warm between rounds; compiling is not in the figures.
"""
import argparse, importlib.util, json, pathlib, statistics
import measure
from measure import note

TRAINING = {
    'llama 110M, 4 x 256': {'model': 'llama', 'preset': '110M', 'ctx': 256, 'batch': 4},
    'llama 4 x 128, 16 x 128': {'model': 'llama', 'layers': 4, 'dim': 128, 'heads': 4, 'ctx': 128, 'batch': 16},
    'llama 4 x 128, 12 x 64': {'model': 'llama', 'layers': 4, 'dim': 128, 'heads': 4, 'ctx': 64, 'batch': 12},
    'slot_rnn 4 x 128, 16 x 128': {'model': 'slot_rnn', 'layers': 4, 'dim': 128, 'heads': 4, 'ctx': 128, 'batch': 16},
    'slot_rnn 8 x 384, S 8, 4 x 512': {'model': 'slot_rnn', 'layers': 8, 'dim': 384, 'heads': 12, 'ctx': 512, 'batch': 4, 'slots': 8,
                                       'decay-rank': 32, 'ffn-mult': 3},
}
PRESETS = ['15M', '110M']
STREAMS = [1, 2, 4, 8, 16]
KERNELS = ['math', 'softmax', 'layer_norm', 'rms_norm', 'swiglu', 'cross_entropy', 'reduce', 'adamw']


def median(runs, field='tokens_per_second'):
    values = [r[field] for r in runs or [] if r.get(field) is not None]
    return statistics.median(values) if values else None


def ratio(ours, theirs):
    if not ours or not theirs: return None
    return statistics.median(o['tokens_per_second'] / t['tokens_per_second'] for o, t in zip(ours, theirs))


def show(value, form=',.0f'):
    return '' if value is None else format(value, form)


def table(head, rows):
    lines = ['| ' + ' | '.join(head) + ' |', '|' + '---|' * len(head)]
    return '\n'.join(lines + ['| ' + ' | '.join(row) + ' |' for row in rows]) + '\n'


def best_peer(programs, dtype):
    """(name, runs) of PyTorch's fastest mode."""
    peers = {name: runs for name, runs in programs.items() if name in (f'eager {dtype}', f'compile {dtype}')}
    return max(peers.items(), key=lambda item: median(item[1]), default=(None, None))


def training_part(cases, pictures):
    rows, labels, ratios, memory = [], [], [], {'Lanewise': [], 'PyTorch': []}
    for case, programs in cases.items():
        for dtype in ('float32', 'bf16'):
            ours = programs.get(f'lanewise {dtype}')
            if not ours: continue
            name, theirs = best_peer(programs, dtype)
            times = ratio(ours, theirs)
            mib = [m / 2**20 if m else None for m in (median(ours, 'peak_memory_bytes'), median(theirs, 'peak_memory_bytes'))]
            rows.append([case, dtype, show(median(ours)), show(median(ours, 'mfu'), '.0%'), show(median(programs.get(f'eager {dtype}'))),
                         show(median(programs.get(f'compile {dtype}'))), show(times, '.2f'), show(mib[0]), show(mib[1])])
            if times:
                labels.append(f'{case}, {dtype}')
                ratios.append(times)
                memory['Lanewise'].append(mib[0])
                memory['PyTorch'].append(mib[1])
    text = '## Training\n\n' + table(['step', 'dtype', 'Lanewise tokens/s', 'MFU', 'PyTorch eager', 'PyTorch compiled', 'times the better',
                                      'Lanewise MiB', 'PyTorch MiB'], rows)
    if ratios:
        pictures('training.svg', 'bars', "Training speed, times PyTorch's better mode", labels, ratios, line=1)
        pictures('memory.svg', 'groups', 'Peak memory', labels, memory, 'MiB')
        text += '\n![Training speed](training.svg)\n![Peak memory](memory.svg)\n'
    return text


def decoding_part(cases, pictures):
    rows, lines = [], {}
    for case, programs in cases.items():
        for dtype in ('float32', 'bf16'):
            one = programs.get(f'lanewise {dtype} x1')
            if not one: continue
            points = [(int(name.split('x')[-1]), median(runs)) for name, runs in programs.items() if name.startswith(f'lanewise {dtype} x')]
            lines[f'{case}, {dtype}'] = points
            share = statistics.median(r['bandwidth_share'] for r in one)
            rows.append([case, dtype, show(median(one)), show(share, '.0%'), show(ratio(one, programs.get(f'llama.cpp {dtype}')), '.2f'),
                         show(ratio(one, programs.get(f'rows.c {dtype}')), '.2f'),
                         ', '.join(f'{n}: {speed:,.0f} ({speed / points[0][1]:.1f})' for n, speed in points[1:])])
    text = '## Decoding\n\n' + table(['model', 'dtype', 'tokens/s', 'of read bandwidth', 'times llama.cpp', 'times plain loops',
                                      'several sequences: tokens/s (times one)'], rows)
    if lines:
        pictures('decoding.svg', 'lines', 'Decoding several sequences at once', 'sequences', 'tokens/s', lines)
        text += '\n![Decoding](decoding.svg)\n'
    return text


def prefill_part(cases, pictures):
    rows = [[case, dtype, show(median(programs[f'lanewise {dtype}'])), show(median(programs[f'lanewise {dtype}'], 'mfu'), '.0%'),
             show(ratio(programs[f'lanewise {dtype}'], programs.get(f'llama.cpp {dtype}')), '.2f')]
            for case, programs in cases.items() for dtype in ('float32', 'bf16') if f'lanewise {dtype}' in programs]
    return '## Prefill of 512 tokens\n\n' + table(['model', 'dtype', 'tokens/s', 'of FMA peak', 'times llama.cpp'], rows)


def kernels_part(cases, pictures):
    results = cases.get('all', {})
    rows = [[name, show(median(runs, 'GB_per_second'), '.1f'), show(median(runs, 'of_bandwidth'), '.0%'), show(median(runs, 'vs_loop'), '.2f')]
            for name, runs in results.items()]
    with_loop = [(name, median(runs, 'vs_loop')) for name, runs in results.items() if median(runs, 'vs_loop')]
    text = '## Kernels\n\nBeside the same loop compiled by g++ -O3 -march=native -ffast-math, and beside copying as many bytes. One thread.\n\n'
    text += table(['kernel', 'GB/s', 'of copying', 'times the loop'], rows)
    if with_loop:
        pictures('kernels.svg', 'bars', 'Kernels, times the compiled loop', [name for name, _ in with_loop], [v for _, v in with_loop], line=1)
        text += '\n![Kernels](kernels.svg)\n'
    return text


def page(results, out):
    plots = None
    if importlib.util.find_spec('matplotlib'):
        import plots

    def pictures(name, kind, *arguments, **options):
        if plots: getattr(plots, kind)(out / name, *arguments, **options)

    runs = [r for section in results.values() for case in section.values() for list_ in case.values() for r in list_]
    cpus = ', '.join(sorted({r['cpu'] for r in runs if 'cpu' in r})) or 'This machine'
    torch = ', '.join(sorted({'PyTorch ' + r['torch'] for r in runs if 'torch' in r}))
    text = f'# Measured\n\n{cpus}{"; " + torch if torch else ""}. Medians of interleaved rounds; bench/report.py made this page.\n\n'
    parts = {'training': training_part, 'decoding': decoding_part, 'prefill': prefill_part, 'kernels': kernels_part}
    text += '\n'.join(part(results[name], pictures) for name, part in parts.items() if results.get(name))
    (out / 'README.md').write_text(text)
    return text


def run(a, results, save):
    modes = a.modes if importlib.util.find_spec('torch') else []
    for threads in map(int, a.threads.split(',')):
        def add(section, name, runs):
            results.setdefault(section, {}).setdefault(f"{name}, {threads} thread{'s' if threads > 1 else ''}", {}).update(runs)
            save()

        for name, config in TRAINING.items() if 'training' in a.only else []:
            if a.cases not in name: continue
            note(f'training: {name}, {threads} threads')
            add('training', name, measure.training(a.program, config, threads, a.rounds, a.dtypes, modes, a.seconds))
        for preset in PRESETS:
            if a.cases not in preset: continue
            if 'decoding' in a.only:
                note(f'decoding: {preset}, {threads} threads')
                add('decoding', preset, measure.decoding(a.program, preset, threads, a.rounds, a.dtypes, STREAMS, a.out, a.llama_bench))
            if 'prefill' in a.only:
                note(f'prefill: {preset}, {threads} threads')
                add('prefill', preset, measure.prefill(a.program, preset, threads, a.rounds, a.dtypes, a.out, a.llama_bench))
    if 'kernels' in a.only:
        note('kernels')
        folder = pathlib.Path(a.program).parent / 'bench'
        results.setdefault('kernels', {})['all'] = measure.kernels([folder / f'{name}_bench' for name in KERNELS], a.rounds)
        save()


def list_of(known):
    """The type of an option that takes some of `known`, separated by commas."""
    def parse(text):
        words = text.split(',')
        for word in words:
            if word not in known: raise argparse.ArgumentTypeError(f"there is no '{word}'; there are {', '.join(known)}")
        return words
    return parse


def check_cases(p, a):
    """Ends the program where --cases leaves nothing of what --only asks for."""
    names = [*(TRAINING if 'training' in a.only else []), *(PRESETS if {'decoding', 'prefill'} & set(a.only) else [])]
    if names and not any(a.cases in name for name in names):
        p.error(f"argument --cases: no name has '{a.cases}' in it; the cases are\n  " + '\n  '.join(names))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--program', default='build/release/lanewise')
    p.add_argument('--out', default='build/report', type=pathlib.Path)
    p.add_argument('--only', default='training,decoding,prefill,kernels',
                   type=list_of(['training', 'decoding', 'prefill', 'kernels', 'none']))
    p.add_argument('--cases', default='', help='only cases with this text in their names')
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--threads', default='2')
    p.add_argument('--dtypes', default='float32', type=list_of(['float32', 'bf16']))
    p.add_argument('--modes', default='eager,compile', type=list_of(['eager', 'compile']), help="PyTorch's")
    p.add_argument('--seconds', type=float, default=3, help='of PyTorch in each round')
    p.add_argument('--llama-bench', default='')
    a = p.parse_args()
    check_cases(p, a)
    a.out.mkdir(parents=True, exist_ok=True)
    path = a.out / 'results.json'
    results = json.loads(path.read_text()) if path.exists() else {}
    run(a, results, lambda: path.write_text(json.dumps(results, indent=1)))
    print(page(results, a.out))


if __name__ == '__main__':
    main()
