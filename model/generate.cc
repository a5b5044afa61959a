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

// Length of the longest end of `text` that a stop text begins with.
size_t HeldLength(std::string_view text, std::string_view stop) {
  for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (text.ends_with(stop.substr(0, length))) return length;
  }
  return 0;
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

const char* StopReasonName(StopReason reason) {
  static constexpr const char* kNames[] = {"length", "stop", "end", "context", "interrupted"};
  return kNames[static_cast<size_t>(reason)];
}

bool StopFilter::Push(std::string_view text, std::string* out) {
  held_ += text;
  size_t first = std::string::npos;
  size_t held = 0;
  for (const std::string& stop : stops_) {
    first = std::min(first, held_.find(stop));
    held = std::max(held, HeldLength(held_, stop));
  }
  const size_t passed = first != std::string::npos ? first : held_.size() - held;
  out->append(held_, 0, passed);
  held_.erase(0, passed);
  if (first == std::string::npos) return false;
  held_.clear();
  return true;
}

Generator::Generator(Session& session, const Tokenizer& tokenizer, size_t vocab_size,
                     const GenerateOptions& options)
    : session_(session),
      tokenizer_(tokenizer),
      options_(options),
      sampler_(options.sampler, vocab_size) {
  std::erase(options_.stop, std::string());
}

void Generator::Begin() {
  if (begun_) return;
  begun_ = true;
  if (tokenizer_.bos_id() >= 0) pending_.push_back(tokenizer_.bos_id());
}

void Generator::Prompt(std::string_view text) {
  Begin();
  for (const int32_t id : tokenizer_.Encode(text)) {
    pending_.push_back(id);
    sampler_.Observe(id);
  }
}

void Generator::FeedPending(GenerateReport* report) {
  if (pending_.size() > session_.room()) {
    throw UsageError("the prompt has " + std::to_string(pending_.size()) +
                     " tokens; the model's context has room for " +
                     std::to_string(session_.room()) + "; shorten it, or let it slide (--slide)");
  }
  const double begin = Now();
  report->prompt_tokens = pending_.size();
  session_.Feed(pending_);
  pending_.clear();
  report->prompt_seconds = Now() - begin;
}

GenerateReport Generator::Run() {
  GenerateReport report;
  Begin();
  if (pending_.empty() && session_.position() == 0) pending_ = tokenizer_.Encode("\n");
  if (pending_.empty()) pending_.push_back(0);
  if (options_.tokens == 0) return report;
  const std::unique_ptr<TokenDecoder> decoder = tokenizer_.NewDecoder(/*at_start=*/false);
  StopFilter filter(options_.stop);
  Utf8Stream characters;
  const auto emit = [&](const std::string& piece) {
    report.text += piece;
    return !options_.on_text || options_.on_text(piece);
  };
  FeedPending(&report);
  const double begin = Now();
  bool stopped = false;
  for (;;) {
    const int32_t token = sampler_.Next(session_.logits());
    pending_ = {token};
    ++report.tokens;
    if (token == tokenizer_.eos_id() || token == tokenizer_.bos_id()) {
      report.reason = StopReason::kEndOfText;
      break;
    }
    std::string bytes, passed;
    decoder->Push(token, &bytes);
    stopped = filter.Push(bytes, &passed);
    const bool go_on = emit(characters.Push(passed));
    if (stopped) report.reason = StopReason::kStopText;
    if (!stopped && !go_on) report.reason = StopReason::kInterrupted;
    if (stopped || !go_on || report.tokens == options_.tokens) break;
    if (session_.room() == 0) {
      report.reason = StopReason::kContextFull;
      break;
    }
    session_.Step(pending_);
  }
  report.seconds = Now() - begin;
  const std::string rest =
      characters.Push(stopped ? std::string() : filter.Flush()) + characters.Flush();
  if (!rest.empty()) emit(rest);
  return report;
}

void Generator::Save(FileSystem& files, const std::string& path, uint64_t model_hash) {
  // All but the last token go into the state: its logits are made when the text goes on.
  if (pending_.size() > 1 && pending_.size() - 1 <= session_.room()) {
    session_.Feed(std::span(pending_).first(pending_.size() - 1));
    pending_.erase(pending_.begin(), pending_.end() - 1);
  }
  const StringMap metadata = {{"format", kStateFormat},
                              {"model_hash", ChecksumText(model_hash)},
                              {"position", std::to_string(session_.position())},
                              {"pending", IdsToText(pending_)}};
  // Beside the target first, so that a state that is already there is replaced or left whole.
  const std::string temporary = path + ".tmp";
  try {
    WriteSafetensors(files, temporary, session_.StateSources(), metadata);
    RenameFile(files, temporary, path);
  } catch (...) {
    files.RemoveFile(temporary);
    throw;
  }
  SyncDirectory(files, ParentPath(path));
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
  pending_ = IdsFromText(Metadata(file, "pending"), tokenizer_.vocab_size(), path);
  begun_ = true;
}

}  // namespace lanewise::model
