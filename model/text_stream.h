// One text while it is written, without the model: prompts in, tokens drawn from logits, text out.
#ifndef LANEWISE_MODEL_TEXT_STREAM_H_
#define LANEWISE_MODEL_TEXT_STREAM_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/sampler.h"
#include "model/tokenizer.h"

namespace lanewise::model {

struct GenerateOptions {
  SamplerOptions sampler;
  uint64_t tokens = 200;          // of one turn, at most
  std::vector<std::string> stop;  // a text that ends the turn and is not part of it
  // Called with each piece of text, whole UTF-8 sequences where the text has them; also with empty
  // pieces, once a token. Returning false stops.
  std::function<bool(std::string_view piece)> on_text;
  // Called while a prompt is read with the tokens that are, at last with all of them. Returning
  // false stops.
  std::function<bool(uint64_t read, uint64_t of)> on_prompt = {};
};

enum class StopReason { kLength, kStopText, kEndOfText, kContextFull, kInterrupted };
const char* StopReasonName(StopReason reason);  // "length", "stop", "end", "context", "interrupted"

struct GenerateReport {
  std::string text;  // what on_text was given
  StopReason reason = StopReason::kLength;
  bool line_is_open = false;  // what was drawn, a stop text too, does not end in a newline
  uint64_t prompt_tokens = 0;
  double prompt_seconds = 0;
  uint64_t tokens = 0;  // sampled, the first from what the prompt left
  uint64_t steps = 0;   // of the model, for the others
  double seconds = 0;   // for these
};

// Passes text through, but never a part of a stop text.
class StopFilter {
 public:
  explicit StopFilter(std::vector<std::string> stops);
  // Appends to *out what cannot belong to a stop text any more. True when one is complete: then
  // *out ends just before the first of them.
  bool Push(std::string_view text, std::string* out);
  // What was held back.
  std::string Flush() { return std::exchange(held_, {}); }

 private:
  std::vector<std::string> stops_;  // none is empty
  std::string held_;
};

// UsageError where so many tokens do not fit; `where` names the prompt.
void CheckRoom(size_t tokens, uint64_t room, const std::string& where = "the prompt");

// What was said over any number of turns. A turn: Prompt any number of times, Begin, feed
// `pending`, then Draw and feed in turns until Draw says that it is over, End.
class TextStream {
 public:
  // The tokenizer outlives the stream. A vocabulary may be larger than the tokenizer's; what it
  // does not have is never drawn.
  TextStream(const Tokenizer& tokenizer, size_t vocab_size, const GenerateOptions& options);

  // The text goes on with this. At the beginning it follows the tokenizer's BOS, if there is one.
  // UsageError, and the text stays as it was, where more than `room` tokens would be pending.
  void Prompt(std::string_view text, uint64_t room = std::numeric_limits<uint64_t>::max());
  // Goes on where the stream of another process had these tokens pending.
  void Resume(std::vector<int32_t> pending);

  // A turn begins; something is pending then. Without a prompt a text begins with a newline.
  void Begin();
  // Takes the next token and its text. False when the turn is over.
  bool Draw(std::span<const float> logits);
  // Gives out what was held back.
  void End();

  // Said, but not fed: the last token drawn, then the next prompt. Who feeds it clears it.
  std::vector<int32_t>& pending() { return pending_; }
  GenerateReport& report() { return report_; }  // of this turn
  const GenerateOptions& options() const { return options_; }

 private:
  void Open();
  bool Emit(const std::string& piece);

  const Tokenizer& tokenizer_;
  GenerateOptions options_;
  size_t drawn_from_;  // the ids below
  Sampler sampler_;
  std::vector<int32_t> pending_;
  bool open_ = false;
  // Of the turn.
  std::unique_ptr<TokenDecoder> decoder_;
  StopFilter filter_;
  Utf8Stream characters_;
  GenerateReport report_;
};

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_TEXT_STREAM_H_
