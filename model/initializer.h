// Initial values of parameters.
#ifndef LANEWISE_MODEL_INITIALIZER_H_
#define LANEWISE_MODEL_INITIALIZER_H_

#include <cstdint>
#include <span>

#include "kernels/random.h"
#include "model/param_set.h"

namespace lanewise::model {

// Fills parameters of one flat buffer; each has a random stream of its own, so adding one changes
// no other.
class Initializer {
 public:
  Initializer(const ParamSet& params, uint64_t seed, std::span<float> weights)
      : params_(params), seed_(seed), weights_(weights) {}

  void Normal(const Param& p, double stddev) const {
    ForRows(p, [&](const kernels::RandomKey& key, size_t first, std::span<float> row) {
      kernels::FillNormal(key, first, 0.0F, static_cast<float>(stddev), row);
    });
  }
  void Uniform(const Param& p, double low, double high) const {
    ForRows(p, [&](const kernels::RandomKey& key, size_t first, std::span<float> row) {
      kernels::FillUniform(key, first, static_cast<float>(low), static_cast<float>(high), row);
    });
  }
  template <typename F>
  void PerColumn(const Param& p, const F& value) const {
    const Mat<float> m = p.In(weights_.data());
    for (size_t c = 0; c < p.cols; ++c) m.data[c] = static_cast<float>(value(c));
  }

 private:
  template <typename F>
  void ForRows(const Param& p, const F& fill) const {
    const auto stream = static_cast<uint32_t>(&p - params_.params().data());
    const Mat<float> m = p.In(weights_.data());
    for (size_t r = 0; r < p.rows; ++r)
      fill({.seed = seed_, .stream = stream}, r * p.cols, m.RowSpan(r));
  }

  const ParamSet& params_;
  uint64_t seed_;
  std::span<float> weights_;
};

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_INITIALIZER_H_
