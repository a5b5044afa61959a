// What every model architecture offers: parameters, states, and one description of its forward
// pass.
#ifndef LANEWISE_MODEL_MODEL_H_
#define LANEWISE_MODEL_MODEL_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/formats/model_file.h"
#include "model/json.h"
#include "model/param_set.h"
#include "runtime/graph.h"

namespace lanewise::model {

// A tensor of the recurrent state (or the KV cache) of one sequence. Several sequences lie one
// after the other.
struct StateSpec {
  std::string name;
  size_t rows = 0;
  size_t cols = 0;
  bool in_place =
      false;  // a cache that grows where it is; else each window reads one copy and writes another
  runtime::DType dtype = runtime::DType::kFloat32;
  size_t Count() const { return rows * cols; }
  size_t Bytes() const { return Count() * runtime::SizeOf(dtype); }
};

// Which graph to build. The forward pass is the same in all of them.
struct GraphOptions {
  size_t sequences = 1;
  size_t steps = 1;           // tokens of one window
  bool losses = false;        // nll and loss of every row
  bool gradients = false;     // needs losses
  bool logits = false;        // of the last valid step of each sequence
  bool state = false;         // windows go on from a state and leave one behind
  bool half_weights = false;  // matrices (runtime::Weights::half) and KV caches are bf16
  float label_smoothing = 0;
  float dropout = 0;              // only with gradients
  bool recompute_layers = false;  // only with gradients
  size_t cache_capacity = 0;      // tokens that a KV cache can hold (models that have one)
  bool slide_cache = false;  // a full cache forgets its oldest tokens instead of refusing new ones
};

// The graph and the tensors that a caller binds. Absent ones are not needed with the options given.
struct ModelGraph {
  runtime::Graph graph;
  runtime::TensorId tokens;      // int32 [N,1], N = sequences * steps
  runtime::TensorId lengths;     // int32 [sequences,1]: valid steps; unbound: all
  runtime::TensorId starts;      // int32 [sequences,1]: tokens before this window (positions)
  runtime::TensorId targets;     // int32 [N,1], -1 is ignored
  runtime::TensorId scale;       // float [1,1]: weight of a row's loss in the gradient
  runtime::TensorId random_key;  // int32 [4,1], see runtime/ops/dropout.h
  runtime::TensorId nll;         // float [N,1]
  runtime::TensorId loss;        // float [N,1]
  runtime::TensorId logits;      // float [sequences, vocabulary]
  std::vector<runtime::TensorId> state_in, state_out;  // as Model::state()
};

class Model {
 public:
  virtual ~Model() = default;
  virtual std::string_view kind() const = 0;
  // Sizes under the names of the command line; MakeModel takes it back.
  virtual Json Config() const = 0;
  virtual size_t vocab_size() const = 0;
  virtual size_t context() const = 0;  // window length it was made for
  // Whether a state of constant size carries text of any length; else a KV cache grows to a
  // capacity.
  virtual bool recurrent() const = 0;
  // With a KV cache, of options.cache_capacity tokens.
  virtual std::vector<StateSpec> state(const GraphOptions& options) const = 0;
  virtual ModelGraph Build(const GraphOptions& options) const = 0;
  // Fills a zeroed flat buffer. scheme: "default" or "seed".
  virtual void Initialize(std::string_view scheme, uint64_t seed,
                          std::span<float> weights) const = 0;
  // Multiplications and additions of matrix products (and attention) for one trained token, forward
  // and backward.
  virtual double TrainFlopsPerToken(size_t steps) const = 0;
  // Weights that one decoded token reads: all matrices but an embedding table of its own.
  virtual size_t DecodeWeights() const = 0;

  const ParamSet& params() const { return params_; }

 protected:
  ParamSet params_;
};

// config as in ModelFile; InputError names `where` and the field.
std::unique_ptr<Model> MakeModel(const Json& config, const std::string& where);

// InputError when one of the file's tensors is missing, has another shape, or is not the model's.
void CheckWeights(const ModelFile& file, const ParamSet& params);
// Copies the file's tensors into a flat buffer; with `half`, matrices go there instead, rounded to
// bf16. InputError as above, and where one is not finite.
void LoadWeights(const ModelFile& file, const ParamSet& params, std::span<float> weights,
                 std::span<kernels::BFloat16> half = {});

// Each parameter of a flat buffer as a tensor to save; names get the prefix.
std::vector<TensorSource> WeightSources(const ParamSet& params, const float* buffer,
                                        const std::string& prefix = "");

}  // namespace lanewise::model

#endif  // LANEWISE_MODEL_MODEL_H_
