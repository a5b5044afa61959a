#include "model/text_stream.h"

#include <algorithm>
#include <bit>
#include <cstdint>

#include "model/error.h"

namespace lanewise::model {

namespace {

// Length of the longest end of `text` that a stop text begins with.
size_t HeldLength(std::string_view text, std::string_view stop) {
  for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (text.ends_with(stop.substr(0, length))) return length;
  }
  return 0;
}

// Looks at all of them: leaving early would keep it from being vectorized.
bool AllFinite(std::span<const float> values) {
  constexpr uint32_t kInfinity = 0x7F800000U;
  uint32_t largest = 0;
  for (const float x : values)
    largest = std::max(largest, std::bit_cast<uint32_t>(x) & ~(1U << 31));
  return largest < kInfinity;
}

}  // namespace

const char* StopReasonName(StopReason reason) {
  static constexpr const char* kNames[] = {"length", "stop", "end", "context", "interrupted"};
  return kNames[static_cast<size_t>(reason)];
}

StopFilter::StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase(stops_, std::string());
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

void CheckRoom(size_t tokens, uint64_t room, const std::string& where) {
  if (tokens <= room) return;
  if (room == 0) throw UsageError("the model's context is full; let it slide (--slide)");
  throw UsageError(where + " has " + std::to_string(tokens) +
                   " tokens; the model's context has room for " + std::to_string(room) +
                   "; shorten it, or let it slide (--slide)");
}

TextStream::TextStream(const Tokenizer& tokenizer, size_t vocab_size,
                       const GenerateOptions& options)
    : tokenizer_(tokenizer),
      options_(options),
      drawn_from_(std::min(vocab_size, static_cast<size_t>(tokenizer.vocab_size()))),
      sampler_(options.sampler, drawn_from_),
      filter_(options.stop) {}

void TextStream::Open() {
  if (open_) return;
  open_ = true;
  if (tokenizer_.bos_id() >= 0) pending_.push_back(tokenizer_.bos_id());
}

void TextStream::Prompt(std::string_view text, uint64_t room) {
  Open();
  const std::vector<int32_t> ids = tokenizer_.Encode(text);
  CheckRoom(pending_.size() + ids.size(), room);
  for (const int32_t id : ids) {
    pending_.push_back(id);
    sampler_.Observe(id);
  }
}

void TextStream::Resume(std::vector<int32_t> pending) {
  pending_ = std::move(pending);
  open_ = true;
}

void TextStream::Begin() {
  Open();
  if (pending_.empty()) pending_ = tokenizer_.Encode("\n");
  if (pending_.empty()) pending_.push_back(0);
  decoder_ = tokenizer_.NewDecoder(/*at_start=*/pending_.back() == tokenizer_.bos_id());
  filter_.Flush();
  characters_.Flush();
  report_ = {};
  report_.prompt_tokens = pending_.size();
}

bool TextStream::Emit(const std::string& piece) {
  report_.text += piece;
  return !options_.on_text || options_.on_text(piece);
}

bool TextStream::Draw(std::span<const float> logits) {
  if (!AllFinite(logits)) {
    throw InputError(
        "the model's outputs are not finite; its weights are damaged, or its training diverged");
  }
  const int32_t token = sampler_.Next(logits.first(drawn_from_));
  pending_ = {token};
  ++report_.tokens;
  if (token == tokenizer_.eos_id() || token == tokenizer_.bos_id()) {
    report_.reason = StopReason::kEndOfText;
    return false;
  }
  std::string bytes, passed;
  decoder_->Push(token, &bytes);
  if (!bytes.empty()) report_.line_is_open = bytes.back() != '\n';
  const bool stopped = filter_.Push(bytes, &passed);
  const bool go_on = Emit(characters_.Push(passed));
  if (stopped) {
    report_.reason = StopReason::kStopText;
  } else if (!go_on) {
    report_.reason = StopReason::kInterrupted;
  }
  return !stopped && go_on && report_.tokens < options_.tokens;
}

void TextStream::End() {
  const std::string rest = characters_.Push(filter_.Flush()) + characters_.Flush();
  if (!rest.empty()) Emit(rest);
}

}  // namespace lanewise::model
