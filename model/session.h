// A model at work on one or several token streams: prompts in chunks, then a token at a time.
#ifndef LANEWISE_MODEL_SESSION_H_
#define LANEWISE_MODEL_SESSION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "model/model.h"
#include "runtime/arena.h"
#include "runtime/executor.h"
#include "runtime/parallel.h"
#include "runtime/profiler.h"

namespace lanewise::model {

struct SessionOptions {
  size_t streams = 1;          // sequences that advance together, at most
  size_t cache_capacity = 0;   // tokens for models with a KV cache; 0: the model's context
  size_t prefill_steps = 256;  // tokens of the largest prefill chunk
  bool slide = false;          // a full KV cache forgets its oldest tokens: text without end
  runtime::Profiler* profiler = nullptr;
};

// Keeps the state of each stream; the weights belong to the caller and may change between calls (a
// sample while training). With one stream nothing is allocated after construction.
//
// A stream's logits have the same bits alone and among others, up to kernels::kMatmulSkinnyRows
// streams: products of more rows add in another order.
class Session {
 public:
  // With bf16 weights, products read those, and a KV cache is bf16 too.
  Session(const Model& model, const runtime::Weights& weights, const runtime::Scheduler& scheduler,
          const SessionOptions& options = {});

  // Forgets everything, of all streams or of one: position 0, zero state.
  void Reset();
  void Reset(size_t stream);

  // Feeds tokens to one stream; at least one. UsageError when a KV cache would overflow. `go_on` is
  // called after each chunk with the tokens that are fed; returning false stops there. Returns the
  // tokens that were fed.
  size_t Feed(std::span<const int32_t> tokens, size_t stream = 0,
              const std::function<bool(size_t fed)>& go_on = {});
  // One token for each of the first tokens.size() streams. The streams after them end: they are to
  // be reset, or copied to, before they are fed again.
  void Step(std::span<const int32_t> tokens);
  // Stream `to` becomes what stream `from` is, logits included.
  void CopyStream(size_t from, size_t to);

  // Logits after the last token fed to a stream, [vocabulary].
  std::span<const float> logits(size_t stream = 0) const;
  // Tokens fed so far.
  uint64_t position(size_t stream = 0) const;
  // Tokens that still fit; the largest number there is for recurrent models.
  uint64_t room(size_t stream = 0) const;

  // The state of a session with one stream as tensors to save, and back. `Restore` takes what was
  // saved for a model of the same sizes; InputError names what differs.
  std::vector<TensorSource> StateSources() const;
  void Restore(const std::vector<NamedTensor>& tensors, uint64_t position,
               const std::string& where);

  bool half_weights() const { return weights_.half != nullptr; }
  size_t MemoryBytes() const;

 private:
  struct Runner;  // an executor for a fixed number of sequences and steps
  std::shared_ptr<Runner> MakeRunner(size_t sequences, size_t steps) const;
  void CheckStream(size_t stream) const;
  void CheckTokens(std::span<const int32_t> tokens) const;
  void Run(Runner& runner, size_t stream, std::span<const int32_t> tokens);
  Runner& PrefillRunner(size_t tokens) const;
  // Of `count` streams from `stream` on, of one state tensor; `next` is where a run leaves it.
  std::span<std::byte> State(size_t spec, size_t stream, size_t count, bool next = false) const;

  const Model& model_;
  runtime::Weights weights_;
  const runtime::Scheduler& scheduler_;
  SessionOptions options_;
  std::vector<StateSpec> specs_;
  std::vector<size_t> state_offset_;  // bytes, by spec
  runtime::Arena states_[2];          // the current one and the next one
  size_t current_ = 0;
  std::vector<float> logits_;
  std::vector<uint64_t> positions_;
  std::vector<int32_t> tokens_, starts_, lengths_;  // of a run
  std::shared_ptr<Runner> single_;                  // of one stream
  std::vector<std::shared_ptr<Runner>> prefill_;    // the same in chunks, longest last
  std::shared_ptr<Runner> several_;                 // of as many as the last Step had
};

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_SESSION_H_
