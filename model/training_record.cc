#include "model/training_record.h"

#include <charconv>
#include <iomanip>
#include <ios>

#include "model/error.h"
#include "model/loss_plot.h"
#include "runtime/check.h"

namespace lanewise::model {

using runtime::StrCat;

namespace {

constexpr const char* kFirst = "adam_m.";
constexpr const char* kSecond = "adam_v.";
constexpr const char* kCarried = "state.";

// 64-bit values travel as text: JSON numbers are doubles for many readers.
std::string Hex(uint64_t value) {
  std::string text(16, '0');
  for (size_t i = 0; i < 16; ++i) text[15 - i] = "0123456789abcdef"[value >> (4 * i) & 15];
  return text;
}

uint64_t FromHex(const Json& object, const char* field, const std::string& where) {
  const std::string text = GetString(object, field, where);
  uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value, 16);
  if (text.size() == 16 && stop == end && error == std::errc()) return value;
  throw InputError(StrCat(where, ": \"", field, "\" must be 16 digits 0 to f"));
}

const TensorView& Find(const Checkpoint& checkpoint, const std::string& name, uint64_t count) {
  const TensorView* tensor = checkpoint.train_tensors.Find(name);
  const std::string where = JoinPath(checkpoint.folder, "train_state.safetensors");
  if (tensor == nullptr) throw InputError(where + ": tensor \"" + name + "\" is missing");
  if (tensor->Elements() != count) {
    throw InputError(
        StrCat(where, ": tensor \"", name, "\" has ", tensor->Elements(), " values, not ", count));
  }
  return *tensor;
}

void ReadBuffer(const Checkpoint& checkpoint, const ParamSet& params, const std::string& prefix,
                std::span<float> buffer) {
  for (const Param& p : params.params()) {
    const TensorView& tensor = Find(checkpoint, prefix + p.name, p.Count());
    const Mat<float> m = p.In(buffer.data());
    for (size_t r = 0; r < p.rows; ++r) tensor.ReadFloats(r * p.cols, m.RowSpan(r));
  }
}

// "slot_rnn, 4 layers × 128".
std::string TitleOf(const TrainPlan& plan) {
  return StrCat(plan.model.value("model", ""), ", ", plan.model.value("layers", 0), " layers × ",
                plan.model.value("dim", 0));
}

void RequireTrainingState(const Checkpoint& checkpoint) {
  if (checkpoint.can_resume()) return;
  throw InputError(checkpoint.folder +
                   ": holds no training state (train_state.safetensors), so it cannot be resumed; "
                   "a new run can start from its weights: --from");
}

}  // namespace

TrainingState ReadTrainingState(const Checkpoint& checkpoint, const ParamSet& params,
                                const TrainingArrays& arrays) {
  RequireTrainingState(checkpoint);
  const std::string where = JoinPath(checkpoint.folder, "train_state.safetensors");
  for (const Param& p : params.params()) {
    const TensorView* tensor = checkpoint.weights.Find(p.name);
    if (tensor == nullptr || tensor->Elements() != p.Count()) {
      throw InputError(StrCat(checkpoint.folder, ": tensor \"", p.name, "\" is missing or not of ",
                              p.Count(), " values"));
    }
    const Mat<float> m = p.In(arrays.weights.data());
    for (size_t r = 0; r < p.rows; ++r) tensor->ReadFloats(r * p.cols, m.RowSpan(r));
  }
  ReadBuffer(checkpoint, params, kFirst, arrays.first_moments);
  ReadBuffer(checkpoint, params, kSecond, arrays.second_moments);
  for (const TrainStep::StateTensor& tensor : arrays.state) {
    Find(checkpoint, kCarried + tensor.name, tensor.values.size()).ReadFloats(0, tensor.values);
  }
  const Json& json = checkpoint.train_state;
  constexpr int64_t kMost = int64_t{1} << 53;
  TrainingState state;
  state.step = GetInteger(json, "step", 0, kMost, where);
  state.tokens = static_cast<uint64_t>(GetInteger(json, "tokens", 0, kMost, where));
  state.seconds = GetNumber(json, "seconds", where);
  state.train_loss = GetNumber(json, "train_loss", where);
  if (json.contains("best_val_loss") && !json["best_val_loss"].is_null()) {
    state.best_val_loss = GetNumber(json, "best_val_loss", where);
  }
  state.position.epoch = static_cast<uint64_t>(GetInteger(json, "data_epoch", 0, kMost, where));
  state.position.index = static_cast<uint64_t>(GetInteger(json, "data_index", 0, kMost, where));
  state.data_hash = FromHex(json, "data_hash", where);
  return state;
}

