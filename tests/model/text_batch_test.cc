// Several texts at once: each is what it would be alone, bit for bit.
#include "model/text_batch.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "kernels/bfloat16.h"
#include "kernels/matmul.h"
#include "model/formats/llama2c.h"
#include "model/formats/safetensors.h"
#include "model/generate.h"
#include "model/session.h"
#include "tests/support/memory_files.h"
#include "tests/support/model_files.h"
#include "tests/support/targets.h"
#include "tests/support/tiny_run.h"

namespace {

using namespace lanewise;
using namespace lanewise::model;
using lanewise::testing::Contains;
using lanewise::testing::MessageOf;
using lanewise::testing::TinyData;
using lanewise::testing::TinyRuns;

struct Loaded {
  explicit Loaded(const Json& config) : model(MakeModel(config, "test")) {
    weights.resize(model->params().buffer_size());
    model->Initialize("default", 3, weights);
    // Large enough that the models prefer some tokens.
    for (float& w : weights) w *= 4;
    half.resize(weights.size());
    kernels::RoundToBFloat16(weights, half);
  }
  runtime::Weights Bf16() const { return {weights.data(), half.data()}; }
  std::unique_ptr<Model> model;
  std::vector<float> weights;
  std::vector<kernels::BFloat16> half;
};

// slot_rnn and llama with a context of 48; a llama whose caches are read by tiles and in chunks.
std::vector<Json> Configs(int32_t vocab_size) {
  const Json wide{{"model", "llama"},     {"vocab_size", vocab_size},
                  {"layers", 1},          {"dim", 56},
                  {"heads", 7},           {"kv_heads", 1},
                  {"hidden_dim", 24},     {"ctx", 1200},
                  {"tied", false},        {"norm_eps", 1e-5},
                  {"rope_theta", 10000.0}};
  std::vector<Json> configs;
  for (const testing::TinyRun& run : TinyRuns(vocab_size)) {
    const bool known = std::any_of(configs.begin(), configs.end(), [&](const Json& c) {
      return c["model"] == run.plan.model["model"];
    });
    if (!known) configs.push_back(run.plan.model);
  }
  configs.push_back(wide);
  return configs;
}

std::vector<int32_t> RandomTokens(size_t count, uint32_t seed, size_t vocab_size) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& t : tokens) t = static_cast<int32_t>(random() % vocab_size);
  return tokens;
}

bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

}  // namespace

TEST_CASE("a stream has the same logits alone and among others, on every SIMD target") {
  constexpr size_t kVocab = 37, kSteps = 6;
  const runtime::Scheduler scheduler(2);
  testing::ForEveryTarget([&] {
    for (const Json& config : Configs(kVocab)) {
      CAPTURE(config.dump());
      const Loaded f(config);
      const bool long_prompts = f.model->context() > 600;
      static_assert(kernels::kMatmulSkinnyRows >= 16);
      for (const auto& [streams, bf16] :
           {std::pair<size_t, bool>{2, false}, {5, false}, {16, false}, {7, true}, {16, true}}) {
        CAPTURE(streams);
        CAPTURE(bf16);
        const runtime::Weights weights = bf16 ? f.Bf16() : runtime::Weights(f.weights.data());
        Session alone(*f.model, weights, scheduler);
        Session several(*f.model, weights, scheduler, {.streams = streams});
        std::vector<std::vector<int32_t>> prompts, texts;
        for (size_t s = 0; s < streams; ++s) {
          const size_t length = 1 + s * 7 % 31 + (long_prompts && s % 4 == 1 ? 600 : 0);
          prompts.push_back(RandomTokens(length, static_cast<uint32_t>(s), kVocab));
          texts.push_back(RandomTokens(kSteps, static_cast<uint32_t>(s + 100), kVocab));
          several.Feed(prompts.back(), s);
        }
        // After the third token the last streams end.
        for (size_t step = 0; step < kSteps; ++step) {
          std::vector<int32_t> tokens;
          for (size_t s = 0; s < (step < 3 ? streams : (streams + 1) / 2); ++s) {
            tokens.push_back(texts[s][step]);
          }
          several.Step(tokens);
        }
        for (size_t s = 0; s < (streams + 1) / 2; ++s) {
          CAPTURE(s);
          alone.Reset();
          alone.Feed(prompts[s]);
          for (const int32_t token : texts[s]) alone.Step({&token, 1});
          CHECK(alone.position() == several.position(s));
          CHECK(SameBits(alone.logits(), several.logits(s)));
        }
      }
    }
  });
}

