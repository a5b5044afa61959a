// Compiled with -O3 -march=native -ffast-math. Nothing of the standard library is instantiated
// here: an inline function compiled for this CPU could otherwise replace its portable twin
// elsewhere in the program.
#include "bench/kernels/baseline_loops.h"

// Not <cmath>: with -ffast-math, the C header declares the vector versions of the C library.
#include <math.h>

namespace lanewise::bench {
namespace {

inline float Exp(float x) { return ::expf(x); }
inline float Sigmoid(float x) { return 1.0f / (1.0f + Exp(-x)); }
inline float Max(float a, float b) { return a > b ? a : b; }

void ExpLoop(const float* x, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = Exp(x[i]);
}

void LogLoop(const float* x, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = ::logf(x[i]);
}

void SigmoidLoop(const float* x, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = Sigmoid(x[i]);
}

void TanhLoop(const float* x, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = ::tanhf(x[i]);
}

void SiluLoop(const float* x, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = x[i] * Sigmoid(x[i]);
}

void SwigluForward(const float* gate_up, float* h, size_t rows, size_t width) {
  for (size_t r = 0; r < rows; ++r) {
    const float* g = gate_up + r * 2 * width;
    const float* u = g + width;
    for (size_t c = 0; c < width; ++c) h[r * width + c] = g[c] * Sigmoid(g[c]) * u[c];
  }
}

void SwigluBackward(const float* gate_up, const float* dh, float* d_gate_up, size_t rows,
                    size_t width) {
  for (size_t r = 0; r < rows; ++r) {
    const float* g = gate_up + r * 2 * width;
    const float* u = g + width;
    const float* d = dh + r * width;
    float* dg = d_gate_up + r * 2 * width;
    float* du = dg + width;
    for (size_t c = 0; c < width; ++c) {
      const float s = Sigmoid(g[c]);
      dg[c] = d[c] * u[c] * s * (1.0f + g[c] * (1.0f - s));
      du[c] = d[c] * g[c] * s;
    }
  }
}

void SoftmaxForward(const float* x, float* y, size_t runs, size_t size) {
  for (size_t r = 0; r < runs; ++r, x += size, y += size) {
    float largest = x[0];
    for (size_t c = 1; c < size; ++c) largest = Max(largest, x[c]);
    float sum = 0.0f;
    for (size_t c = 0; c < size; ++c) {
      y[c] = Exp(x[c] - largest);
      sum += y[c];
    }
    for (size_t c = 0; c < size; ++c) y[c] /= sum;
  }
}

void SoftmaxBackward(const float* y, const float* dy, float* dx, size_t runs, size_t size) {
  for (size_t r = 0; r < runs; ++r, y += size, dy += size, dx += size) {
    float dot = 0.0f;
    for (size_t c = 0; c < size; ++c) dot += y[c] * dy[c];
    for (size_t c = 0; c < size; ++c) dx[c] = y[c] * (dy[c] - dot);
  }
}

void LayerNormForward(const float* x, const float* w, const float* b, float eps, float* y,
                      float* mean, float* rstd, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; ++r, x += cols, y += cols) {
    float sum = 0.0f;
    for (size_t c = 0; c < cols; ++c) sum += x[c];
    const float m = sum / static_cast<float>(cols);
    float squares = 0.0f;
    for (size_t c = 0; c < cols; ++c) squares += (x[c] - m) * (x[c] - m);
    const float s = 1.0f / ::sqrtf(squares / static_cast<float>(cols) + eps);
    mean[r] = m;
    rstd[r] = s;
    for (size_t c = 0; c < cols; ++c) y[c] = (x[c] - m) * s * w[c] + b[c];
  }
}

void LayerNormBackward(const float* x, const float* w, const float* mean, const float* rstd,
                       const float* dy, float* dx, float* dw, float* db, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; ++r, x += cols, dy += cols, dx += cols) {
    float sum_g = 0.0f;
    float sum_gx = 0.0f;
    for (size_t c = 0; c < cols; ++c) {
      sum_g += dy[c] * w[c];
      sum_gx += dy[c] * w[c] * (x[c] - mean[r]) * rstd[r];
    }
    sum_g /= static_cast<float>(cols);
    sum_gx /= static_cast<float>(cols);
    for (size_t c = 0; c < cols; ++c) {
      const float xhat = (x[c] - mean[r]) * rstd[r];
      dw[c] += dy[c] * xhat;
      db[c] += dy[c];
      dx[c] = rstd[r] * (dy[c] * w[c] - sum_g - xhat * sum_gx);
    }
  }
}

