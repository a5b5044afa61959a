#include "tests/fuzz/targets.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "apps/options.h"
#include "apps/train_flags.h"
#include "model/checkpoint.h"
#include "model/data.h"
#include "model/error.h"
#include "model/formats/llama2c.h"
#include "model/formats/safetensors.h"
#include "model/loaded_model.h"
#include "model/loss_plot.h"
#include "model/run_log.h"
#include "model/tokenizer.h"
#include "model/training_record.h"
#include "tests/faults/cycle.h"
#include "tests/support/memory_files.h"

namespace lanewise::testing {
namespace {

void Require(bool condition, const char* promise) {
  if (!condition) throw std::logic_error(promise);
}

// A file of tensors without its surroundings.
void Safetensors(std::string_view bytes) {
  const auto file = model::SafetensorsFile::Parse(std::as_bytes(std::span(bytes)), "f.safetensors");
  file.Verify();
  for (const model::TensorView& tensor : file.tensors()) {
    Require(model::CheckedElements(tensor.shape) == tensor.Elements(), "a shape fits its bytes");
    float value = 0;
    if (tensor.Elements() > 0) tensor.ReadFloats(tensor.Elements() - 1, {&value, 1});
  }
}

// Loads as the program does.
void LoadModel(MemoryFiles& files, const std::string& path) {
  const model::LoadedModel loaded = model::LoadModel(files, path);
  for (const model::Param& param : loaded.model->params().params()) {
    const auto values = param.In(loaded.weights().full);
    for (size_t r = 0; r < values.rows; ++r) {
      for (const float value : values.RowSpan(r))
        Require(std::isfinite(value), "weights are finite");
    }
  }
  if (loaded.tokenizer == nullptr) return;
  for (const int32_t id : loaded.tokenizer->Encode("To be, or not to be?")) {
    Require(id >= 0 && static_cast<size_t>(id) < loaded.model->vocab_size(), "ids are the model's");
  }
}

void ModelBin(std::string_view bytes) {
  MemoryFiles files;
  files.SetContent("m.bin", std::string(bytes));
  LoadModel(files, "m.bin");
}

// A run's checkpoint, without the manifest that would refuse every change of its files.
struct Run {
  Run() {
    const Cycle cycle("slot_rnn");
    Saves saves;
    cycle.Run(files, &saves);
    const std::string folder = model::CheckpointStore(files, kCycleFolder, 1).Latest()->folder;
    for (const char* name :
         {"config.json", "tokenizer.json", "model.safetensors", "train_state.safetensors"}) {
      files.SetContent(model::JoinPath("run", name), files.Content(model::JoinPath(folder, name)));
    }
    model = model::MakeModel(model::LoadCheckpoint(files, "run").config, "run");
  }
  MemoryFiles files;
  std::unique_ptr<model::Model> model;
};

void Resume(const model::Checkpoint& checkpoint, const model::Model& model) {
  model::ReadTrainPlan(checkpoint);
  std::vector<float> buffers[3];
  for (auto& buffer : buffers) buffer.resize(model.params().buffer_size());
  model::ReadTrainingState(checkpoint, model.params(), {buffers[0], buffers[1], buffers[2], {}});
}

// The first byte says which file of a run folder the others are.
void RunFolder(std::string_view bytes) {
  if (bytes.empty()) return;
  static Run run;
  const char kind = bytes[0];
  const std::string content(bytes.substr(1));
  if (kind == 'l') {
    run.files.SetContent("log.jsonl", content);
    model::RunLogContent log = model::ReadRunLog(run.files, "log.jsonl");
    model::RenderLossPlot(
        {.title = "t", .train = std::move(log.train), .validation = std::move(log.validation)});
    return;
  }
  if (kind == 's') {
    model::Checkpoint checkpoint = model::LoadCheckpoint(run.files, "run");
    checkpoint.train_state = model::ParseJson(content, "train_state.safetensors");
    Resume(checkpoint, *run.model);
    return;
  }
  const std::string path = std::string("run/") + (kind == 'c'   ? "config.json"
                                                  : kind == 't' ? "tokenizer.json"
                                                                : "MANIFEST.json");
  const std::string good = run.files.Content(path);
  run.files.SetContent(path, content);
  const auto restore = [&] {
    good.empty() ? (void)run.files.RemoveFile(path) : run.files.SetContent(path, good);
  };
  try {
    LoadModel(run.files, "run");
    Resume(model::LoadCheckpoint(run.files, "run"), *run.model);
  } catch (...) {
    restore();
    throw;
  }
  restore();
}

constexpr uint64_t kVocabulary = 265;

void TokenizerBin(std::string_view bytes) {
  const auto tokenizer = model::MakeTokenizer(
      model::ParseLlama2cTokenizer(std::as_bytes(std::span(bytes)), "tokenizer.bin", kVocabulary),
      "tokenizer.bin");
  const std::string text = "to be or \xff not\n";
  Require(tokenizer->Decode(tokenizer->Encode(text)) == text, "the text comes back");
}

void Config(std::string_view bytes) {
  CLI::App app;
  apps::Options options(app);
  apps::TrainFlags flags;
  options.ConfigFile();
  flags.Declare(options);
  MemoryFiles files;
  files.SetContent("c.json", std::string(bytes));
  app.parse(std::vector<std::string>{"c.json", "--config"});
  options.Resolve(files);
  flags.Check();
  const model::TrainPlan plan =
      model::AutoConfigure(flags.options(), 100'000, 90'000, 60, false, 50);
  model::MakeModel(plan.model, "plan");
  model::TrainPlan::FromJson(plan.ToJson(), "plan");
}

void CheckText(const model::Tokenizer& tokenizer, std::string_view text) {
  const std::vector<int32_t> ids = tokenizer.Encode(text);
  for (const int32_t id : ids)
    Require(id >= 0 && id < tokenizer.vocab_size(), "ids are the tokenizer's");
  const std::string decoded = tokenizer.Decode(ids);
  if (tokenizer.lossless()) Require(decoded == text, "the text comes back");
  model::Utf8Stream stream;
  std::string shown;
  const auto decoder = tokenizer.NewDecoder(true);
  for (const int32_t id : ids) {
    std::string part;
    decoder->Push(id, &part);
    shown += stream.Push(part);
  }
  shown += stream.Flush();
  Require(shown == decoded, "what is streamed is the text");
}

// As a prompt, and as a text to train on.
void Text(std::string_view bytes) {
  static const std::string known = MadeUpText(100);
  for (const char* kind : {"byte", "char", "word"}) {
    const std::vector<std::string_view> others{known};
    CheckText(*model::BuildTokenizer(kind, others, {}), bytes);
    if (bytes.empty()) continue;
    const std::vector<std::string_view> own{bytes};
    const auto built = model::BuildTokenizer(kind, own, {});
    CheckText(*built, bytes);
    const auto loaded = model::MakeTokenizer(built->ToJson(), "tokenizer.json");
    Require(loaded->Encode(bytes) == built->Encode(bytes), "a stored tokenizer is the same");
  }
}

void TokenIds(std::string_view bytes) {
  MemoryFiles files;
  files.SetContent("ids.txt", std::string(bytes));
  for (const int32_t vocabulary : {60, 300, 70'000}) {
    const model::TokenArray ids = model::ReadTokenIds(files, "ids.txt", vocabulary);
    for (uint64_t i = 0; i < ids.size(); ++i)
      Require(ids[i] >= 0 && ids[i] < vocabulary, "ids are below the limit");
  }
}

constexpr FuzzTarget kTargets[] = {{"safetensors", Safetensors},
                                   {"run_folder", RunFolder},
                                   {"seed_rnn", ModelBin},
                                   {"llama2c", ModelBin},
                                   {"tokenizer_bin", TokenizerBin},
                                   {"config", Config},
                                   {"text", Text},
                                   {"token_ids", TokenIds}};

}  // namespace

std::span<const FuzzTarget> FuzzTargets() { return kTargets; }

}  // namespace lanewise::testing
