"""One training configuration of a Lanewise model in PyTorch: the peer of `lanewise bench train`.

usage: torch_step.py --model llama|slot_rnn [sizes] [--dtype float32|bf16] [--compile] [--threads N] [--seconds S | --serve]
Prints one line of JSON: tokens_per_second (median of the timed steps), peak_memory_bytes (without what compiling took), model, dtype,
mode, threads, torch. With --serve it says "ready" when it is warm, and then measures for as many seconds as each line of its input says.
The same mathematics, sizes, loss, clipping and AdamW as Lanewise; PyTorch's own kernels. bf16 is autocast: weights and moments are float32.
"""
import argparse, json, os, resource, statistics, sys, time

p = argparse.ArgumentParser()
p.add_argument('--model', default='llama')
for name, value in dict(layers=4, dim=128, heads=4, ctx=128, batch=16, vocab=65, slots=4, threads=2).items():
    p.add_argument(f'--{name}', type=int, default=value)
p.add_argument('--kv-heads', type=int)
p.add_argument('--hidden-dim', type=int)
p.add_argument('--decay-rank', type=int, default=2)
p.add_argument('--ffn-mult', type=float, default=2.0)
p.add_argument('--chunk', type=int, default=16, help='tokens of one chunk of the recurrence (slot_rnn)')
p.add_argument('--dtype', default='float32', choices=['float32', 'bf16'])
p.add_argument('--compile', action='store_true')
p.add_argument('--seconds', type=float, default=4.0)
p.add_argument('--serve', action='store_true')
a = p.parse_args()
os.environ['OMP_NUM_THREADS'] = str(a.threads)
import torch
torch.set_num_threads(a.threads)
torch.manual_seed(1)
F, nn = torch.nn.functional, torch.nn


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.hd, self.kv = a.dim // a.heads, a.kv_heads or a.heads
        hidden = a.hidden_dim or (8 * a.dim // 3 + 31) // 32 * 32
        self.emb = nn.Embedding(a.vocab, a.dim)
        self.layers = nn.ModuleList()
        for _ in range(a.layers):
            l = nn.Module()
            l.n1, l.n2 = nn.Parameter(torch.ones(a.dim)), nn.Parameter(torch.ones(a.dim))
            l.qkv = nn.Linear(a.dim, (a.heads + 2 * self.kv) * self.hd, bias=False)
            l.o = nn.Linear(a.dim, a.dim, bias=False)
            l.w13, l.w2 = nn.Linear(a.dim, 2 * hidden, bias=False), nn.Linear(hidden, a.dim, bias=False)
            self.layers.append(l)
        self.norm = nn.Parameter(torch.ones(a.dim))
        angle = torch.arange(a.ctx)[:, None] * 10000.0 ** (-torch.arange(0, self.hd, 2) / self.hd)[None]
        self.register_buffer('cos', angle.cos()), self.register_buffer('sin', angle.sin())
        for w in self.parameters():
            if w.dim() > 1: nn.init.normal_(w, 0, 0.02)

    def rope(self, x):
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack([even * self.cos - odd * self.sin, even * self.sin + odd * self.cos], -1).flatten(-2)

    def forward(self, tokens):
        B, T = tokens.shape
        rms = lambda x, w: F.rms_norm(x, (a.dim,), w, 1e-5)
        x = self.emb(tokens)
        for l in self.layers:
            q, k, v = l.qkv(rms(x, l.n1)).view(B, T, -1, self.hd).transpose(1, 2).split([a.heads, self.kv, self.kv], 1)
            q, k = self.rope(q), self.rope(k)
            y = F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), is_causal=True, enable_gqa=self.kv != a.heads)
            x = x + l.o(y.transpose(1, 2).reshape(B, T, a.dim))
            g, u = l.w13(rms(x, l.n2)).chunk(2, -1)
            x = x + l.w2(F.silu(g) * u)
        return F.linear(rms(x, self.norm), self.emb.weight)


