// Several texts written at once: each step reads the weights once for all of them.
#ifndef LANEWISE_MODEL_TEXT_BATCH_H_
#define LANEWISE_MODEL_TEXT_BATCH_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "model/model.h"
#include "model/text_stream.h"
#include "runtime/parallel.h"

namespace lanewise::model {

struct TextRequest {
  std::string prompt;
  uint64_t seed = 0;
  std::string where;  // how messages call the prompt: "line 3 of prompts.txt"
};

struct TextBatchReport {
  size_t texts = 0;        // given to on_finished
  size_t full = 0;         // of these, ended because the context was full
  size_t interrupted = 0;  // or because on_step said so
  uint64_t prompt_tokens = 0, tokens = 0, steps = 0;  // as GenerateReport
  double prompt_seconds = 0, seconds = 0;
};

struct TextBatchOptions {
  GenerateOptions text;  // of each; its seed, on_text and on_prompt are not used
  bool slide = false;    // as SessionOptions
  // Called with each text, in the order of the requests, once it and those before it are finished.
  std::function<void(size_t index, const GenerateReport& report)> on_finished;
  // Called before each step and after each chunk of a prompt. Returning false stops: texts that
  // were begun end there, as interrupted; others are left out.
  std::function<bool(const TextBatchReport& so_far)> on_step;
};

// Writes a text for each request; another takes the place of one that ends. Every text has the
// tokens that a Generator makes of the same prompt and seed, bit for bit, because no more streams
// run at once than that holds for (model/session.h). UsageError, before anything is written, where
// a prompt does not fit the model's context.
TextBatchReport GenerateTexts(const Model& model, const runtime::Weights& weights,
                              const runtime::Scheduler& scheduler, const Tokenizer& tokenizer,
                              const std::vector<TextRequest>& requests,
                              const TextBatchOptions& options);

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_TEXT_BATCH_H_
