// Saved states of a text: what is pending in them.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "model/error.h"
#include "model/formats/safetensors.h"
#include "model/generate.h"
#include "model/session.h"
#include "tests/support/model_files.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_run.h"

namespace {

using namespace lanewise;
using namespace lanewise::model;
using lanewise::testing::Contains;
using lanewise::testing::MessageOf;

constexpr uint64_t kModelHash = 7;

struct Fixture {
  Fixture() : tokenizer(BuildTokenizer("byte", {}, {})) {
    model = MakeModel(testing::TinyRuns(tokenizer->vocab_size())[0].plan.model, "test");
    weights.resize(model->params().buffer_size());
    model->Initialize("default", 3, weights);
    session = std::make_unique<Session>(*model, runtime::Weights(weights.data()), scheduler);
  }
  Generator MakeGenerator(bool stop_in_prompt = false) {
    session->Reset();
    return {*session,
            *tokenizer,
            model->vocab_size(),
            {.sampler = {.temperature = 0},
             .tokens = 5,
             .stop = {},
             .on_text = {},
             .on_prompt = [=](uint64_t, uint64_t) { return !stop_in_prompt; }}};
  }
  std::string GoOn(const std::string& path) {
    Generator generator = MakeGenerator();
    generator.Load(*files, path, kModelHash);
    return generator.Run().text;
  }

  std::unique_ptr<FileSystem> files = MakeSystemFiles();
  runtime::Scheduler scheduler{1};
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<Model> model;
  std::vector<float> weights;
  std::unique_ptr<Session> session;
};

}  // namespace

TEST_CASE("a state keeps the rest of a long prompt out of its header, which is limited") {
  Fixture f;
  const testing::TemporaryFolder folder;
  const std::string state = folder / "state", prompt(2000, 'e');
  Generator whole = f.MakeGenerator();
  whole.Prompt(prompt);
  const std::string expected = whole.Run().text;

  Generator stopped = f.MakeGenerator(/*stop_in_prompt=*/true);
  stopped.Prompt(prompt);
  CHECK(stopped.Run().reason == StopReason::kInterrupted);
  stopped.Save(*f.files, state, kModelHash);
  const SafetensorsFile file = SafetensorsFile::Open(*f.files, state);
  CHECK_FALSE(file.metadata().contains("pending"));
  REQUIRE(file.Find("pending") != nullptr);
  const uint64_t rest = file.Find("pending")->Elements();
  CHECK(rest > prompt.size() / 2);
  CHECK(f.GoOn(state) == expected);

  // States of earlier versions.
  const auto write_old = [&](const std::string& pending) {
    StringMap metadata = file.metadata();
    metadata["pending"] = pending;
    std::vector<TensorSource> tensors;
    for (const TensorView& view : file.tensors()) {
      if (view.name == "pending") continue;
      tensors.push_back(
          {view.name, view.dtype, view.shape, [&view](const ByteSink& sink) { sink(view.bytes); }});
    }
    const std::string old = folder / "old";
    WriteSafetensors(*f.files, old, tensors, metadata);
    return old;
  };
  std::string text = "101";
  for (uint64_t i = 1; i < rest; ++i) text += " 101";
  CHECK(f.GoOn(write_old(text)) == expected);
  for (const char* wrong : {"101 256", "-1", "x"}) {
    const std::string path = write_old(wrong);
    CHECK(Contains(MessageOf<InputError>([&] { f.GoOn(path); }), "\"pending\" must be token ids"));
  }
}
