// Both models against independent programs: losses, logits and the gradient of every parameter
// (tests/golden; made in float64, see tests/golden/README.md).
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/evaluate.h"
#include "model/gradients.h"
#include "model/session.h"
#include "runtime/check.h"
#include "runtime/parallel.h"

namespace lanewise::model {
namespace {

const std::string kGolden = std::string(LANEWISE_SOURCE_DIR) + "/tests/golden/";

struct Fixture {
  std::string model;   // file
  std::string grads;   // float64 losses and gradients
  std::string logits;  // the original program's logits, may be empty
};

// One list for both models.
const std::vector<Fixture> kFixtures{
    {"slot_rnn/char.bin", "slot_rnn/char_grad.json", "slot_rnn/char.json"},
    {"slot_rnn/char_v1.bin", "slot_rnn/char_grad.json", "slot_rnn/char.json"},
    {"slot_rnn/word.bin", "slot_rnn/word_grad.json", "slot_rnn/word.json"},
    {"slot_rnn/stress.bin", "slot_rnn/stress_grad.json", ""},
    {"llama/llama_gqa_tied.bin", "llama/llama_gqa_tied_grad.json", "llama/llama_gqa_tied.json"},
    {"llama/llama_mha_untied.bin", "llama/llama_mha_untied_grad.json",
     "llama/llama_mha_untied.json"},
};

struct Loaded {
  explicit Loaded(const Fixture& fixture)
      : files(MakeSystemFiles()),
        file(OpenModel(*files, kGolden + fixture.model)),
        model(MakeModel(file.config, file.path)),
        weights(model->params().buffer_size()),
        grads(ReadJsonFile(*files, kGolden + fixture.grads)) {
    LoadWeights(file, model->params(), weights);
    tokens = grads["tokens"].get<std::vector<int32_t>>();
  }
  std::unique_ptr<FileSystem> files;
  ModelFile file;
  std::unique_ptr<Model> model;
  std::vector<float> weights;
  Json grads;
  std::vector<int32_t> tokens;
};

// A fixture of llama holds the tensors of all layers as one; here its values in that order.
std::vector<double> Values(const Model& model, const std::vector<float>& buffer,
                           const std::string& name) {
  std::vector<double> values;
  const auto append = [&](const Param& p) {
    const Mat<const float> m = p.In(buffer.data());
    for (size_t r = 0; r < p.rows; ++r) {
      for (const float x : m.RowSpan(r)) values.push_back(static_cast<double>(x));
    }
  };
  if (const Param* p = model.params().Find(name)) {
    append(*p);
  } else {
    for (size_t l = 0;
         const Param* layer = model.params().Find("layers." + std::to_string(l) + "." + name);
         ++l) {
      append(*layer);
    }
  }
  return values;
}

double Norm(const std::vector<double>& v) {
  double sum = 0;
  for (const double x : v) sum += x * x;
  return std::sqrt(sum);
}

TEST_CASE("cross-entropy of each token, as the reference has it") {
  const runtime::Scheduler scheduler(2);
  for (const Fixture& fixture : kFixtures) {
    CAPTURE(fixture.model);
    Loaded f(fixture);
    TokenArray tokens(static_cast<int32_t>(f.model->vocab_size()));
    tokens.Append(f.tokens);
    Evaluator evaluator(*f.model, scheduler);
    const EvaluateResult result = evaluator.Run(f.weights.data(), tokens, {.per_token = true});
    const auto expected = f.grads["token_cross_entropy"].get<std::vector<double>>();
    REQUIRE(result.token_cross_entropy.size() == expected.size());
    const double loss = f.grads["losses"]["label_smoothing=0.0"].get<double>();
    CHECK(std::fabs(result.cross_entropy - loss) < 1e-6 * std::fmax(1.0, loss));
    for (size_t t = 0; t < expected.size(); ++t) {
      CHECK(std::fabs(static_cast<double>(result.token_cross_entropy[t]) - expected[t]) < 1e-4);
    }
  }
}

TEST_CASE("windows are no longer than the text to evaluate") {
  const runtime::Scheduler scheduler(2);
  for (const Fixture& fixture : kFixtures) {
    CAPTURE(fixture.model);
    Loaded f(fixture);
    if (f.model->recurrent()) continue;
    TokenArray tokens(static_cast<int32_t>(f.model->vocab_size()));
    tokens.Append(std::span(f.tokens).first(8));
    // A window of the text's length, one that is longer, and windows that overlap.
    for (const auto& [ctx, stride] : {std::pair<size_t, size_t>{7, 0}, {2000, 0}, {4, 2}}) {
      Evaluator any(*f.model, scheduler, ctx, stride);
      Evaluator fitting(*f.model, scheduler, ctx, stride, /*half_weights=*/false, tokens.size());
      CHECK(fitting.MemoryBytes() < any.MemoryBytes() / 4);
      const EvaluateResult a = any.Run(f.weights.data(), tokens, {.per_token = true});
      const EvaluateResult b = fitting.Run(f.weights.data(), tokens, {.per_token = true});
      REQUIRE(a.targets == 7);
      REQUIRE(b.token_cross_entropy.size() == 7);
      for (size_t t = 0; t < 7; ++t) {
        CHECK(std::fabs(a.token_cross_entropy[t] - b.token_cross_entropy[t]) < 1e-4F);
      }
    }
  }
}

TEST_CASE("logits after the last token, fed in one piece and token by token") {
  const runtime::Scheduler scheduler(2);
  for (const Fixture& fixture : kFixtures) {
    if (fixture.logits.empty()) continue;
    CAPTURE(fixture.model);
    Loaded f(fixture);
    const Json golden = ReadJsonFile(*f.files, kGolden + fixture.logits);
    const auto expected = golden["last_logits"].get<std::vector<double>>();
    Session chunked(*f.model, f.weights.data(), scheduler, {.prefill_steps = 16});
    Session stepwise(*f.model, f.weights.data(), scheduler);
    chunked.Feed(f.tokens);
    for (const int32_t token : f.tokens) stepwise.Feed({&token, 1});
    for (size_t i = 0; i < expected.size(); ++i) {
      CHECK(std::fabs(static_cast<double>(chunked.logits()[i]) - expected[i]) < 1e-4);
      CHECK(std::fabs(static_cast<double>(stepwise.logits()[i]) - expected[i]) < 1e-4);
    }
  }
}

TEST_CASE("token ids beyond the vocabulary and streams that are none are refused") {
  const runtime::Scheduler scheduler(1);
  const Loaded f(kFixtures[0]);
  const auto vocab = static_cast<int32_t>(f.model->vocab_size());
  Session session(*f.model, f.weights.data(), scheduler);
  for (const int32_t wrong : {-1, vocab}) {
    const std::vector<int32_t> tokens{0, wrong, 0};
    CHECK_THROWS_AS(session.Feed(tokens), runtime::CheckError);
    CHECK_THROWS_AS(session.Step({&wrong, 1}), runtime::CheckError);
    CHECK_THROWS_AS(ComputeGradients(*f.model, f.weights.data(), scheduler, tokens, 0),
                    runtime::CheckError);
  }
  TokenArray tokens(vocab + 1);
  tokens.Append(std::vector<int32_t>{0, vocab, 0});
  CHECK_THROWS_AS(Evaluator(*f.model, scheduler).Run(f.weights.data(), tokens, {}),
                  runtime::CheckError);
  CHECK_THROWS_AS(session.Reset(1), runtime::CheckError);
  CHECK_THROWS_AS(session.position(1), runtime::CheckError);
  CHECK_THROWS_AS(session.room(1), runtime::CheckError);
  CHECK_THROWS_AS(session.logits(1), runtime::CheckError);
}

TEST_CASE("the gradient of every parameter, with and without label smoothing") {
  const runtime::Scheduler scheduler(2);
  for (const Fixture& fixture : kFixtures) {
    Loaded f(fixture);
    for (const double smoothing : {0.0, 0.1}) {
      CAPTURE(fixture.model);
      CAPTURE(smoothing);
      const std::string key = smoothing == 0 ? "label_smoothing=0.0" : "label_smoothing=0.1";
      const GradientResult result =
          ComputeGradients(*f.model, f.weights.data(), scheduler, f.tokens, smoothing);
      CHECK(std::fabs(result.loss - f.grads["losses"][key].get<double>()) < 1e-5);
      size_t checked = 0;
      for (const auto& [name, g] : f.grads["gradients"][key].items()) {
        CAPTURE(name);
        const std::vector<double> values = Values(*f.model, result.gradients, name);
        REQUIRE(!values.empty());
        const double l2 = g["l2"].get<double>();
        const double tolerance = (name.find("decay_") == std::string::npos ? 1e-4 : 5e-5) * l2;
        CHECK(std::fabs(Norm(values) - l2) <= tolerance);
        CHECK(std::fabs(values[g["argmax_abs"].get<size_t>()] - g["at_argmax"].get<double>()) <=
              tolerance);
        const auto first = g["first4"].get<std::vector<double>>();
        const auto last = g["last4"].get<std::vector<double>>();
        for (size_t i = 0; i < first.size(); ++i) {
          CHECK(std::fabs(values[i] - first[i]) <= tolerance);
          CHECK(std::fabs(values[values.size() - last.size() + i] - last[i]) <= tolerance);
        }
        checked += values.size();
      }
      CHECK(checked == f.model->params().Count());
    }
  }
}

TEST_CASE("the same bits for any number of threads") {
  for (const Fixture& fixture : kFixtures) {
    CAPTURE(fixture.model);
    Loaded f(fixture);
    const runtime::Scheduler one(1);
    const GradientResult expected =
        ComputeGradients(*f.model, f.weights.data(), one, f.tokens, 0.1);
    for (const size_t threads : {2, 3, 8}) {
      const runtime::Scheduler scheduler(threads);
      const GradientResult result =
          ComputeGradients(*f.model, f.weights.data(), scheduler, f.tokens, 0.1);
      CHECK(result.loss == expected.loss);
      CHECK(result.gradients == expected.gradients);
    }
  }
}

}  // namespace
}  // namespace lanewise::model