class SlotRnn(nn.Module):
    """The recurrence in chunks: pairwise decays within a chunk, a state between chunks."""

    def __init__(self):
        super().__init__()
        E, S, R, Fw = a.dim, a.slots, a.decay_rank, int(a.dim * a.ffn_mult)
        self.emb = nn.Embedding(a.vocab, E)
        self.ln0, self.ln_out = nn.LayerNorm(E, eps=1e-6), nn.LayerNorm(E, eps=1e-6)
        self.head = nn.Linear(E, a.vocab, bias=False)
        self.layers = nn.ModuleList()
        for _ in range(a.layers):
            l = nn.Module()
            l.ln1, l.ln2 = nn.LayerNorm(E, eps=1e-6), nn.LayerNorm(E, eps=1e-6)
            l.shift = nn.Parameter(torch.rand(3, E))
            l.mix = nn.Parameter(torch.full((4, E), 0.5))
            l.low = nn.Linear(E, 2 * S + R, bias=False)
            l.lora_b = nn.Linear(R, E, bias=False)
            l.base = nn.Parameter(torch.linspace(-1, 6, E // a.heads).repeat(a.heads))
            l.first = nn.Parameter(torch.full((E,), -3.0))
            l.r, l.k, l.v, l.o = (nn.Linear(E, E, bias=False) for _ in range(4))
            l.gate_up, l.down = nn.Linear(E, 2 * Fw, bias=False), nn.Linear(Fw, E, bias=False)
            self.layers.append(l)
        slope = torch.tensor([2.0 ** (-8.0 * (h + 1) / a.heads) for h in range(a.heads)]).repeat_interleave(E // a.heads)
        self.register_buffer('slope', slope)

    def wkv(self, k, v, log_a, u, wg, rg):
        B, T, E = k.shape
        C = min(a.chunk, T)
        n = T // C
        cut = lambda x: x.view(B, n, C, -1)
        k, v, log_a, wg, rg = map(cut, (k, v, log_a, wg, rg))
        total = log_a.cumsum(2)                                   # log of the decay from the chunk's start, inclusive
        before = total - log_a                                    # ... of what step t reads
        past = torch.ones(C, C, dtype=torch.bool, device=k.device).tril(-1)
        pair = (before[:, :, :, None] - total[:, :, None]).masked_fill(~past[None, None, :, :, None], float('-inf')).exp()
        gates = rg @ wg.transpose(-1, -2)                         # [B,n,C,C]
        weight = pair * gates[..., None]
        num = torch.einsum('bntse,bnse->bnte', weight, k * v)
        den = torch.einsum('bntse,bnse->bnte', weight, k)
        to_end = (total[:, :, -1:] - total).exp()
        local = torch.einsum('bnts,bnte->bnse', wg, torch.cat([to_end * k * v, to_end * k], -1))
        whole = total[:, :, -1].exp().repeat(1, 1, 2)             # [B,n,2E]
        state, starts = torch.zeros(B, a.slots, 2 * E), []
        for i in range(n):
            starts.append(state)
            state = whole[:, i, None] * state + local[:, i]
        read = torch.einsum('bnts,bnse->bnte', rg, torch.stack(starts, 1)) * before.exp().repeat(1, 1, 1, 2)
        num, den = num + read[..., :E], den + read[..., E:]
        return ((num + u * k * v) / (den + u * k + 1e-6)).reshape(B, T, E)

    def forward(self, tokens):
        x = self.ln0(self.emb(tokens))
        back = lambda n, d: F.pad(n, (0, 0, d, 0))[:, :-d]
        for l in self.layers:
            n = l.ln1(x)
            s = torch.sigmoid(l.shift)
            sh = (s[0] * back(n, 1) + s[1] * back(n, 2) + s[2] * back(n, 4)) / (s.sum(0) + 1e-6)
            m = torch.sigmoid(l.mix)
            xr, xk, xv = (n * m[i] + sh * (1 - m[i]) for i in range(3))
            low = l.low(n)
            wg, rg = low[..., :a.slots].softmax(-1), low[..., a.slots:2 * a.slots].softmax(-1)
            log_a = F.logsigmoid(l.base + l.lora_b(low[..., 2 * a.slots:])) - self.slope
            k = torch.exp(l.k(xk).clamp(-10, 10))
            with torch.autocast('cpu', enabled=False):
                y = self.wkv(k.float(), l.v(xv).float(), log_a.float(), torch.exp(l.first.clamp(-10, 10)), wg.float(), rg.float())
            x = x + l.o(torch.sigmoid(l.r(xr)) * y)
            n = l.ln2(x)
            g, u = l.gate_up(n * m[3] + back(n, 1) * (1 - m[3])).chunk(2, -1)
            x = x + l.down(F.silu(g) * u)
        return self.head(self.ln_out(x))


model = Llama() if a.model == 'llama' else SlotRnn()
decay = [w for w in model.parameters() if w.dim() > 1]
rest = [w for w in model.parameters() if w.dim() <= 1]
optimizer = torch.optim.AdamW([{'params': decay, 'weight_decay': 0.1}, {'params': rest, 'weight_decay': 0.0}],
                              lr=1e-3, betas=(0.9, 0.95), fused=True)
forward = torch.compile(model) if a.compile else model
tokens = torch.randint(0, a.vocab, (a.batch, a.ctx))
targets = torch.randint(0, a.vocab, (a.batch, a.ctx))


def step():
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=a.dtype == 'bf16'):
        logits = forward(tokens)
    loss = F.cross_entropy(logits.float().view(-1, a.vocab), targets.view(-1))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def peak_memory():
    """Bytes of the largest resident size since forget_peak."""
    try:
        return next(int(line.split()[1]) * 1024 for line in open('/proc/self/status') if line.startswith('VmHWM'))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak():
    """What compiling took does not count."""
    try:
        open('/proc/self/clear_refs', 'w').write('5')
    except OSError:
        pass


def measure(seconds):
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return {'tokens_per_second': a.batch * a.ctx / statistics.median(times), 'peak_memory_bytes': peak_memory(),
            'parameters': sum(w.numel() for w in model.parameters()), 'model': a.model, 'dtype': a.dtype,
            'mode': 'compile' if a.compile else 'eager', 'threads': a.threads, 'torch': torch.__version__}


for _ in range(2): step()
forget_peak()
if a.serve:
    print('ready', flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(float(line))), flush=True)
else:
    print(json.dumps(measure(a.seconds)))
