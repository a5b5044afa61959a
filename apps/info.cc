// lanewise info: a model file, or this machine.
#include <optional>

#include "apps/command.h"
#include "apps/format.h"
#include "apps/terminal.h"
#include "apps/text_input.h"
#include "apps/train_flags.h"
#include "kernels/matmul.h"
#include "kernels/targets.h"
#include "model/checkpoint.h"
#include "model/error.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "runtime/machine.h"

namespace lanewise::apps {

namespace {

using model::Json;

std::string Row(const std::string& key, const std::string& value) {
  return key + std::string(key.size() < 16 ? 16 - key.size() : 1, ' ') + value + "\n";
}

class InfoCommand : public Command {
 public:
  std::string name() const override { return "info"; }
  std::string summary() const override { return "describe a model, or this machine"; }
  std::string usage() const override { return "MODEL | --machine [OPTIONS]"; }
  std::string description() const override {
    return "Prints the sizes, the tokenizer and the training history of a model, after verifying "
           "its checksums. With --machine: the CPU, the SIMD targets it has and the one that runs, "
           "caches, threads and memory.";
  }
  std::vector<std::string> examples() const override {
    return {"info runs/book", "info --machine --json"};
  }
  void Declare(Options& options) override {
    options.Positional("MODEL", &path_, kModelHelp, /*required=*/false);
    options.Flag("machine", &machine_, "describe this machine instead of a model");
    common_.Declare(options, /*json=*/true, /*profile=*/false);
  }

  int Run(model::FileSystem& files, const Options& options) override {
    common_.Apply(files);
    if (machine_ == options.Given("MODEL")) {
      throw model::UsageError("info needs a MODEL or --machine, one of them");
    }
    machine_ ? Machine() : Describe(files);
    return 0;
  }

 private:
  void Machine() const {
    const runtime::MachineInfo info = runtime::DescribeMachine();
    const size_t threads = common_.MakeScheduler()->threads();
    if (common_.json()) {
      WriteJson({{"version", VersionText().substr(9)},
                 {"cpu", info.cpu},
                 {"architecture", info.architecture},
                 {"simd_target", kernels::TargetName()},
                 {"simd_targets", kernels::SupportedTargetNames()},
                 {"vector_bytes", kernels::VectorBytes()},
                 {"dtype", "float32"},
                 {"bf16_unit", kernels::Name(kernels::MatmulBf16Unit())},
                 {"threads", threads},
                 {"threads_available", info.threads},
                 {"l1d_bytes", info.l1d_bytes},
                 {"l2_bytes", info.l2_bytes},
                 {"l3_bytes", info.l3_bytes},
                 {"memory_bytes", info.memory_bytes},
                 {"memory_available_bytes", info.available_bytes}});
      return;
    }
    std::string targets;
    for (const char* target : kernels::SupportedTargetNames()) {
      targets += (targets.empty() ? "" : ", ") + std::string(target);
    }
    const auto size = [](size_t bytes) {
      return bytes == 0 ? std::string("unknown") : model::FormatBytes(bytes);
    };
    WriteOutput(
        Row("Version", VersionText()) + Row("CPU", info.cpu + " (" + info.architecture + ")") +
        Row("SIMD target", std::string(kernels::TargetName()) + ", " +
                               std::to_string(kernels::VectorBytes()) + " bytes a vector (of " +
                               targets + ")") +
        Row("Arithmetic", "float32, or with --dtype bf16: " + DescribeDtype("bf16")) +
        Row("Threads", std::to_string(threads) + " (of " + std::to_string(info.threads) +
                           " this process may use)") +
        Row("Caches", "L1d " + size(info.l1d_bytes) + ", L2 " + size(info.l2_bytes) + ", L3 " +
                          size(info.l3_bytes)) +
        Row("Memory", size(info.memory_bytes) + ", " + size(info.available_bytes) + " available"));
  }

  void Describe(model::FileSystem& files) const;

