// What the README shows: a kernel by itself, and a model with random weights that makes tokens.
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <vector>

#include "kernels/matmul.h"
#include "kernels/rms_norm.h"
#include "kernels/targets.h"
#include "model/model.h"
#include "model/sampler.h"
#include "model/session.h"
#include "runtime/parallel.h"

using namespace lanewise;

// y [m,n] = x [m,k] · w [k,n], row-major. A transposed operand has its two strides exchanged.
void Product(const float* x, const float* w, float* y, size_t m, size_t n, size_t k) {
  std::vector<std::byte> scratch(kernels::MatmulScratchBytes(m, n, k));
  kernels::Matmul(
      {.a = {x, k, 1}, .b = {.strided = {w, n, 1}}, .c = y, .c_stride = n, .m = m, .n = n, .k = k},
      scratch);
}

int main() {
  // kernels: plain pointers, one thread.
  std::vector<float> x{3, 4, 6, 8}, w{1, 1}, y(4), rstd(2);
  kernels::RmsNormForward({x.data(), 2, 2, 2}, w, 1e-5F, {y.data(), 2, 2, 2}, rstd);
  std::printf("%s: %.4f %.4f\n", kernels::TargetName(), y[0], y[3]);

  std::vector<float> product(4);
  Product(x.data(), y.data(), product.data(), 2, 2, 2);
  const bool right = std::fabs(product[0] - (x[0] * y[0] + x[1] * y[2])) < 1e-4F;

  // model: sizes, weights, a session that keeps the state.
  const runtime::Scheduler scheduler(2);
  const auto model = model::MakeModel({{"model", "slot_rnn"},
                                       {"vocab_size", 65},
                                       {"layers", 2},
                                       {"dim", 64},
                                       {"heads", 2},
                                       {"ctx", 64},
                                       {"slots", 4},
                                       {"decay_rank", 4},
                                       {"ffn_mult", 2.0}},
                                      "main");
  std::vector<float> weights(model->params().buffer_size());
  model->Initialize("default", /*seed=*/1, weights);
  model::Session session(*model, weights.data(), scheduler);
  model::Sampler sampler({.temperature = 0.8, .seed = 7}, model->vocab_size());
  std::vector<int32_t> tokens{1, 2, 3};
  session.Feed(tokens);
  for (int i = 0; i < 5; ++i) {
    const int32_t next = sampler.Next(session.logits());
    session.Feed({&next, 1});
    tokens.push_back(next);
  }
  for (const int32_t token : tokens) std::printf("%d ", token);
  std::printf("\n");
  return right && std::fabs(y[0] - 0.848528F) < 1e-4F && tokens.size() == 8 ? 0 : 1;
}
