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
constexpr const char* kPending = "pending";  // token ids that are still to be read

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

const char* DtypeName(const Session& session) {
  return session.half_weights() ? "bf16" : "float32";
}

std::string Metadata(const SafetensorsFile& file, const std::string& field) {
  const auto found = file.metadata().find(field);
  if (found == file.metadata().end()) {
    throw InputError(file.path() + ": \"" + field + "\" is missing: no state saved by generate");
  }
  return found->second;
}

// States of earlier versions have them as text, in the header, whose size is limited.
std::vector<int32_t> PendingText(std::string_view text, const std::string& where) {
  std::vector<int32_t> ids;
  while (!text.empty()) {
    int32_t id = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (error != std::errc()) throw InputError(where + ": \"pending\" must be token ids");
    ids.push_back(id);
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    if (!text.empty()) text.remove_prefix(1);
  }
  return ids;
}

std::vector<int32_t> ReadPending(const SafetensorsFile& file, size_t vocab_size) {
  std::vector<int32_t> ids;
  if (const TensorView* tensor = file.Find(kPending); tensor == nullptr) {
    ids = PendingText(Metadata(file, kPending), file.path());
  } else if (tensor->dtype != DType::kI32) {
    throw InputError(file.path() + ": tensor \"pending\" must be I32");
  } else {
    ids.resize(static_cast<size_t>(tensor->Elements()));
    std::ranges::copy(tensor->bytes, std::as_writable_bytes(std::span(ids)).begin());
  }
  for (const int32_t id : ids) {
    if (id >= 0 && static_cast<size_t>(id) < vocab_size) continue;
    throw InputError(file.path() + ": \"pending\" must be token ids below " +
                     std::to_string(vocab_size));
  }
  return ids;
}

}  // namespace

bool IsState(FileSystem& files, const std::string& path) {
  try {
    return Metadata(SafetensorsFile::Open(files, path), "format") == kStateFormat;
  } catch (const InputError&) {
    return false;
  }
}

Generator::Generator(Session& session, const Tokenizer& tokenizer, size_t vocab_size,
                     const GenerateOptions& options)
    : session_(session), text_(tokenizer, vocab_size, options) {}

// Feeds what is pending but for the last `kept` tokens. False where on_prompt stopped it: then the
// rest is pending.
bool Generator::Feed(size_t kept) {
  std::vector<int32_t>& pending = text_.pending();
  if (pending.size() <= kept) return true;
  const size_t count = pending.size() - kept;
  const double begin = Now();
  const auto& on_prompt = text_.options().on_prompt;
  const size_t fed = session_.Feed(std::span(pending).first(count), 0, [&](size_t read) {
    return !on_prompt || on_prompt(read, count);
  });
  pending.erase(pending.begin(), pending.begin() + static_cast<std::ptrdiff_t>(fed));
  text_.report().prompt_seconds = Now() - begin;
  return fed == count;
}

GenerateReport Generator::Run() {
  text_.Begin();
  GenerateReport& report = text_.report();
  // Without a token to draw, the last one waits for the turn that needs its logits.
  const size_t kept = text_.options().tokens > 0 ? 0 : 1;
  CheckRoom(text_.pending().size() - kept, session_.room());
  if (!Feed(kept)) report.reason = StopReason::kInterrupted;
  if (kept > 0 || report.reason == StopReason::kInterrupted) return report;
  const double begin = Now();
  while (text_.Draw(session_.logits())) {
    if (session_.room() == 0) {
      report.reason = StopReason::kContextFull;
      break;
    }
    session_.Step(text_.pending());
    ++report.steps;
  }
  report.seconds = Now() - begin;
  text_.End();
  return report;
}

void Generator::Save(FileSystem& files, const std::string& path, uint64_t model_hash) {
  const StringMap metadata = {{"format", kStateFormat},
                              {"model_hash", ChecksumText(model_hash)},
                              {"dtype", DtypeName(session_)},
                              {"position", std::to_string(session_.position())}};
  std::vector<TensorSource> tensors = session_.StateSources();
  const std::vector<int32_t>& pending = text_.pending();
  tensors.push_back(MakeSource(kPending, {pending.size()}, pending));
  WriteFileAtomically(files, path, [&](File& file) { WriteSafetensors(file, tensors, metadata); });
}

void Generator::Load(FileSystem& files, const std::string& path, uint64_t model_hash) {
  const SafetensorsFile file = SafetensorsFile::Open(files, path);
  if (Metadata(file, "format") != kStateFormat) {
    throw InputError(path + ": \"format\" is not " + kStateFormat);
  }
  if (Metadata(file, "model_hash") != ChecksumText(model_hash)) {
    const auto dtype = file.metadata().find("dtype");  // states of earlier versions have none
    if (dtype != file.metadata().end() && dtype->second != DtypeName(session_)) {
      throw InputError(path + ": was saved with --dtype " + dtype->second + "; give the same");
    }
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
    throw InputError(path + ": \"position\" " + text +
                     " is beyond the model's context; it can only go on sliding (--slide)");
  }
  std::vector<NamedTensor> tensors;
  for (const TensorView& view : file.tensors()) {
    tensors.push_back(MakeNamedTensor(view, file.owner()));
  }
  session_.Restore(tensors, position, path);
  text_.Resume(ReadPending(file, session_.logits().size()));
}

std::string SampleText(Session& session, const Tokenizer& tokenizer, int32_t otherwise,
                       size_t tokens, uint64_t seed) {
  session.Reset();
  SamplerOptions options;
  options.seed = seed;
  Sampler sampler(options, session.logits().size());
  const std::vector<int32_t> newline = tokenizer.Encode("\n");
  int32_t token = tokenizer.bos_id() >= 0 ? tokenizer.bos_id()
                  : newline.empty()       ? otherwise
                                          : newline[0];
  const std::unique_ptr<TokenDecoder> decoder = tokenizer.NewDecoder(true);
  std::string text;
  for (size_t i = 0; i < tokens; ++i) {
    session.Feed({&token, 1});
    token = sampler.Next(session.logits());
    decoder->Push(token, &text);
  }
  return text;
}

}  // namespace lanewise::model
