#include "model/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>

#include "kernels/random.h"
#include "model/error.h"
#include "runtime/check.h"

namespace lanewise::model {
namespace {

// "samp": apart from the streams that fill tensors or shuffle with the same seed.
constexpr uint32_t kSamplingStream = 0x73616D70;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

void CheckRange(const char* option, double value, double lowest, double highest) {
  if (value >= lowest && value <= highest) return;  // false for NaN
  char text[160];
  std::snprintf(text, sizeof(text), "%s %g: must be from %g to %g", option, value, lowest, highest);
  throw UsageError(text);
}

}  // namespace

void SamplerOptions::Validate() const {
  CheckRange("--temp", temperature, 0, 1000);
  CheckRange("--top-p", top_p, 0, 1);
  CheckRange("--min-p", min_p, 0, 1);
  CheckRange("--repeat-penalty", repeat_penalty, 0.01, 100);
  CheckRange("--repeat-window", static_cast<double>(repeat_window), 0, 1 << 24);
}

Sampler::Sampler(const SamplerOptions& options, size_t vocab_size, uint32_t stream)
    : options_(options), vocab_size_(vocab_size), stream_(stream) {
  options_.Validate();
  LW_CHECK(vocab_size > 0 && vocab_size < size_t{1} << 31, "sampler: vocabulary of ", vocab_size);
  candidates_.reserve(vocab_size);
  ordered_.reserve(vocab_size);
  if (options_.repeat_penalty == 1.0) options_.repeat_window = 0;
  recent_.reserve(options_.repeat_window);
}

int32_t Sampler::Next(std::span<const float> logits) {
  LW_CHECK(logits.size() == vocab_size_, "sampler: ", logits.size(), " logits for a vocabulary of ",
           vocab_size_);
  const int32_t token = Choose(logits);
  ++drawn_;
  Observe(token);
  return token;
}

void Sampler::Observe(int32_t token) {
  if (token < 0 || static_cast<size_t>(token) >= vocab_size_) return;
  if (recent_.size() < options_.repeat_window) {
    recent_.push_back(token);
  } else if (options_.repeat_window > 0) {
    recent_[recent_next_] = token;
    recent_next_ = (recent_next_ + 1) % recent_.size();
  }
}

int32_t Sampler::Choose(std::span<const float> logits) {
  Collect(logits);
  if (candidates_.empty()) return 0;
  const Candidate best = Best();
  if (options_.temperature == 0 || best.logit == -kInfinity) return best.token;
  KeepTopK();
  SetWeights(best.logit);
  KeepTopP();
  return Draw();
}

// Every token with its penalized logit; then those that are NaN are left out.
void Sampler::Collect(std::span<const float> logits) {
  candidates_.resize(vocab_size_);
  for (size_t i = 0; i < vocab_size_; ++i) {
    candidates_[i] = {logits[i], static_cast<int32_t>(i), 0};
  }
  // From the original logit: a token that occurs twice is penalized once.
  for (const int32_t token : recent_) {
    const auto i = static_cast<size_t>(token);
    candidates_[i].logit = Penalized(logits[i]);
  }
  std::erase_if(candidates_, [](const Candidate& c) { return std::isnan(c.logit); });
}

float Sampler::Penalized(float logit) const {
  const auto penalty = static_cast<float>(options_.repeat_penalty);
  return logit > 0 ? logit / penalty : logit * penalty;
}

Sampler::Candidate Sampler::Best() const {
  const Candidate* best = &candidates_.front();
  for (const Candidate& c : candidates_) {
    if (c.logit > best->logit) best = &c;
  }
  return *best;
}

// Gathers those better than the k best so far, and reduces them to k when they are many: most
// candidates cost one comparison.
void Sampler::KeepTopK() {
  const size_t k = options_.top_k;
  if (k == 0 || k >= candidates_.size()) return;
  const size_t many = 2 * k + 256;
  const auto reduce = [&] {
    const auto last = ordered_.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::nth_element(ordered_.begin(), last, ordered_.end(), Before);
    ordered_.resize(k);
    return *last;
  };
  ordered_.clear();
  Candidate border{-kInfinity, std::numeric_limits<int32_t>::max(), 0};
  for (const Candidate& c : candidates_) {
    if (!Before(c, border)) continue;
    ordered_.push_back(c);
    if (ordered_.size() == many) border = reduce();
  }
  KeepFrom(reduce());
}

// Leaves the candidates up to `last`, still by id.
void Sampler::KeepFrom(const Candidate& last) {
  std::erase_if(candidates_, [&](const Candidate& c) { return Before(last, c); });
}

// Weights relative to the most likely candidate's, which makes min-p a comparison with them.
void Sampler::SetWeights(float highest) {
  const double scale = 1.0 / options_.temperature;
  for (Candidate& c : candidates_) {
    c.weight =
        c.logit == highest
            ? 1.0  // also where both are infinite
            : std::exp((static_cast<double>(c.logit) - static_cast<double>(highest)) * scale);
  }
  std::erase_if(candidates_,
                [&](const Candidate& c) { return c.weight < options_.min_p || c.weight == 0; });
}

// Halves the range in which the last kept candidate lies: linear time, where sorting would not be.
// Candidates below (1 - p) sum / n together have less than the share that is cut off.
void Sampler::KeepTopP() {
  if (options_.top_p >= 1) return;
  double missing = 0;
  for (const Candidate& c : candidates_) missing += c.weight;
  const double negligible =
      (1 - options_.top_p) * missing / static_cast<double>(candidates_.size());
  missing *= options_.top_p;
  ordered_.clear();
  for (const Candidate& c : candidates_) {
    if (c.weight >= negligible) ordered_.push_back(c);
  }
  size_t begin = 0;  // all before it are kept, with less than the share that is asked for
  size_t end = ordered_.size();
  while (end - begin > 1) {
    const size_t middle = begin + (end - begin) / 2;
    const auto at = [&](size_t i) { return ordered_.begin() + static_cast<std::ptrdiff_t>(i); };
    std::nth_element(at(begin), at(middle), at(end), Before);
    double upper = 0;
    for (size_t i = begin; i < middle; ++i) upper += ordered_[i].weight;
    if (upper >= missing) {
      end = middle;
    } else {
      missing -= upper;
      begin = middle;
    }
  }
  KeepFrom(ordered_[begin]);
}

// The first candidate, by id, at which the running sum passes a uniform number of 53 bits.
int32_t Sampler::Draw() const {
  const kernels::RandomKey key{options_.seed, kSamplingStream, stream_};
  const uint64_t high = kernels::RandomBits(key, 2 * drawn_) >> 5;
  const uint64_t low = kernels::RandomBits(key, 2 * drawn_ + 1) >> 6;
  const double uniform = static_cast<double>(high << 26 | low) * 0x1p-53;
  double sum = 0;
  for (const Candidate& c : candidates_) sum += c.weight;
  const double target = uniform * sum;
  double passed = 0;
  for (const Candidate& c : candidates_) {
    passed += c.weight;
    if (passed > target) return c.token;
  }
  return candidates_.back().token;
}

}  // namespace lanewise::model
