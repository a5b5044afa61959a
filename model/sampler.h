// Choosing the next token from logits.
#ifndef LANEWISE_MODEL_SAMPLER_H_
#define LANEWISE_MODEL_SAMPLER_H_

#include <cstdint>
#include <span>
#include <vector>

namespace lanewise::model {

// Filters apply in this order: repetition penalty, temperature, top-k, min-p, top-p.
struct SamplerOptions {
  double temperature = 0.8;     // 0: greedy
  size_t top_k = 0;             // keep the k most likely; 0: all
  double top_p = 0.9;           // keep the smallest set with this much probability; 1: all
  double min_p = 0;             // keep those with at least this share of the most likely one's probability
  double repeat_penalty = 1.0;  // logits of recent tokens are divided (positive) or multiplied (negative) by it
  size_t repeat_window = 64;
  uint64_t seed = 0;

  // UsageError names the option that is out of range.
  void Validate() const;
};

// Deterministic: token n of a stream depends on the seed, n, the logits and the recent tokens alone. Does not allocate after
// construction.
class Sampler {
 public:
  Sampler(const SamplerOptions& options, size_t vocab_size, uint32_t stream = 0);

  // NaN logits never win; all NaN gives token 0.
  int32_t Next(std::span<const float> logits);
  // Tells of a token that was not drawn here (the prompt's), for the repetition penalty.
  void Observe(int32_t token);

 private:
  struct Candidate {
    float logit;
    int32_t token;
  };
  SamplerOptions options_;
  uint32_t stream_;
  uint64_t drawn_ = 0;
  std::vector<Candidate> candidates_;
  std::vector<int32_t> recent_;  // ring
  size_t recent_next_ = 0;
  std::vector<double> weights_;
};

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_SAMPLER_H_
