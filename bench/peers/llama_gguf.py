"""Writes a llama with random weights as GGUF: what llama.cpp's llama-bench runs beside `lanewise bench prefill|decode`.

usage: llama_gguf.py OUT.gguf --layers N --dim N --heads N --kv-heads N --hidden-dim N --vocab N --ctx N [--dtype float32|bf16]
Needs pip install gguf numpy. Output matrix tied to the embedding, as in the presets; no tokenizer inside.
"""
import argparse
import gguf, numpy

p = argparse.ArgumentParser()
p.add_argument('out')
for name in ('layers', 'dim', 'heads', 'kv-heads', 'hidden-dim', 'vocab', 'ctx'):
    p.add_argument(f'--{name}', type=int, required=True)
p.add_argument('--dtype', default='float32', choices=['float32', 'bf16'])
a = p.parse_args()
random = numpy.random.default_rng(1)
kind = gguf.GGMLQuantizationType.BF16 if a.dtype == 'bf16' else gguf.GGMLQuantizationType.F32
w = gguf.GGUFWriter(a.out, 'llama')
w.add_context_length(a.ctx)
w.add_embedding_length(a.dim)
w.add_block_count(a.layers)
w.add_feed_forward_length(a.hidden_dim)
w.add_head_count(a.heads)
w.add_head_count_kv(a.kv_heads)
w.add_layer_norm_rms_eps(1e-5)
w.add_rope_dimension_count(a.dim // a.heads)
w.add_vocab_size(a.vocab)
w.add_tokenizer_model('none')


def matrix(name, rows, cols):
    values = random.normal(0, 0.02, (rows, cols)).astype(numpy.float32)
    w.add_tensor(name + '.weight', gguf.quants.quantize(values, kind) if a.dtype == 'bf16' else values, raw_dtype=kind)


def vector(name):
    w.add_tensor(name + '.weight', numpy.ones(a.dim, numpy.float32))


matrix('token_embd', a.vocab, a.dim)
vector('output_norm')
for i in range(a.layers):
    kv = a.dim // a.heads * a.kv_heads
    for part, rows, cols in (('attn_q', a.dim, a.dim), ('attn_k', kv, a.dim), ('attn_v', kv, a.dim), ('attn_output', a.dim, a.dim),
                             ('ffn_gate', a.hidden_dim, a.dim), ('ffn_up', a.hidden_dim, a.dim), ('ffn_down', a.dim, a.hidden_dim)):
        matrix(f'blk.{i}.{part}', rows, cols)
    vector(f'blk.{i}.attn_norm')
    vector(f'blk.{i}.ffn_norm')
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
