// Text from a model: prompts in, sampled text out, over any number of turns.
#ifndef LANEWISE_MODEL_GENERATE_H_
#define LANEWISE_MODEL_GENERATE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "model/file.h"
#include "model/session.h"
#include "model/text_stream.h"

namespace lanewise::model {

// Whether the file is a state that a Generator saved, of whatever model.
bool IsState(FileSystem& files, const std::string& path);

// A text or a conversation: a session with one stream, and what was said.
class Generator {
 public:
  // The arguments outlive the generator.
  Generator(Session& session, const Tokenizer& tokenizer, size_t vocab_size,
            const GenerateOptions& options);

  // The text goes on with this. At the beginning it follows the tokenizer's BOS, if there is one.
  // UsageError, and the text stays as it was, where it does not fit the model's context.
  void Prompt(std::string_view text) { text_.Prompt(text, session_.room()); }
  // One turn. Without any prompt at the beginning the model starts after a BOS or a newline.
  // UsageError where the context is full, InputError where the model's outputs are not finite.
  GenerateReport Run();
  // Whether another turn has room.
  bool HasRoom() { return text_.pending().size() <= session_.room() && session_.room() > 0; }

  // The state after all that was said, to be continued by Load in another process. `model_hash` is
  // kept with it; InputError where another model, or the same with weights of another type, is
  // given or the file is not such a state.
  void Save(FileSystem& files, const std::string& path, uint64_t model_hash);
  void Load(FileSystem& files, const std::string& path, uint64_t model_hash);

 private:
  bool Feed(size_t kept);

  Session& session_;
  TextStream text_;
};

// A short text in the model's own words: it begins after the tokenizer's BOS, else a newline, else
// `otherwise`.
std::string SampleText(Session& session, const Tokenizer& tokenizer, int32_t otherwise,
                       size_t tokens, uint64_t seed);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_GENERATE_H_
