#include "model/sampler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <string>

#include "model/error.h"
#include "runtime/check.h"
#include "tests/support/counting_new.h"

namespace lanewise::model {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

SamplerOptions Plain(uint64_t seed = 1) {
  return {.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0, .seed = seed};
}

std::vector<float> LogitsOf(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

std::vector<int> Count(const SamplerOptions& options, const std::vector<float>& logits, int draws) {
  Sampler sampler(options, logits.size());
  std::vector<int> counts(logits.size());
  for (int i = 0; i < draws; ++i) ++counts[static_cast<size_t>(sampler.Next(logits))];
  return counts;
}

// The counts fit the distribution: nothing where the probability is 0, and chi-square below its
// mean plus five standard deviations. The seeds are fixed, so this does not change from run to run.
void CheckDistribution(const SamplerOptions& options, const std::vector<float>& logits,
                       const std::vector<double>& expected) {
  constexpr int kDraws = 20'000;
  const std::vector<int> counts = Count(options, logits, kDraws);
  double chi_square = 0;
  double freedom = -1;
  for (size_t i = 0; i < counts.size(); ++i) {
    CAPTURE(i);
    if (expected[i] == 0) {
      CHECK(counts[i] == 0);
      continue;
    }
    const double mean = expected[i] * kDraws;
    chi_square += (counts[i] - mean) * (counts[i] - mean) / mean;
    freedom += 1;
  }
  CHECK(chi_square <= freedom + 5 * std::sqrt(2 * freedom));
}

std::vector<double> Normalized(std::vector<double> values) {
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  for (double& v : values) v /= sum;
  return values;
}

const std::vector<double> kProbabilities = {0.02, 0.4, 0.05, 0.25, 0.1, 0.15, 0.03};

TEST_CASE("draws follow the softmax, whatever constant is added to the logits") {
  std::vector<float> logits = LogitsOf(kProbabilities);
  CheckDistribution(Plain(), logits, kProbabilities);
  for (float& l : logits) l += 1000;
  CheckDistribution(Plain(2), logits, kProbabilities);
}

TEST_CASE("temperature flattens or sharpens") {
  for (const double temperature : {0.5, 2.0}) {
    std::vector<double> expected;
    for (const double p : kProbabilities) expected.push_back(std::pow(p, 1 / temperature));
    SamplerOptions options = Plain(3);
    options.temperature = temperature;
    CheckDistribution(options, LogitsOf(kProbabilities), Normalized(expected));
  }
}

TEST_CASE("a temperature near 0 is greedy without overflow") {
  SamplerOptions options = Plain();
  options.temperature = 1e-310;
  const std::vector<int> counts = Count(options, {-1e30f, 2, 1e30f, 3}, 100);
  CHECK(counts == std::vector<int>{0, 0, 100, 0});
}

TEST_CASE("each filter keeps what it should") {
  const std::vector<float> logits = LogitsOf(kProbabilities);
  SamplerOptions options = Plain(4);
  SUBCASE("top-k 1") {
    options.top_k = 1;
    CheckDistribution(options, logits, {0, 1, 0, 0, 0, 0, 0});
  }
  SUBCASE("top-k 3") {
    options.top_k = 3;
    CheckDistribution(options, logits, Normalized({0, 0.4, 0, 0.25, 0, 0.15, 0}));
  }
  SUBCASE("top-k beyond the vocabulary") {
    options.top_k = 100;
    CheckDistribution(options, logits, kProbabilities);
  }
  SUBCASE("top-p between two sums") {
    options.top_p = 0.7;  // 0.4 + 0.25 is not enough
    CheckDistribution(options, logits, Normalized({0, 0.4, 0, 0.25, 0, 0.15, 0}));
  }
  SUBCASE("top-p 0 is the most likely alone") {
    options.top_p = 0;
    CheckDistribution(options, logits, {0, 1, 0, 0, 0, 0, 0});
  }
  SUBCASE("top-p just below 1 loses only the least likely") {
    options.top_p = 0.975;
    CheckDistribution(options, logits, Normalized({0, 0.4, 0.05, 0.25, 0.1, 0.15, 0.03}));
  }
  SUBCASE("min-p") {
    options.min_p = 0.24;  // of 0.4: at least 0.096
    CheckDistribution(options, logits, Normalized({0, 0.4, 0, 0.25, 0.1, 0.15, 0}));
  }
  SUBCASE("min-p 1 keeps the most likely") {
    options.min_p = 1;
    CheckDistribution(options, logits, {0, 1, 0, 0, 0, 0, 0});
  }
}

TEST_CASE("filters combine in their order") {
  const std::vector<float> logits = LogitsOf(kProbabilities);
  SUBCASE("top-p counts the share of what top-k left") {
    SamplerOptions options = Plain(5);
    options.top_k = 3;      // 0.5, 0.3125, 0.1875 of what is left
    options.top_p = 0.805;  // of all it would need the third
    CheckDistribution(options, logits, Normalized({0, 0.4, 0, 0.25, 0, 0, 0}));
  }
  SUBCASE("and of what min-p left") {
    SamplerOptions options = Plain(6);
    options.min_p = 0.6;  // 0.4 and 0.25
    options.top_p = 0.6;
    CheckDistribution(options, logits, {0, 1, 0, 0, 0, 0, 0});
  }
  SUBCASE("temperature comes before min-p") {
    SamplerOptions options = Plain(7);
    options.temperature = 2;  // shares of the most likely: their square roots
    options.min_p = 0.55;     // 0.1/0.4 has the root 0.5, 0.15/0.4 has 0.61
    CheckDistribution(options, logits,
                      Normalized({0, std::sqrt(0.4), 0, std::sqrt(0.25), 0, std::sqrt(0.15), 0}));
  }
}

TEST_CASE("equally likely tokens at a filter's border: the lower ids stay") {
  const std::vector<float> logits = {0, 1, 1, 1, 0, 1};
  SamplerOptions options = Plain(8);
  options.top_k = 2;
  CheckDistribution(options, logits, {0, 0.5, 0.5, 0, 0, 0});
  options.top_k = 0;
  options.top_p = 0.6;  // e / (4e + 2) = 0.211 each
  CheckDistribution(options, logits, Normalized({0, 1, 1, 1, 0, 0}));
}

TEST_CASE("greedy takes the highest, the lowest id of equals") {
  SamplerOptions options{.temperature = 0};
  Sampler sampler(options, 5);
  CHECK(sampler.Next(std::vector<float>{1, 3, 2, 3, 3}) == 1);
  CHECK(sampler.Next(std::vector<float>{-1, -1, -1, -1, -1}) == 0);
  CHECK(sampler.Next(std::vector<float>{-5, -4, -3, -2, -1}) == 4);
}

TEST_CASE("NaN and infinities") {
  for (const double temperature : {0.0, 1.0}) {
    CAPTURE(temperature);
    SamplerOptions options = Plain();
    options.temperature = temperature;
    options.top_k = 3;
    options.top_p = 0.99;
    const auto only = [&](const std::vector<float>& logits, size_t token) {
      CHECK(Count(options, logits, 200)[token] == 200);
    };
    only({kNan, kNan, kNan}, 0);
    only({kNan, -kInf, 1, kNan}, 2);
    only({1, kInf, 3e38f, kNan}, 1);
    only({kNan, -kInf, -kInf}, 1);
    only({-3e38f, -kInf, kNan}, 0);
  }
  CheckDistribution(Plain(9), {kInf, 5, kInf, kNan}, {0.5, 0, 0.5, 0});
  CheckDistribution(Plain(9), {0, kNan, 0, 0}, Normalized({1, 0, 1, 1}));
}

TEST_CASE("the repetition penalty divides positive logits and multiplies negative ones, once") {
  SamplerOptions options = Plain(10);
  options.repeat_penalty = 2;
  options.repeat_window = 2;
  // Each draw follows the observation of 0, 0 (once, though seen twice) or of 1, 0.
  const auto frequency = [&](const std::vector<int32_t>& seen, const std::vector<float>& logits) {
    std::vector<double> counts(logits.size());
    constexpr int kDraws = 20'000;
    Sampler sampler(options, logits.size());
    for (int i = 0; i < kDraws; ++i) {
      for (const int32_t token : seen) sampler.Observe(token);
      counts[static_cast<size_t>(sampler.Next(logits))] += 1.0 / kDraws;
    }
    return counts;
  };
  const auto expect = [](const std::vector<double>& counts, const std::vector<double>& logits) {
    std::vector<double> p;
    for (const double l : logits) p.push_back(std::exp(l));
    p = Normalized(p);
    for (size_t i = 0; i < p.size(); ++i) CHECK(counts[i] == doctest::Approx(p[i]).epsilon(0.05));
  };
  expect(frequency({0, 0}, {1, -1, 0.5}), {0.5, -1, 0.5});
  expect(frequency({1, 0}, {1, -1, 0.5}), {0.5, -2, 0.5});
  // Only the window counts: 1 was three tokens ago.
  expect(frequency({1, 0, 2}, {1, -1, 0.5}), {0.5, -1, 0.25});
}

TEST_CASE("the penalty breaks greedy loops; its own tokens count, foreign ones are ignored") {
  SamplerOptions options{.temperature = 0, .repeat_penalty = 1.5, .repeat_window = 2};
  Sampler sampler(options, 3);
  const std::vector<float> logits = {3, 2.5f, 2.2f};
  sampler.Observe(-1);
  sampler.Observe(3);
  std::vector<int32_t> drawn;
  for (int i = 0; i < 6; ++i) drawn.push_back(sampler.Next(logits));
  CHECK(drawn == std::vector<int32_t>{0, 1, 2, 0, 1, 2});
}

// A plain implementation: sort everything.
std::set<int32_t> KeptBySorting(const std::vector<float>& logits, size_t top_k, double top_p) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  if (top_k > 0) order.resize(std::min(top_k, order.size()));
  double total = 0;
  for (const int32_t t : order)
    total += std::exp(static_cast<double>(logits[static_cast<size_t>(t)]));
  std::set<int32_t> kept;
  double sum = 0;
  for (const int32_t t : order) {
    kept.insert(t);
    sum += std::exp(static_cast<double>(logits[static_cast<size_t>(t)]));
    if (sum >= top_p * total) break;
  }
  return kept;
}

TEST_CASE("a large vocabulary: the same sets as by sorting") {
  std::vector<float> logits(32'000);
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto scrambled = static_cast<uint32_t>(i * 2'654'435'761u);
    logits[i] = static_cast<float>(scrambled >> 16) / 8192.0f;  // 0 to 8, with equals
  }
  for (size_t i = 0; i < 20; ++i) logits[i * 1'601] = 14 + static_cast<float>(i % 7);
  for (const size_t top_k : {0, 15, 17}) {
    for (const double top_p : {0.3, 0.9, 0.97}) {
      CAPTURE(top_k);
      CAPTURE(top_p);
      SamplerOptions options = Plain(11);
      options.top_k = top_k;
      options.top_p = top_p;
      const std::set<int32_t> kept = KeptBySorting(logits, top_k, top_p);
      const std::vector<int> counts = Count(options, logits, 200);
      size_t outside = 0;
      for (size_t i = 0; i < counts.size(); ++i) {
        if (counts[i] > 0 && !kept.contains(static_cast<int32_t>(i))) ++outside;
      }
      CHECK(outside == 0);
      // The last one kept is seen when it is given the chance.
      options.temperature = 1000;
      options.top_p = 1;
      options.top_k = kept.size();
      if (kept.size() > 30) continue;
      std::set<int32_t> seen;
      const std::vector<int> flat = Count(options, logits, 200);
      for (size_t i = 0; i < flat.size(); ++i) {
        if (flat[i] > 0) seen.insert(static_cast<int32_t>(i));
      }
      CHECK(seen == kept);
    }
  }
}

TEST_CASE("streams repeat, and differ by seed and stream") {
  const std::vector<float> logits(1000, 0.0f);
  const auto tokens = [&](uint64_t seed, uint32_t stream) {
    Sampler sampler(Plain(seed), logits.size(), stream);
    std::vector<int32_t> drawn;
    for (int i = 0; i < 20; ++i) drawn.push_back(sampler.Next(logits));
    return drawn;
  };
  CHECK(tokens(1, 0) == tokens(1, 0));
  CHECK(tokens(1, 0) != tokens(2, 0));
  CHECK(tokens(1, 0) != tokens(1, 1));
}

TEST_CASE("nothing is allocated after construction") {
  SamplerOptions options{.top_k = 100, .min_p = 0.001, .repeat_penalty = 1.1, .repeat_window = 8};
  const std::vector<float> logits = LogitsOf(Normalized(std::vector<double>(5000, 1.0)));
  Sampler sampler(options, logits.size());
  const size_t before = testing::AllocationCount();
  int64_t sum = 0;
  for (int i = 0; i < 20; ++i) {
    sampler.Observe(i);
    sum += sampler.Next(logits);
  }
  const size_t after = testing::AllocationCount();
  CHECK(after == before);
  CHECK(sum >= 0);
}

TEST_CASE("options out of range are named") {
  const auto message = [](auto change) -> std::string {
    SamplerOptions options;
    change(options);
    try {
      options.Validate();
    } catch (const UsageError& error) {
      return error.what();
    }
    return "";
  };
  CHECK(message([](SamplerOptions&) {}) == "");
  CHECK(message([](SamplerOptions& o) { o.temperature = -1; }) ==
        "--temp -1: must be from 0 to 1000");
  CHECK(message([](SamplerOptions& o) { o.temperature = std::nan(""); }).starts_with("--temp nan"));
  CHECK(message([](SamplerOptions& o) { o.top_p = 1.5; }).starts_with("--top-p 1.5"));
  CHECK(message([](SamplerOptions& o) { o.min_p = -0.1; }).starts_with("--min-p -0.1"));
  CHECK(message([](SamplerOptions& o) { o.repeat_penalty = 0; }).starts_with("--repeat-penalty 0"));
  Sampler sampler(SamplerOptions{}, 4);
  CHECK_THROWS_AS(sampler.Next(std::vector<float>(3)), runtime::CheckError);
}

}  // namespace
}  // namespace lanewise::model
