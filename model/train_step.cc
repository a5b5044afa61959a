#include "model/train_step.h"

#include <algorithm>
#include <utility>

#include "kernels/reduce.h"
#include "runtime/check.h"
#include "runtime/partition.h"
#include "runtime/plan.h"

namespace lanewise::model {

namespace {

constexpr size_t kShardGradientBytes = size_t{64} << 20;  // all shards together
constexpr size_t kShardTokens = 192;                      // fewer do not keep matmuls busy
constexpr size_t kPiece = size_t{1} << 16;                // floats of one task over flat buffers
constexpr size_t kSumPiece = size_t{1} << 13;             // of all shards: they fit the L2 cache

GraphOptions ShardOptions(const StepShape& shape, size_t shards) {
  return {.sequences = shape.sequences / shards,
          .steps = shape.steps,
          .losses = true,
          .gradients = true,
          .state = shape.carry_state,
          .half_weights = shape.half_weights,
          .label_smoothing = shape.label_smoothing,
          .dropout = shape.dropout,
          .recompute_layers = shape.recompute_layers};
}

// Workers that the operations of one shard may use.
size_t ShardWorkers(size_t shards, size_t threads) { return shards >= threads ? 1 : threads; }

// Shards that run at the same time. Each has an executor, and so activations, of its own; the next
// shard of the same worker finds them in the cache.
size_t ExecutorCount(size_t shards, size_t threads) { return std::min(shards, threads); }

}  // namespace

size_t ShardCount(const Model& model, const StepShape& shape) {
  const size_t gradient_bytes = model.params().buffer_size() * sizeof(float);
  for (const size_t shards : {size_t{8}, size_t{4}, size_t{2}}) {
    if (shape.sequences % shards == 0 && shape.sequences / shards * shape.steps >= kShardTokens &&
        gradient_bytes * shards <= kShardGradientBytes) {
      return shards;
    }
  }
  return 1;
}

StepMemory PlanStepMemory(const Model& model, const StepShape& shape, size_t threads) {
  const size_t shards = ShardCount(model, shape);
  const ModelGraph built = model.Build(ShardOptions(shape, shards));
  const runtime::Plan plan = runtime::MakePlan(built.graph, ShardWorkers(shards, threads));
  return {.activations = ExecutorCount(shards, threads) * plan.arena_bytes,
          .gradients = (shards - 1) * model.params().buffer_size() * sizeof(float)};
}

TrainStep::TrainStep(const Model& model, const runtime::Scheduler& scheduler,
                     const StepShape& shape, runtime::Profiler* profiler)
    : scheduler_(scheduler),
      shape_(shape),
      profiler_(profiler),
      buffer_size_(model.params().buffer_size()) {
  const size_t shards = shards_ = ShardCount(model, shape);
  ports_ = model.Build(ShardOptions(shape, shards));
  auto graph = std::make_shared<const runtime::Graph>(std::move(ports_.graph));
  auto plan = std::make_shared<const runtime::Plan>(
      runtime::MakePlan(*graph, ShardWorkers(shards, scheduler.threads())));
  gradients_ = runtime::Arena("gradients", shards * buffer_size_ * sizeof(float));
  for (size_t i = 0; i < ExecutorCount(shards, scheduler.threads()); ++i) {
    executors_.push_back(std::make_unique<runtime::Executor>(graph, plan));
  }
  const size_t rows = shape.sequences * shape.steps;
  nll_.resize(rows);
  loss_.resize(rows);
  keys_.resize(4 * shards);
  squares_.resize((buffer_size_ + kPiece - 1) / kPiece);
  if (shape.carry_state) {
    specs_ = model.state({});
    size_t floats = 0;
    for (const StateSpec& spec : specs_) {
      state_offset_.push_back(floats);
      floats += shape.sequences * spec.Count();
    }
    for (runtime::Arena& state : states_) {
      state = runtime::Arena("carried state", floats * sizeof(float));
    }
  }
}

void TrainStep::Bind(runtime::Executor& executor, size_t shard, const runtime::Weights& weights,
                     std::span<const int32_t> inputs, std::span<const int32_t> targets) {
  const size_t sequences = shape_.sequences / shards();
  const size_t row = shard * sequences * shape_.steps;
  executor.BindParameters(weights, gradients_.Floats().data() + shard * buffer_size_);
  executor.Bind(ports_.tokens, inputs.data() + row);
  executor.Bind(ports_.targets, targets.data() + row);
  executor.Bind(ports_.scale, &scale_);
  executor.Bind(ports_.nll, nll_.data() + row);
  executor.Bind(ports_.loss, loss_.data() + row);
  if (ports_.random_key) executor.Bind(ports_.random_key, keys_.data() + 4 * shard);
  for (size_t i = 0; i < specs_.size(); ++i) {
    const size_t offset = state_offset_[i] + shard * sequences * specs_[i].Count();
    executor.Bind(ports_.state_in[i], states_[current_].Floats().data() + offset);
    executor.Bind(ports_.state_out[i], states_[1 - current_].Floats().data() + offset);
  }
}

TrainStep::Loss TrainStep::Accumulate(const runtime::Weights& weights,
                                      std::span<const int32_t> inputs,
                                      std::span<const int32_t> targets, float scale, uint64_t seed,
                                      uint32_t step, uint32_t row) {
  LW_CHECK(inputs.size() == nll_.size() && targets.size() == nll_.size(),
           "train_step: ", inputs.size(), " inputs, ", targets.size(), " targets, ", nll_.size(),
           " rows");
  scale_ = scale;
  for (size_t s = 0; s < shards(); ++s) {
    const size_t shard_row = row + s * (nll_.size() / shards());
    keys_[4 * s] = static_cast<int32_t>(static_cast<uint32_t>(seed));
    keys_[4 * s + 1] = static_cast<int32_t>(static_cast<uint32_t>(seed >> 32));
    keys_[4 * s + 2] = static_cast<int32_t>(step);
    keys_[4 * s + 3] = static_cast<int32_t>(shard_row);
  }
  const runtime::Parallel all = scheduler_.All();
  if (shards() == 1) {
    Bind(*executors_[0], 0, weights, inputs, targets);
    executors_[0]->Run(all, profiler_);
  } else {
    const bool inner = ShardWorkers(shards(), scheduler_.threads()) > 1;
    all.For(shards(), [&](size_t s, size_t worker) {
      const size_t mine = inner ? s : worker;
      Bind(*executors_[mine], s, weights, inputs, targets);
      executors_[mine]->Run(inner ? all : runtime::Parallel(), profiler_, static_cast<int>(mine));
    });
  }
  if (shape_.carry_state) current_ = 1 - current_;
  Loss sum;
  for (size_t r = 0; r < nll_.size(); ++r) {
    sum.loss += static_cast<double>(loss_[r]);
    sum.nll += static_cast<double>(nll_[r]);
  }
  return sum;
}

double TrainStep::Finish() {
  const std::span<float> all = gradients_.Floats();
  scheduler_.All().For(squares_.size(), [&](size_t piece, size_t) {
    const size_t begin = piece * kPiece;
    const size_t end = std::min(buffer_size_, begin + kPiece);
    for (size_t at = begin; at < end && shards() > 1; at += kSumPiece) {
      const size_t count = std::min(kSumPiece, end - at);
      kernels::SumRowsTree({all.data() + at, shards(), count, buffer_size_},
                           all.subspan(at, count));
      // The next step adds to them. Here they are still in the cache.
      for (size_t s = 1; s < shards(); ++s) {
        kernels::Fill(0.0F, all.subspan(s * buffer_size_ + at, count));
      }
    }
    squares_[piece] = kernels::SumSquares(all.subspan(begin, end - begin));
  });
  double sum = 0;
  for (const double s : squares_) sum += s;
  return sum;
}

void TrainStep::Zero() {
  const std::span<float> all = gradients_.Floats();
  const runtime::Pieces pieces{all.size(), (all.size() + kPiece - 1) / kPiece};
  scheduler_.All().For(pieces.count, [&](size_t piece, size_t) {
    kernels::Fill(0.0F, all.subspan(pieces.Begin(piece), pieces.Size(piece)));
  });
}

std::vector<TrainStep::StateTensor> TrainStep::StateTensors() const {
  std::vector<StateTensor> tensors;
  for (size_t i = 0; i < specs_.size(); ++i) {
    const size_t rows = shape_.sequences * specs_[i].rows;
    tensors.push_back(
        {specs_[i].name, rows, specs_[i].cols,
         states_[current_].Floats().subspan(state_offset_[i], rows * specs_[i].cols)});
  }
  return tensors;
}

void TrainStep::ResetState() {
  if (!specs_.empty()) std::ranges::fill(states_[current_].Floats(), 0.0F);
}

}  // namespace lanewise::model
