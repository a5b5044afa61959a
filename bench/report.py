#!/usr/bin/env python3
"""Lanewise beside PyTorch on the same training steps, in interleaved runs: a page of tables and a picture.

usage: bench/report.py [--program build/release/lanewise] [--out build/report] [--rounds 3] [--threads 1,2] [--filter TEXT]
Needs PyTorch for the CPU (pip install torch==2.13.0); without it the page has Lanewise alone. Each round runs Lanewise and then every
mode of PyTorch; the figures are medians over the rounds, ratios are medians of each round's ratio. Lanewise probes this machine's peak
within each of its runs.
"""
import argparse, json, pathlib, statistics, subprocess, sys

CONFIGS = [
    ('slot_rnn small (4 x 128, 16 x 128)', dict(model='slot_rnn', layers=4, dim=128, heads=4, ctx=128, batch=16, vocab=65)),
    ('slot_rnn large (8 x 384, S 8, 4 x 512)', {'model': 'slot_rnn', 'layers': 8, 'dim': 384, 'heads': 12, 'ctx': 512, 'batch': 4, 'vocab': 65,
                                     'slots': 8, 'decay-rank': 32, 'ffn-mult': 3}),
    ('llama small (4 x 128, 16 x 128)', dict(model='llama', layers=4, dim=128, heads=4, ctx=128, batch=16, vocab=65)),
    ('llama small (4 x 128, 12 x 64)', dict(model='llama', layers=4, dim=128, heads=4, ctx=64, batch=12, vocab=65)),
    ('llama 110M (4 x 256)', {'model': 'llama', 'layers': 12, 'dim': 768, 'heads': 12, 'hidden-dim': 2048, 'ctx': 256, 'batch': 4, 'vocab': 32000}),
]
HERE = pathlib.Path(__file__).resolve().parent


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"failed: {' '.join(command)}\n{done.stderr[-500:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout)


def options(config):
    return [word for name, value in config.items() for word in (f'--{name}', str(value))]


def measure(config, threads, rounds, program, modes):
    """mode -> list of results, one a round."""
    results = {'lanewise': []} | {mode: [] for mode in modes}
    for _ in range(rounds):
        results['lanewise'].append(run([program, 'bench', 'train', *options(config), '--threads', str(threads), '--json']))
        for mode in modes:
            words = ['--compile'] if mode == 'compile' else []
            results[mode].append(run([sys.executable, str(HERE / 'peers/torch_step.py'), *options(config), '--threads', str(threads), *words]))
        print('.', end='', flush=True, file=sys.stderr)
    print(file=sys.stderr)
    return {mode: [r for r in list_ if r] for mode, list_ in results.items()}


def median(results, field):
    return statistics.median(r[field] for r in results) if results else float('nan')


def bars(rows):
    """A picture of ratios to PyTorch's best mode."""
    width, line, left = 720, 34, 300
    longest = max([1.0] + [ratio for _, ratio in rows])
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{line * len(rows) + 50}" font-family="sans-serif" font-size="13">',
             '<rect width="100%" height="100%" fill="white"/>',
             '<text x="12" y="22" font-weight="bold">Training speed, times PyTorch\'s best mode</text>']
    scale = (width - left - 70) / longest
    for i, (label, ratio) in enumerate(rows):
        y = 40 + i * line
        parts.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{label}</text>'
                     f'<rect x="{left}" y="{y}" width="{ratio * scale:.1f}" height="22" fill="#3b6fb6"/>'
                     f'<text x="{left + ratio * scale + 6:.1f}" y="{y + 15}">{ratio:.2f}</text>')
    parts.append(f'<line x1="{left + scale:.1f}" y1="34" x2="{left + scale:.1f}" y2="{40 + line * len(rows)}" stroke="#888" stroke-dasharray="4 3"/></svg>')
    return '\n'.join(parts)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--program', default='build/release/lanewise')
    p.add_argument('--out', default='build/report')
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--threads', default='2')
    p.add_argument('--filter', default='')
    p.add_argument('--modes', default='eager,compile')
    a = p.parse_args()
    try:
        import torch
        modes = a.modes.split(',')
        version = f'PyTorch {torch.__version__}'
    except ImportError:
        modes, version = [], 'no PyTorch here'
    out = pathlib.Path(a.out)
    out.mkdir(parents=True, exist_ok=True)
    lines, pictures = [], []
    for threads in map(int, a.threads.split(',')):
        for name, config in CONFIGS:
            if a.filter not in name: continue
            print(f'{name}, {threads} threads ', end='', file=sys.stderr)
            results = measure(config, threads, a.rounds, a.program, modes)
            ours = results['lanewise']
            if not ours: continue
            peers = {m: results[m] for m in modes if results[m]}
            best = max(peers, key=lambda m: median(peers[m], 'tokens_per_second'), default=None)
            ratio = statistics.median(o['tokens_per_second'] / t['tokens_per_second'] for o, t in zip(ours, peers[best])) if best else float('nan')
            cpu = ours[0]['cpu']
            peer = (f"{median(peers[best], 'tokens_per_second'):,.0f} ({best})" if best else '')
            memory = f"{median(peers[best], 'peak_memory_bytes') / 2**20:,.0f}" if best else ''
            lines.append(f"| {name} | {threads} | {median(ours, 'tokens_per_second'):,.0f} | {100 * median(ours, 'mfu'):.0f}% | {peer} | {ratio:.2f} | "
                         f"{median(ours, 'peak_memory_bytes') / 2**20:,.0f} | {memory} |")
            if best: pictures.append((f'{name}, {threads} threads', ratio))
    page = (f'# Training speed\n\n{cpu}; {version}; float32; medians of {a.rounds} interleaved rounds.\n\n'
            '| step | threads | Lanewise tokens/s | MFU | PyTorch tokens/s, best mode | ratio | Lanewise MiB | PyTorch MiB |\n|---|---|---|---|---|---|---|---|\n'
            + '\n'.join(lines) + '\n')
    if pictures:
        (out / 'training.svg').write_text(bars(pictures))
        page += '\n![Training speed beside PyTorch](training.svg)\n'
    (out / 'README.md').write_text(page)
    print(page)


if __name__ == '__main__':
    main()
