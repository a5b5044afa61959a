// Text from a model: prompts in, sampled text out, over any number of turns.
#ifndef LANEWISE_MODEL_GENERATE_H_
#define LANEWISE_MODEL_GENERATE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model/file.h"
#include "model/sampler.h"
#include "model/session.h"
#include "model/tokenizer.h"

namespace lanewise::model {

struct GenerateOptions {
  SamplerOptions sampler;
  uint64_t tokens = 200;          // of one turn, at most
  std::vector<std::string> stop;  // a text that ends the turn and is not part of it
  // Called with each piece of text, whole UTF-8 sequences where the text has them; also with empty
  // pieces, once a token. Returning false stops.
  std::function<bool(std::string_view piece)> on_text;
};

enum class StopReason { kLength, kStopText, kEndOfText, kContextFull, kInterrupted };
const char* StopReasonName(StopReason reason);  // "length", "stop", "end", "context", "interrupted"

struct GenerateReport {
  std::string text;  // what on_text was given
  StopReason reason = StopReason::kLength;
  uint64_t prompt_tokens = 0;
  double prompt_seconds = 0;
  uint64_t tokens = 0;  // sampled
  double seconds = 0;   // for them
};

// Passes text through, but never a part of a stop text.
class StopFilter {
 public:
  explicit StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {}
  // Appends to *out what cannot belong to a stop text any more. True when one is complete: then
  // *out ends just before the first of them.
  bool Push(std::string_view text, std::string* out);
  // What was held back.
  std::string Flush() { return std::exchange(held_, {}); }

 private:
  std::vector<std::string> stops_;  // none is empty
  std::string held_;
};

// Keeps the conversation: the session's state and the tokens that it was not fed yet.
class Generator {
 public:
  // The arguments outlive the generator.
  Generator(Session& session, const Tokenizer& tokenizer, size_t vocab_size,
            const GenerateOptions& options);

  // The text goes on with this. At the beginning it follows the tokenizer's BOS, if there is one.
  void Prompt(std::string_view text);
  // One turn. Without any prompt at the beginning the model starts after a BOS or a newline.
  // UsageError where the prompt does not fit the model's context.
  GenerateReport Run();

  // The state after all that was said, to be continued by Load in another process. `model_hash` is
  // kept with it; InputError where another model is given or the file is not such a state.
  void Save(FileSystem& files, const std::string& path, uint64_t model_hash);
  void Load(FileSystem& files, const std::string& path, uint64_t model_hash);

 private:
  void Begin();
  void FeedPending(GenerateReport* report);

  Session& session_;
  const Tokenizer& tokenizer_;
  GenerateOptions options_;
  Sampler sampler_;
  std::vector<int32_t> pending_;  // said, but not fed: the last token drawn, then the next prompt
  bool begun_ = false;
};

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_GENERATE_H_
