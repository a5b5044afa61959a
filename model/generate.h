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

// A text or a conversation: a session with one stream, and what was said.
class Generator {
 public:
  // The arguments outlive the generator.
  Generator(Session& session, const Tokenizer& tokenizer, size_t vocab_size,
            const GenerateOptions& options);

  // The text goes on with this. At the beginning it follows the tokenizer's BOS, if there is one.
  void Prompt(std::string_view text) { text_.Prompt(text); }
  // One turn. Without any prompt at the beginning the model starts after a BOS or a newline.
  // UsageError where the prompt does not fit the model's context.
  GenerateReport Run();

  // The state after all that was said, to be continued by Load in another process. `model_hash` is
  // kept with it; InputError where another model is given or the file is not such a state.
  void Save(FileSystem& files, const std::string& path, uint64_t model_hash);
  void Load(FileSystem& files, const std::string& path, uint64_t model_hash);

 private:
  void FeedPending();

  Session& session_;
  const Tokenizer& tokenizer_;
  TextStream text_;
};

// UsageError where so many tokens do not fit; `where` names the prompt.
void CheckRoom(size_t tokens, uint64_t room, const std::string& where = "the prompt");

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_GENERATE_H_
