#include "model/generate.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <utility>

#include "model/checksum.h"
#include "model/error.h"
#include "model/formats/safetensors.h"

namespace lanewise::model {

namespace {

constexpr const char* kStateFormat = "lanewise-state-1";

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string IdsToText(const std::vector<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) text += (text.empty() ? "" : " ") + std::to_string(id);
  return text;
}

std::vector<int32_t> IdsFromText(std::string_view text, int32_t vocab_size,
                                 const std::string& where) {
  std::vector<int32_t> ids;
  while (!text.empty()) {
    int32_t id = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (error != std::errc() || id < 0 || id >= vocab_size) {
      throw InputError(where + ": \"pending\" must be token ids below " +
                       std::to_string(vocab_size));
    }
    ids.push_back(id);
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    if (!text.empty()) text.remove_prefix(1);
  }
  return ids;
}

std::string Metadata(const SafetensorsFile& file, const std::string& field) {
  const auto found = file.metadata().find(field);
  if (found == file.metadata().end()) {
    throw InputError(file.path() + ": \"" + field + "\" is missing: no state saved by generate");
  }
  return found->second;
}

}  // namespace

void CheckRoom(size_t tokens, uint64_t room, const std::string& where) {
  if (tokens <= room) return;
  throw UsageError(where + " has " + std::to_string(tokens) +
                   " tokens; the model's context has room for " + std::to_string(room) +
                   "; shorten it, or let it slide (--slide)");
}

Generator::Generator(Session& session, const Tokenizer& tokenizer, size_t vocab_size,
                     const GenerateOptions& options)
    : session_(session), tokenizer_(tokenizer), text_(tokenizer, vocab_size, options) {}

void Generator::FeedPending() {
  CheckRoom(text_.pending().size(), session_.room());
  const double begin = Now();
  session_.Feed(text_.pending());
  text_.pending().clear();
  text_.report().prompt_seconds = Now() - begin;
}

GenerateReport Generator::Run() {
  text_.Begin();
  GenerateReport& report = text_.report();
  if (text_.options().tokens == 0) return report;
  FeedPending();
  const double begin = Now();
  while (text_.Draw(session_.logits())) {
    if (session_.room() == 0) {
      report.reason = StopReason::kContextFull;
      break;
    }
    session_.Step(text_.pending());
  }
  report.seconds = Now() - begin;
  text_.End();
  return report;
}

void Generator::Save(FileSystem& files, const std::string& path, uint64_t model_hash) {
  // All but the last token go into the state: its logits are made when the text goes on.
  std::vector<int32_t>& pending = text_.pending();
  if (pending.size() > 1 && pending.size() - 1 <= session_.room()) {
    session_.Feed(std::span(pending).first(pending.size() - 1));
    pending.erase(pending.begin(), pending.end() - 1);
  }
  const StringMap metadata = {{"format", kStateFormat},
                              {"model_hash", ChecksumText(model_hash)},
                              {"position", std::to_string(session_.position())},
                              {"pending", IdsToText(pending)}};
  WriteFileAtomically(
      files, path, [&](File& file) { WriteSafetensors(file, session_.StateSources(), metadata); });
}

void Generator::Load(FileSystem& files, const std::string& path, uint64_t model_hash) {
  const SafetensorsFile file = SafetensorsFile::Open(files, path);
  if (Metadata(file, "format") != kStateFormat) {
    throw InputError(path + ": \"format\" is not " + kStateFormat);
  }
  if (Metadata(file, "model_hash") != ChecksumText(model_hash)) {
    throw InputError(path + ": was saved with another model (" + Metadata(file, "model_hash") +
                     "; this one is " + ChecksumText(model_hash) + ")");
  }
  file.Verify();
  uint64_t position = 0;
  const std::string text = Metadata(file, "position");
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), position);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw InputError(path + ": \"position\" must be an integer, is \"" + text + "\"");
  }
  session_.Reset();
  if (position > session_.room()) {
    throw InputError(path + ": \"position\" " + text + " is beyond the model's context");
  }
  std::vector<NamedTensor> tensors;
  for (const TensorView& view : file.tensors()) {
    tensors.push_back(MakeNamedTensor(view, file.owner()));
  }
  session_.Restore(tensors, position, path);
  text_.Resume(IdsFromText(Metadata(file, "pending"), tokenizer_.vocab_size(), path));
}

}  // namespace lanewise::model
