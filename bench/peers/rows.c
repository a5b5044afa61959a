// Decoding by plain loops, a row of weights at a time: what a short C program makes of a llama.
// The peer of `lanewise bench decode`; random weights, random tokens, greedy choice left out.
//
//   gcc -O3 -march=native -ffast-math -fopenmp rows.c -lm -o rows
//   rows LAYERS DIM HEADS KV_HEADS HIDDEN VOCAB TOKENS
//
// Prints JSON: tokens_per_second, the median over portions of 16 tokens. Threads: OMP_NUM_THREADS.
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kPortion = 16 };

static int layers, dim, heads, kv_heads, hidden, vocab, tokens;

static float* Random(size_t count, float scale) {
  float* p = aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64);
  unsigned state = 12345 + (unsigned)count;
  for (size_t i = 0; i < count; ++i) {
    state = state * 1664525u + 1013904223u;
    p[i] = scale * ((float)(state >> 8) / 8388608.0f - 1.0f);
  }
  return p;
}

// out [n] = w [n, k] x, each row by itself.
static void Product(float* out, const float* x, const float* w, int n, int k) {
#pragma omp parallel for
  for (int i = 0; i < n; ++i) {
    float sum = 0;
    for (int j = 0; j < k; ++j) sum += w[(size_t)i * k + j] * x[j];
    out[i] = sum;
  }
}

static void Norm(float* out, const float* x, const float* w) {
  float squares = 0;
  for (int i = 0; i < dim; ++i) squares += x[i] * x[i];
  const float scale = 1.0f / sqrtf(squares / dim + 1e-5f);
  for (int i = 0; i < dim; ++i) out[i] = w[i] * scale * x[i];
}

static void Rotate(float* x, int count, int head_dim, int position) {
  for (int i = 0; i < count; i += 2) {
    const float angle = position * powf(10000.0f, -(float)(i % head_dim) / head_dim);
    const float c = cosf(angle), s = sinf(angle), a = x[i], b = x[i + 1];
    x[i] = a * c - b * s;
    x[i + 1] = a * s + b * c;
  }
}

static void Attend(float* out, const float* q, const float* keys, const float* values, int position,
                   float* scores) {
  const int head_dim = dim / heads, kv_dim = head_dim * kv_heads;
#pragma omp parallel for
  for (int h = 0; h < heads; ++h) {
    const int kv = h / (heads / kv_heads) * head_dim;
    float* p = scores + (size_t)h * tokens;
    float largest = -INFINITY, sum = 0;
    for (int t = 0; t <= position; ++t) {
      float dot = 0;
      for (int i = 0; i < head_dim; ++i) dot += q[h * head_dim + i] * keys[(size_t)t * kv_dim + kv + i];
      p[t] = dot / sqrtf((float)head_dim);
      if (p[t] > largest) largest = p[t];
    }
    for (int t = 0; t <= position; ++t) sum += p[t] = expf(p[t] - largest);
    float* o = out + h * head_dim;
    memset(o, 0, (size_t)head_dim * sizeof(float));
    for (int t = 0; t <= position; ++t) {
      for (int i = 0; i < head_dim; ++i) o[i] += p[t] / sum * values[(size_t)t * kv_dim + kv + i];
    }
  }
}

static int Compare(const void* a, const void* b) {
  return (*(const double*)a > *(const double*)b) - (*(const double*)a < *(const double*)b);
}

int main(int argc, char** argv) {
  int* const sizes[] = {&layers, &dim, &heads, &kv_heads, &hidden, &vocab, &tokens};
  if (argc != 8) return 2;
  for (int i = 0; i < 7; ++i) *sizes[i] = atoi(argv[i + 1]);
  const size_t kv_dim = (size_t)dim / heads * kv_heads, d = dim, cache = (size_t)tokens * kv_dim;
  float* embedding = Random(vocab * d, 0.05f);
  float *norms = Random((2 * layers + 1) * d, 1), *wq = Random(layers * d * d, 0.05f);
  float *wk = Random(layers * d * kv_dim, 0.05f), *wv = Random(layers * d * kv_dim, 0.05f);
  float *wo = Random(layers * d * d, 0.05f), *w1 = Random(layers * d * hidden, 0.05f);
  float *w2 = Random(layers * d * hidden, 0.05f), *w3 = Random(layers * d * hidden, 0.05f);
  float *keys = Random(layers * cache, 0), *values = Random(layers * cache, 0);
  float *x = Random(d, 0), *n = Random(d, 0), *q = Random(d, 0), *y = Random(d, 0);
  float *g = Random(hidden, 0), *u = Random(hidden, 0), *logits = Random(vocab, 0);
  float* scores = Random((size_t)heads * tokens, 0);
  double* speeds = calloc((size_t)tokens / kPortion + 1, sizeof(double));
  double begin = omp_get_wtime();
  for (int t = 0; t < tokens; ++t) {
    memcpy(x, embedding + (size_t)(t * 7919 % vocab) * d, d * sizeof(float));
    for (int l = 0; l < layers; ++l) {
      float *k = keys + l * cache + t * kv_dim, *v = values + l * cache + t * kv_dim;
      Norm(n, x, norms + 2 * l * d);
      Product(q, n, wq + l * d * d, dim, dim);
      Product(k, n, wk + l * d * kv_dim, (int)kv_dim, dim);
      Product(v, n, wv + l * d * kv_dim, (int)kv_dim, dim);
      Rotate(q, dim, dim / heads, t);
      Rotate(k, (int)kv_dim, dim / heads, t);
      Attend(n, q, keys + l * cache, values + l * cache, t, scores);
      Product(y, n, wo + l * d * d, dim, dim);
      for (int i = 0; i < dim; ++i) x[i] += y[i];
      Norm(n, x, norms + (2 * l + 1) * d);
      Product(g, n, w1 + l * d * hidden, hidden, dim);
      Product(u, n, w3 + l * d * hidden, hidden, dim);
      for (int i = 0; i < hidden; ++i) g[i] *= u[i] / (1.0f + expf(-g[i]));
      Product(y, g, w2 + l * d * hidden, dim, hidden);
      for (int i = 0; i < dim; ++i) x[i] += y[i];
    }
    Norm(n, x, norms + 2 * layers * d);
    Product(logits, n, embedding, vocab, dim);
    if ((t + 1) % kPortion == 0) {
      const double now = omp_get_wtime();
      speeds[t / kPortion] = kPortion / (now - begin);
      begin = now;
    }
  }
  const int portions = tokens / kPortion;
  qsort(speeds, (size_t)portions, sizeof(double), Compare);
  printf("{\"tokens_per_second\": %.6g, \"threads\": %d}\n", speeds[portions / 2], omp_get_max_threads());
  return 0;
}