  std::string path_;
  bool machine_ = false;
  CommonOptions common_;
};

// The checkpoint behind a folder; nothing for files of other kinds.
std::optional<model::Checkpoint> FindCheckpoint(model::FileSystem& files, const std::string& path) {
  const std::string folder = model::ResolveModel(files, path);
  if (!model::IsDirectory(files, folder)) return std::nullopt;
  return model::LoadCheckpoint(files, folder);
}

// What log.jsonl says at its end, as its last line.
Json LastRecord(model::FileSystem& files, const std::string& run) {
  const std::string path = model::JoinPath(run, "log.jsonl");
  if (!model::IsFile(files, path)) return {};
  const model::MappedFile file(files, path);
  std::string_view text = file.text();
  // A line that a killed process left unfinished is no record.
  text = text.substr(0, text.rfind('\n') == std::string_view::npos ? 0 : text.rfind('\n'));
  const size_t begin = text.rfind('\n');
  if (begin != std::string_view::npos) text.remove_prefix(begin + 1);
  Json record = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  return record.is_object() ? record : Json();
}

// Settings that only --resume has to understand; empty where they are no such.
std::string DescribeTraining(const Json& training) {
  if (!training.is_object() || !training.value("schedule", Json()).is_string()) return "";
  for (const char* field : {"steps", "batch", "ctx", "lr"}) {
    if (!training.value(field, Json()).is_number()) return "";
  }
  const auto number = [&](const char* field) { return FormatShort(training.value(field, 0.0)); };
  return number("steps") + " steps of " + number("batch") + " × " + number("ctx") + " tokens, lr " +
         number("lr") + " " + training.value("schedule", "") + ", seed " +
         training.value("seed", Json(0)).dump();
}

// The texts, as they were named when the training began.
std::string DescribeData(const Json& training) {
  const Json paths = training.is_object() ? training.value("data", Json()) : Json();
  if (!paths.is_array() || paths.empty() || !paths[0].is_string()) return "";
  const std::string first = paths[0].get<std::string>();
  return paths.size() == 1 ? first : first + " and " + std::to_string(paths.size() - 1) + " more";
}

void InfoCommand::Describe(model::FileSystem& files) const {
  const model::ModelFile file = model::OpenModel(files, path_);
  const auto built = model::MakeModel(file.config, file.path);
  const std::optional<model::Checkpoint> checkpoint = FindCheckpoint(files, path_);
  std::vector<model::CheckpointInfo> all;
  if (model::IsDirectory(files, path_)) all = model::CheckpointStore(files, path_, 1).List();
  Json json = {{"path", file.path},
               {"format", file.format},
               {"config", file.config},
               {"parameters", built->params().Count()},
               {"float32_bytes", built->params().Count() * sizeof(float)}};
  std::string text =
      Row("Model", DescribeModel(file.config)) +
      Row("Parameters", FormatInteger(built->params().Count()) + " (" +
                            model::FormatBytes(built->params().Count() * 4) + " as float32)") +
      Row("File", file.path + " (" + file.format + ")");
  if (file.tokenizer.is_null()) {
    json["tokenizer"] = nullptr;
    text += Row("Tokenizer", "none");
  } else {
    const auto tokenizer = model::MakeTokenizer(file.tokenizer, file.path + ": tokenizer");
    json["tokenizer"] = {{"kind", tokenizer->kind()},
                         {"vocab_size", tokenizer->vocab_size()},
                         {"lossless", tokenizer->lossless()}};
    text += Row("Tokenizer", std::string(tokenizer->kind()) + ", " +
                                 FormatInteger(static_cast<uint64_t>(tokenizer->vocab_size())) +
                                 " tokens");
  }
  if (checkpoint) {
    json["step"] = checkpoint->step;
    json["val_loss"] = checkpoint->val_loss ? Json(*checkpoint->val_loss) : Json();
    json["can_resume"] = checkpoint->can_resume();
    if (checkpoint->step > 0) {
      std::string line = "step " + std::to_string(checkpoint->step);
      if (checkpoint->val_loss) {
        line += ", validation loss " + FormatFixed(*checkpoint->val_loss, 4);
      }
      text += Row("Checkpoint", line + (checkpoint->can_resume() ? ", can be resumed" : ""));
    }
    // The best checkpoint may be older than the run's present length.
    const Json newest =
        all.empty() ? file.config
                    : model::ReadJsonFile(files, model::JoinPath(all.back().folder, "config.json"));
    const auto training = newest.find("training");
    if (training != newest.end()) {
      json["training"] = *training;
      const std::string line = DescribeTraining(*training);
      if (!line.empty()) text += Row("Training", line);
      const std::string data = DescribeData(*training);
      if (!data.empty()) text += Row("Data", data);
    }
  }
  Json checkpoints = Json::array();
  std::string list;
  for (const model::CheckpointInfo& info : all) {
    checkpoints.push_back({{"step", info.step},
                           {"val_loss", info.val_loss ? Json(*info.val_loss) : Json()},
                           {"folder", info.folder}});
    list += (list.empty() ? "" : ", ") + std::to_string(info.step) +
            (info.val_loss ? " (" + FormatFixed(*info.val_loss, 4) + ")" : "");
  }
  if (!checkpoints.empty()) {
    text += Row("Checkpoints", "steps " + list);
    json["checkpoints"] = std::move(checkpoints);
    json["last_record"] = LastRecord(files, path_);
  }
  common_.json() ? WriteJson(json) : WriteOutput(text);
}

}  // namespace

std::unique_ptr<Command> MakeInfoCommand() { return std::make_unique<InfoCommand>(); }

}  // namespace lanewise::apps
