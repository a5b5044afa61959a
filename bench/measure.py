"""Runs programs in turns: each round has one result of every program, so that a machine whose speed wanders changes them together."""
import json, pathlib, shlex, subprocess, sys, tempfile

HERE = pathlib.Path(__file__).resolve().parent


def note(text):
    print(text, file=sys.stderr, flush=True)


class Command:
    """A program that is started for each round and prints JSON; `pick` takes the result from it."""

    def __init__(self, words, pick=lambda result: result):
        self.words, self.pick = [str(word) for word in words], pick

    def run(self):
        done = subprocess.run(self.words, capture_output=True, text=True)
        if done.returncode != 0:
            note(f'failed: {shlex.join(self.words)}\n{done.stderr[-800:]}')
            return None
        return self.pick(json.loads(done.stdout))

    def close(self):
        pass


class Server:
    """A program that stays warm between rounds: it says "ready", then answers each line with a line of JSON."""

    def __init__(self, words, seconds):
        self.words, self.seconds = [str(word) for word in words], seconds
        self.messages = tempfile.TemporaryFile()  # nobody reads a pipe meanwhile, and a full one would stop the program
        self.process = subprocess.Popen(self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.messages, text=True)
        if self.process.stdout.readline().strip() != 'ready':
            self.fail()
            self.close()
            raise OSError

    def fail(self):
        self.process.kill()
        self.process.wait()
        self.messages.seek(0)
        note(f'failed: {shlex.join(self.words)}\n{self.messages.read().decode(errors="replace")[-800:]}')

    def run(self):
        try:
            self.process.stdin.write(f'{self.seconds}\n')
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            self.fail()

    def close(self):
        try:
            self.process.stdin.close()
        except OSError:
            pass
        self.process.wait()


def lanewise(program, what, options):
    return [program, 'bench', what, '--json'] + [word for name, value in options.items() for word in (f'--{name}', value)]


def in_turns(programs, rounds):
    """name -> list of results, the same index in each list is the same round. A program that fails is left out."""
    results = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            if results[name] is not None:
                result = program.run()
                results[name] = None if result is None else results[name] + [result]
    for program in programs.values():
        program.close()
    return {name: list_ for name, list_ in results.items() if list_}


def training(program, config, threads, rounds, dtypes, modes, seconds):
    """The training step of one configuration: Lanewise, and PyTorch in each mode with the sizes that Lanewise says it has."""
    programs, sizes = {}, None
    for dtype in dtypes:
        command = Command(lanewise(program, 'train', config | {'threads': threads, 'dtype': dtype}))
        first = command.run()
        if first is None: continue
        sizes = first['model']
        programs[f'lanewise {dtype}'] = command
    if sizes is None: return {}
    names = {'vocab_size': 'vocab'}
    wanted = ('model', 'layers', 'dim', 'heads', 'kv_heads', 'hidden_dim', 'slots', 'decay_rank', 'ffn_mult', 'vocab_size', 'ctx', 'batch')
    options = [word for name in wanted if name in sizes for word in (f"--{names.get(name, name).replace('_', '-')}", sizes[name])]
    for dtype in dtypes:
        for mode in modes:
            words = [sys.executable, HERE / 'peers/torch_step.py', *options, '--threads', threads, '--dtype', dtype, '--serve']
            note(f'  starting PyTorch, {mode} {dtype}')
            try:
                programs[f'{mode} {dtype}'] = Server(words + (['--compile'] if mode == 'compile' else []), seconds)
            except OSError:
                pass
    return in_turns(programs, rounds)


def sizes_of(result):
    """The sizes of a llama under the names of the peers' options."""
    m = result['model']
    return {'layers': m['layers'], 'dim': m['dim'], 'heads': m['heads'], 'kv-heads': m['kv_heads'], 'hidden-dim': m['hidden_dim'],
            'vocab': m['vocab_size'], 'ctx': m['ctx']}


def llama_bench(path, model, threads, prompt=0, tokens=0):
    """One run of llama.cpp's own benchmark."""
    return Command([path, '-m', model, '-t', threads, '-p', prompt, '-n', tokens, '-r', 1, '-o', 'json'],
                   lambda runs: {'tokens_per_second': runs[0]['avg_ts'], 'threads': threads})


def gguf(folder, sizes, dtype):
    path = folder / f"llama_{sizes['layers']}x{sizes['dim']}_{dtype}.gguf"
    if not path.exists():
        words = [word for name, value in sizes.items() for word in (f'--{name}', str(value))]
        subprocess.run([sys.executable, HERE / 'peers/llama_gguf.py', path, *words, '--dtype', dtype], check=True)
    return path


def rows_program(folder):
    """The plain C program, compiled for this machine; None without a compiler."""
    path = folder / 'rows'
    words = ['gcc', '-O3', '-march=native', '-ffast-math', '-fopenmp', str(HERE / 'peers/rows.c'), '-lm', '-o', str(path)]
    return path if subprocess.run(words).returncode == 0 else None


def first_sizes(program, what, config):
    result = Command(lanewise(program, what, config | {'steps': 1})).run()
    if result is None: raise OSError(f'{program} does not run')
    return sizes_of(result)


def decoding(program, preset, threads, rounds, dtypes, streams, folder, llama_bench_path):
    """Tokens one at a time: Lanewise with one and more sequences, the plain loops, llama.cpp."""
    config = {'model': 'llama', 'preset': preset, 'ctx': 128, 'threads': threads}
    sizes, programs = first_sizes(program, 'decode', config), {}
    for dtype in dtypes:
        for count in streams:
            programs[f'lanewise {dtype} x{count}'] = Command(lanewise(program, 'decode', config | {'dtype': dtype, 'batch': count, 'steps': 12}))
        if llama_bench_path:
            programs[f'llama.cpp {dtype}'] = llama_bench(llama_bench_path, gguf(folder, sizes, dtype), threads, tokens=128)
    rows = rows_program(folder)
    if rows:
        order = [sizes[name] for name in ('layers', 'dim', 'heads', 'kv-heads', 'hidden-dim', 'vocab')]
        programs['rows.c float32'] = Command(['env', f'OMP_NUM_THREADS={threads}', rows, *order, 128])
    return in_turns(programs, rounds)


def prefill(program, preset, threads, rounds, dtypes, folder, llama_bench_path):
    """A prompt of 512 tokens."""
    config, programs = {'model': 'llama', 'preset': preset, 'ctx': 512, 'threads': threads}, {}
    sizes = first_sizes(program, 'prefill', config)
    for dtype in dtypes:
        programs[f'lanewise {dtype}'] = Command(lanewise(program, 'prefill', config | {'dtype': dtype, 'steps': 3}))
        if llama_bench_path:
            programs[f'llama.cpp {dtype}'] = llama_bench(llama_bench_path, gguf(folder, sizes, dtype), threads, prompt=512)
    return in_turns(programs, rounds)


def kernels(programs, repetitions):
    """benchmark -> results of the kernels' own programs: times as many plain loops, share of the bandwidth."""
    results = {}
    for program in filter(pathlib.Path.exists, programs):
        words = [str(program), '--benchmark_format=json', f'--benchmark_repetitions={repetitions}', '--benchmark_min_time=0.05']
        done = subprocess.run(words, capture_output=True, text=True)
        for b in json.loads(done.stdout)['benchmarks'] if done.returncode == 0 else []:
            if b.get('run_type') == 'iteration' and 'of_bandwidth' in b:
                results.setdefault(b['run_name'], []).append({key: b[key] for key in ('vs_loop', 'of_bandwidth', 'GB_per_second') if key in b})
    return results
