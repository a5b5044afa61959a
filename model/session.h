// A model at work on one or several token streams: prefill in chunks, then a token at a time.
#ifndef LANEWISE_MODEL_SESSION_H_
#define LANEWISE_MODEL_SESSION_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "model/model.h"
#include "runtime/arena.h"
#include "runtime/executor.h"
#include "runtime/parallel.h"

namespace lanewise::model {

struct SessionOptions {
  size_t streams = 1;         // sequences that advance together
  size_t cache_capacity = 0;  // tokens for models with a KV cache; 0: the model's context
  size_t prefill_steps = 64;  // tokens of one prefill chunk
  bool slide = false;         // a full KV cache forgets its oldest tokens: text without end
};

// Keeps the state of each stream; the weights belong to the caller and may change between calls (a
// sample while training). Nothing is allocated after construction.
class Session {
 public:
  // With bf16 weights, products read those.
  Session(const Model& model, const runtime::Weights& weights, const runtime::Scheduler& scheduler,
          const SessionOptions& options = {});

  // Forgets everything: position 0, zero state.
  void Reset();

  // Feeds tokens to stream 0 of a session with one stream; at least one. UsageError when a KV cache
  // would overflow.
  void Feed(std::span<const int32_t> tokens);
  // One token for each stream.
  void Step(std::span<const int32_t> tokens);

  // Logits after the last token fed, [vocabulary] of a stream.
  std::span<const float> logits(size_t stream = 0) const;
  // Tokens fed so far (per stream; all streams are at the same place).
  uint64_t position() const { return position_; }
  // Tokens that still fit; the largest number there is for recurrent models.
  uint64_t room() const;

  // The state as tensors to save, and back. `Restore` takes what SaveTo wrote for a model of the
  // same sizes; InputError names what differs.
  std::vector<TensorSource> StateSources() const;
  void Restore(const std::vector<NamedTensor>& tensors, uint64_t position,
               const std::string& where);
  // Takes stream 0's state of another session of the same model into every stream of this one.
  void CopyStateFrom(const Session& other);

  size_t MemoryBytes() const;

 private:
  struct Runner;  // an executor for a fixed number of steps
  void Run(Runner& runner, std::span<const int32_t> tokens, size_t valid);
  std::span<float> State(size_t which, size_t spec) const;

  const Model& model_;
  const runtime::Scheduler& scheduler_;
  SessionOptions options_;
  std::vector<StateSpec> specs_;
  std::vector<size_t> state_offset_;  // floats, by spec
  runtime::Arena states_[2];          // the current one and the next one
  size_t current_ = 0;
  std::vector<float> logits_;
  std::vector<int32_t> tokens_, starts_, lengths_;
  uint64_t position_ = 0;
  std::shared_ptr<Runner> decode_, prefill_;
};

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_SESSION_H_