TEST_CASE("a copied stream goes on like its original, a reset one like a new session") {
  constexpr size_t kVocab = 37;
  const runtime::Scheduler scheduler(2);
  for (const Json& config : Configs(kVocab)) {
    CAPTURE(config.dump());
    const Loaded f(config);
    Session session(*f.model, f.weights.data(), scheduler, {.streams = 3});
    for (size_t s = 0; s < 3; ++s) {
      session.Feed(RandomTokens(9 + s, static_cast<uint32_t>(s), kVocab), s);
    }
    session.Step(std::vector<int32_t>{1, 2, 3});
    session.CopyStream(2, 0);
    CHECK(SameBits(session.logits(0), session.logits(2)));
    session.Step(std::vector<int32_t>{4, 4, 4});
    CHECK(session.position(0) == session.position(2));
    CHECK(SameBits(session.logits(0), session.logits(2)));
    CHECK_FALSE(SameBits(session.logits(1), session.logits(2)));

    session.Reset(1);
    CHECK(session.position(1) == 0);
    const std::vector<int32_t> prompt = RandomTokens(20, 8, kVocab);
    session.Feed(prompt, 1);
    Session fresh(*f.model, f.weights.data(), scheduler);
    fresh.Feed(prompt);
    CHECK(SameBits(session.logits(1), fresh.logits()));
  }
}

namespace {

struct Texts {
  std::vector<size_t> order;
  std::vector<GenerateReport> reports;
  TextBatchReport total;
};

Texts Write(const Loaded& f, const Tokenizer& tokenizer, const std::vector<TextRequest>& requests,
            const GenerateOptions& text, bool slide, size_t threads) {
  const runtime::Scheduler scheduler(threads);
  Texts texts;
  texts.total = GenerateTexts(*f.model, f.weights.data(), scheduler, tokenizer, requests,
                              {.text = text,
                               .slide = slide,
                               .on_finished =
                                   [&](size_t index, const GenerateReport& report) {
                                     texts.order.push_back(index);
                                     texts.reports.push_back(report);
                                   },
                               .on_step = {}});
  return texts;
}

GenerateReport WriteAlone(const Loaded& f, const Tokenizer& tokenizer, const TextRequest& request,
                          GenerateOptions text, bool slide) {
  const runtime::Scheduler scheduler(1);
  text.sampler.seed = request.seed;
  Session session(*f.model, f.weights.data(), scheduler, {.slide = slide});
  Generator generator(session, tokenizer, f.model->vocab_size(), text);
  generator.Prompt(request.prompt);
  return generator.Run();
}

}  // namespace

TEST_CASE("texts written at once are those written alone: all lengths, stops and seeds") {
  const TinyData tiny;
  const int32_t vocab = tiny.tokenizer->vocab_size();
  std::vector<TextRequest> requests;
  for (size_t i = 0; i < 37; ++i) {
    requests.push_back({tiny.text.substr(i * 5, i % 4 == 0 ? i % 3 : 3 + i % 29), i / 2, "test"});
  }
  for (const Json& config : Configs(vocab)) {
    CAPTURE(config.dump());
    const Loaded f(config);
    for (const bool slide : {false, true}) {
      CAPTURE(slide);
      // Beyond the context of 48 where there is one; stop texts end some early.
      const GenerateOptions text{.sampler = {.temperature = slide ? 0 : 0.9, .repeat_penalty = 1.1},
                                 .tokens = 60,
                                 .stop = {"z", "th", "wr", "e."},
                                 .on_text = {}};
      const Texts texts = Write(f, *tiny.tokenizer, requests, text, slide, 2);
      REQUIRE(texts.reports.size() == requests.size());
      CHECK(texts.total.texts == requests.size());
      uint64_t tokens = 0, full = 0, stopped = 0;
      for (size_t i = 0; i < requests.size(); ++i) {
        CAPTURE(i);
        CHECK(texts.order[i] == i);
        const GenerateReport alone = WriteAlone(f, *tiny.tokenizer, requests[i], text, slide);
        CHECK(texts.reports[i].text == alone.text);
        CHECK(texts.reports[i].reason == alone.reason);
        CHECK(texts.reports[i].tokens == alone.tokens);
        CHECK(texts.reports[i].prompt_tokens == alone.prompt_tokens);
        tokens += alone.tokens;
        full += alone.reason == StopReason::kContextFull ? 1 : 0;
        stopped += alone.reason == StopReason::kStopText ? 1 : 0;
      }
      CHECK(texts.total.tokens == tokens);
      CHECK(texts.total.full == full);
      CHECK(stopped > 0);  // else this tests less than it says
      if (f.model->context() == 48 && !f.model->recurrent() && !slide) CHECK(full > 0);
      for (const size_t threads : {1, 3}) {
        const Texts same = Write(f, *tiny.tokenizer, requests, text, slide, threads);
        for (size_t i = 0; i < requests.size(); ++i) {
          CHECK(same.reports[i].text == texts.reports[i].text);
        }
      }
    }
  }
}