void RmsNormForward(const float* x, const float* w, float eps, float* y, float* rstd, size_t rows,
                    size_t cols) {
  for (size_t r = 0; r < rows; ++r, x += cols, y += cols) {
    float squares = 0.0f;
    for (size_t c = 0; c < cols; ++c) squares += x[c] * x[c];
    const float s = 1.0f / ::sqrtf(squares / static_cast<float>(cols) + eps);
    rstd[r] = s;
    for (size_t c = 0; c < cols; ++c) y[c] = x[c] * s * w[c];
  }
}

void RmsNormBackward(const float* x, const float* w, const float* rstd, const float* dy, float* dx,
                     float* dw, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; ++r, x += cols, dy += cols, dx += cols) {
    float sum = 0.0f;
    for (size_t c = 0; c < cols; ++c) sum += dy[c] * w[c] * x[c] * rstd[r];
    sum /= static_cast<float>(cols);
    for (size_t c = 0; c < cols; ++c) {
      const float xhat = x[c] * rstd[r];
      dw[c] += dy[c] * xhat;
      dx[c] = rstd[r] * (dy[c] * w[c] - xhat * sum);
    }
  }
}

void CrossEntropy(float* logits, const int32_t* targets, float scale, float* loss, size_t rows,
                  size_t cols) {
  for (size_t r = 0; r < rows; ++r, logits += cols) {
    float largest = logits[0];
    for (size_t c = 1; c < cols; ++c) largest = Max(largest, logits[c]);
    float sum = 0.0f;
    const float at_target = logits[targets[r]] - largest;
    for (size_t c = 0; c < cols; ++c) {
      logits[c] = Exp(logits[c] - largest);
      sum += logits[c];
    }
    loss[r] = ::logf(sum) - at_target;
    for (size_t c = 0; c < cols; ++c) logits[c] *= scale / sum;
    logits[targets[r]] -= scale;
  }
}

void EmbeddingBackward(const int32_t* ids, const float* dy, float* dtable, size_t rows,
                       size_t cols) {
  for (size_t r = 0; r < rows; ++r) {
    float* row = dtable + static_cast<size_t>(ids[r]) * cols;
    for (size_t c = 0; c < cols; ++c) row[c] += dy[r * cols + c];
  }
}

void AdamW(float* p, float* g, float* m, float* v, float lr, float decay, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    m[i] = 0.9f * m[i] + 0.1f * g[i];
    v[i] = 0.999f * v[i] + 0.001f * g[i] * g[i];
    p[i] -= lr * (m[i] / (::sqrtf(v[i]) + 1e-8f) + decay * p[i]);
  }
}

void AddLoop(const float* a, const float* b, float* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = a[i] + b[i];
}

double SumSquares(const float* x, size_t n) {
  double sum = 0.0;
  for (size_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

void SumRows(const float* x, float* y, size_t cols) {
  for (size_t c = 0; c < cols; ++c) y[c] = x[c];
  for (size_t r = 1; r < 8; ++r) {
    for (size_t c = 0; c < cols; ++c) y[c] += x[r * cols + c];
  }
}

// xorshift32, which is serial: the usual generator of a plain program.
void Uniform(float* y, size_t n, uint32_t seed) {
  for (size_t i = 0; i < n; ++i) {
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    y[i] = static_cast<float>(seed >> 8) * 0x1p-24f;
  }
}

const BaselineLoops kLoops = {ExpLoop,         LogLoop,          SigmoidLoop,       TanhLoop,
                              SiluLoop,        SwigluForward,    SwigluBackward,    SoftmaxForward,
                              SoftmaxBackward, LayerNormForward, LayerNormBackward, RmsNormForward,
                              RmsNormBackward, CrossEntropy,     EmbeddingBackward, AdamW,
                              AddLoop,         SumSquares,       SumRows,           Uniform};

struct Registration {
  Registration() { SetBaseline(&kLoops); }
} const registration;

}  // namespace
}  // namespace lanewise::bench
