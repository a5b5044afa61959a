// Choosing the next token from logits.
#ifndef LANEWISE_MODEL_SAMPLER_H_
#define LANEWISE_MODEL_SAMPLER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lanewise::model {

// Filters apply in this order: repetition penalty, temperature, top-k, min-p, top-p. Where tokens
// are equally likely at the border of a filter, the lower ids stay.
struct SamplerOptions {
  double temperature = 0.8;  // 0: greedy
  size_t top_k = 0;          // keep the k most likely; 0: all
  double top_p = 0.9;        // keep the smallest set with this share of what is left; 1: all
  double min_p = 0;          // keep those at least this many times as likely as the most likely
  double repeat_penalty =
      1.0;  // recent tokens' logits: divided by it, or multiplied where negative
  size_t repeat_window = 64;
  uint64_t seed = 0;

  // UsageError names the option that is out of range.
  void Validate() const;
};

// Deterministic: token n of a stream depends on the seed, n, the logits and the recent tokens
// alone. Takes time linear in the vocabulary; does not allocate after construction.
class Sampler {
 public:
  Sampler(const SamplerOptions& options, size_t vocab_size, uint32_t stream = 0);

  // Greedy ties go to the lowest id. NaN and -infinity are never chosen where anything else is
  // left, +infinity always is; all NaN gives token 0.
  int32_t Next(std::span<const float> logits);
  // Tells of a token that was not drawn here (the prompt's), for the repetition penalty. Next does
  // it for its own.
  void Observe(int32_t token);

 private:
  struct Candidate {
    float logit;
    int32_t token;
    double weight;  // probability times a constant
  };
  // More likely first, then by id.
  static bool Before(const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
  }

  int32_t Choose(std::span<const float> logits);
  void Collect(std::span<const float> logits);
  float Penalized(float logit) const;
  Candidate Best() const;
  void KeepTopK();
  void SetWeights(float highest);
  void KeepTopP();
  void KeepFrom(const Candidate& last);
  int32_t Draw() const;

  SamplerOptions options_;
  size_t vocab_size_;
  uint32_t stream_;
  uint64_t drawn_ = 0;
  std::vector<Candidate> candidates_;  // those left, by id
  std::vector<Candidate> ordered_;     // the same in the order of a selection
  std::vector<int32_t> recent_;        // a ring of the last repeat_window tokens
  size_t recent_next_ = 0;
};

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_SAMPLER_H_