TEST_CASE("a sliding text from a saved state ends where positions do") {
  const TinyData tiny;
  const runtime::Scheduler scheduler(1);
  testing::MemoryFiles files;
  GenerateOptions text;
  text.tokens = 5;
  for (const Json& config : Configs(tiny.tokenizer->vocab_size())) {
    const Loaded f(config);
    CAPTURE(config.dump());
    const auto with_position = [&](uint64_t position) {
      Session session(*f.model, f.weights.data(), scheduler, {.slide = true});
      Generator generator(session, *tiny.tokenizer, f.model->vocab_size(), text);
      generator.Prompt("the ");
      generator.Run();
      generator.Save(files, "state", 7);
      StringMap metadata = SafetensorsFile::Open(files, "state").metadata();
      metadata["position"] = std::to_string(position);
      metadata["pending"] = "1";  // as states had it once
      WriteSafetensors(files, "state", session.StateSources(), metadata);
      Session next(*f.model, f.weights.data(), scheduler, {.slide = true});
      Generator again(next, *tiny.tokenizer, f.model->vocab_size(), text);
      again.Load(files, "state", 7);
      return again.Run().reason;
    };
    constexpr uint64_t kLast = INT32_MAX;
    CHECK(with_position(kLast - 9) == StopReason::kLength);
    if (f.model->recurrent()) {
      CHECK(with_position(2 * kLast) == StopReason::kLength);
      continue;
    }
    CHECK(with_position(kLast - 3) == StopReason::kContextFull);
    for (const uint64_t position : {kLast + 1, 2 * kLast + 2}) {
      CHECK(Contains(MessageOf<InputError>([&] { with_position(position); }),
                     "state: \"position\" " + std::to_string(position) + " is beyond"));
    }
  }
}

TEST_CASE("samples of one prompt are the same however many there are") {
  const TinyData tiny;
  for (const Json& config : Configs(tiny.tokenizer->vocab_size())) {
    CAPTURE(config.dump());
    const Loaded f(config);
    const GenerateOptions text{.sampler = {}, .tokens = 20, .stop = {}, .on_text = {}};
    std::vector<TextRequest> requests;
    std::vector<std::string> expected;
    for (size_t n = 1; n <= 20; ++n) {
      requests.push_back({"the slot", n + 50, "test"});
      expected.push_back(WriteAlone(f, *tiny.tokenizer, requests.back(), text, false).text);
      if (n > 3 && n < 16) continue;
      const Texts texts = Write(f, *tiny.tokenizer, requests, text, false, 2);
      REQUIRE(texts.reports.size() == n);
      for (size_t i = 0; i < n; ++i) CHECK(texts.reports[i].text == expected[i]);
      // The prompt is read once, but for the texts that take the place of others.
      const size_t reads = n > 16 ? n - 15 : 1;
      CHECK(texts.total.prompt_tokens == reads * texts.reports[0].prompt_tokens);
    }
    CHECK(expected[0] != expected[1]);
  }
}

