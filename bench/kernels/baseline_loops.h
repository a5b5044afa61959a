// The loops that a compiler is given when nobody writes SIMD: what the kernels' speed is compared
// with.
#ifndef LANEWISE_BENCH_KERNELS_BASELINE_LOOPS_H_
#define LANEWISE_BENCH_KERNELS_BASELINE_LOOPS_H_

#include <cstddef>
#include <cstdint>

namespace lanewise::bench {

// One entry a kernel; matrices have no gaps between rows. Arguments are those of the kernels.
struct BaselineLoops {
  void (*exp)(const float* x, float* y, size_t n);
  void (*log)(const float* x, float* y, size_t n);
  void (*sigmoid)(const float* x, float* y, size_t n);
  void (*tanh)(const float* x, float* y, size_t n);
  void (*silu)(const float* x, float* y, size_t n);
  void (*swiglu_forward)(const float* gate_up, float* h, size_t rows, size_t width);
  void (*swiglu_backward)(const float* gate_up, const float* dh, float* d_gate_up, size_t rows,
                          size_t width);
  void (*softmax_forward)(const float* x, float* y, size_t runs, size_t size);
  void (*softmax_backward)(const float* y, const float* dy, float* dx, size_t runs, size_t size);
  void (*layer_norm_forward)(const float* x, const float* w, const float* b, float eps, float* y,
                             float* mean, float* rstd, size_t rows, size_t cols);
  void (*layer_norm_backward)(const float* x, const float* w, const float* mean, const float* rstd,
                              const float* dy, float* dx, float* dw, float* db, size_t rows,
                              size_t cols);
  void (*rms_norm_forward)(const float* x, const float* w, float eps, float* y, float* rstd,
                           size_t rows, size_t cols);
  void (*rms_norm_backward)(const float* x, const float* w, const float* rstd, const float* dy,
                            float* dx, float* dw, size_t rows, size_t cols);
  void (*cross_entropy)(float* logits, const int32_t* targets, float scale, float* loss,
                        size_t rows, size_t cols);
  void (*embedding_backward)(const int32_t* ids, const float* dy, float* dtable, size_t rows,
                             size_t cols);
  void (*adamw)(float* p, float* g, float* m, float* v, float lr, float decay, size_t n);
  void (*add)(const float* a, const float* b, float* y, size_t n);
  double (*sum_squares)(const float* x, size_t n);
  // y[c] = sum of eight rows.
  void (*sum_rows)(const float* x, float* y, size_t cols);
  void (*uniform)(float* y, size_t n, uint32_t seed);
};

// The loops compiled with -O3 -march=native -ffast-math, or null in a program that was linked
// without them: they run on the machine that compiled them and must not be in a program that is
// installed.
const BaselineLoops* Baseline();
void SetBaseline(const BaselineLoops* loops);

}  // namespace lanewise::bench

#endif  // LANEWISE_BENCH_KERNELS_BASELINE_LOOPS_H_