TrainPlan ReadTrainPlan(const Checkpoint& checkpoint) {
  RequireTrainingState(checkpoint);
  const std::string where = JoinPath(checkpoint.folder, "config.json");
  if (!checkpoint.config.contains("training")) {
    throw InputError(where + ": has no \"training\" settings, so it cannot be resumed");
  }
  return TrainPlan::FromJson(checkpoint.config["training"], where);
}

TrainingRecord::TrainingRecord(FileSystem& files, const std::string& run_folder,
                               const TrainPlan& plan, int64_t done)
    : files_((MakeDirectories(files, run_folder), files)),
      run_folder_(run_folder),
      title_(TitleOf(plan)),
      store_(files, run_folder, static_cast<size_t>(plan.keep)),
      log_(files, JoinPath(run_folder, "log.jsonl"), done) {
  if (done > 0) store_.Repair();
}

void TrainingRecord::Evaluate(const EvalReport& report) {
  log_.Evaluate(report);
  DrawLoss();
}

void TrainingRecord::Finish(const FinishReport& report) {
  log_.Finish(report);
  DrawLoss();
}

void TrainingRecord::DrawLoss() {
  RunLogContent log = ReadRunLog(files_, JoinPath(run_folder_, "log.jsonl"));
  const LossPlotData plot{
      .title = title_,
      .subtitle = StrCat(std::fixed, std::setprecision(1), static_cast<double>(log.tokens) * 1e-6,
                         "M tokens in ", std::setprecision(0), log.seconds, " s"),
      .train = std::move(log.train),
      .validation = std::move(log.validation)};
  WriteFileAtomically(files_, JoinPath(run_folder_, "loss.svg"), RenderLossPlot(plot));
}

std::string TrainingRecord::Save(const TrainPlan& plan, const Model& model,
                                 const Tokenizer& tokenizer, const TrainingState& state,
                                 const TrainingArrays& arrays, std::optional<double> val_loss) {
  CheckpointContent content;
  content.config = model.Config();
  content.config["training"] = plan.ToJson();
  // With these a run's config.json makes the same model of the same text.
  if (BuiltFromText(tokenizer.kind())) {
    content.config["training"]["tokenizer"] = tokenizer.kind();
    const bool limited = tokenizer.kind() == "word" || tokenizer.kind() == "bpe";
    if (limited || model.vocab_size() > static_cast<size_t>(tokenizer.vocab_size())) {
      content.config["training"]["vocab"] = model.vocab_size();
    }
  }
  content.tokenizer = tokenizer.ToJson();
  content.weights = WeightSources(model.params(), arrays.weights.data());
  for (const auto& [prefix, values] :
       {std::pair{kFirst, arrays.first_moments}, std::pair{kSecond, arrays.second_moments}}) {
    for (TensorSource& source : WeightSources(model.params(), values.data(), prefix)) {
      content.train_tensors.push_back(std::move(source));
    }
  }
  for (const TrainStep::StateTensor& tensor : arrays.state) {
    content.train_tensors.push_back(
        MakeSource(kCarried + tensor.name, {tensor.rows, tensor.cols}, tensor.values));
  }
  content.train_state = {
      {"step", state.step},
      {"tokens", state.tokens},
      {"seconds", state.seconds},
      {"train_loss", state.train_loss},
      {"best_val_loss", state.best_val_loss ? Json(*state.best_val_loss) : Json()},
      {"data_epoch", state.position.epoch},
      {"data_index", state.position.index},
      {"data_hash", Hex(state.data_hash)}};
  // After a power cut the log has no hole before the checkpoint.
  log_.Sync();
  return store_.Save(static_cast<uint64_t>(state.step), content, val_loss);
}

}  // namespace lanewise::model