TEST_CASE("a prompt that does not fit is named before anything is written; none and no tokens") {
  const TinyData tiny;
  const Loaded f(Configs(tiny.tokenizer->vocab_size())[1]);
  REQUIRE(!f.model->recurrent());
  REQUIRE(f.model->context() == 48);
  const GenerateOptions text{.sampler = {}, .tokens = 5, .stop = {}, .on_text = {}};
  const std::vector<TextRequest> requests{{"the", 1, "line 1"},
                                          {std::string(49, 'e'), 1, "line 2 of it"}};
  const std::string message =
      MessageOf<UsageError>([&] { Write(f, *tiny.tokenizer, requests, text, /*slide=*/false, 1); });
  CHECK(Contains(message, "line 2 of it has 49 tokens"));
  CHECK(Write(f, *tiny.tokenizer, requests, text, /*slide=*/true, 1).reports.size() == 2);
  CHECK(Write(f, *tiny.tokenizer, {}, text, false, 1).reports.empty());
  GenerateOptions nothing = text;
  nothing.tokens = 0;
  const Texts empty = Write(f, *tiny.tokenizer, {{"the", 1, ""}}, nothing, false, 1);
  REQUIRE(empty.reports.size() == 1);
  CHECK(empty.reports[0].text.empty());
  CHECK(empty.total.prompt_tokens == 0);
}

TEST_CASE("only ids that the tokenizer has are drawn, and only from numbers") {
  const TinyData tiny;
  const auto known = static_cast<size_t>(tiny.tokenizer->vocab_size());
  TextStream stream(*tiny.tokenizer, known + 9, {});
  std::vector<float> logits(known + 9, 0.0F);
  logits[known + 3] = 100;
  stream.Begin();
  for (int i = 0; i < 20; ++i) {
    stream.Draw(logits);
    CHECK(stream.pending()[0] < tiny.tokenizer->vocab_size());
  }
  for (const float wrong : {NAN, INFINITY, -INFINITY}) {
    logits[1] = wrong;
    CHECK(Contains(MessageOf<InputError>([&] { stream.Draw(logits); }), "not finite"));
  }
}

TEST_CASE("a text without a prompt begins without the space that follows a BOS") {
  const std::string file = testing::TokenizerFile({" a"});
  const auto tokenizer =
      MakeTokenizer(ParseLlama2cTokenizer(std::as_bytes(std::span(file)), "t", 260), "t");
  std::vector<float> logits(260, 0.0F);
  logits[259] = 1000;
  const auto turn = [&](TextStream& stream) {
    stream.Begin();
    stream.Draw(logits);
    stream.Draw(logits);
    return stream.report().text;
  };
  TextStream stream(*tokenizer, logits.size(), {});
  CHECK(turn(stream) == "a a");
  CHECK(turn(stream) == " a a");
  TextStream prompted(*tokenizer, logits.size(), {});
  prompted.Prompt("a");
  CHECK(turn(prompted) == " a a");
  // Saved before its first token.
  TextStream resumed(*tokenizer, logits.size(), {});
  resumed.Resume({tokenizer->bos_id()});
  CHECK(turn(resumed) == "a a");
}

TEST_CASE("stopping keeps what is finished, and what was begun") {
  const TinyData tiny;
  const runtime::Scheduler scheduler(1);
  const Loaded f(Configs(tiny.tokenizer->vocab_size())[1]);
  std::vector<TextRequest> requests;
  for (size_t i = 0; i < 40; ++i) requests.push_back({std::string(1 + i % 40, 'e'), i, ""});
  std::vector<size_t> order;
  size_t steps = 0;
  const TextBatchReport total = GenerateTexts(
      *f.model, f.weights.data(), scheduler, *tiny.tokenizer, requests,
      {.text = {.sampler = {}, .tokens = 1000, .stop = {}, .on_text = {}},
       .slide = false,
       .on_finished = [&](size_t index, const GenerateReport&) { order.push_back(index); },
       .on_step = [&](const TextBatchReport&) { return ++steps < 40; }});
  CHECK(steps == 40);
  CHECK(total.texts == order.size());
  CHECK(order.size() > 0);
  CHECK(order.size() < requests.size());
  CHECK(total.interrupted > 0);
  CHECK(total.interrupted <= order.size());
  for (size_t i = 0; i < order.size(); ++i) CHECK(order[i] == i);
}
