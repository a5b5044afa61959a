#include "runtime/ops/attention.h"

#include <algorithm>
#include <memory>
#include <span>

#include "kernels/attention.h"
#include "runtime/check.h"
#include "runtime/partition.h"

namespace lanewise::runtime {

namespace {

// Below this many independent heads a pass is cut further, into tiles.
constexpr size_t kEnoughHeads = 8;
// Operations that make a task worth its overhead.
constexpr double kTaskFlops = 4e6;

// The three parts of qkv (or of its gradient), by sequence and head.
template <typename T>
struct Parts {
  Mat<T> qkv;
  const AttentionShape& shape;

  size_t HeadDim() const { return shape.HeadDim(qkv.cols); }
  size_t Steps() const { return qkv.rows / shape.sequences; }
  Mat<T> Slice(size_t sequence, size_t first_head, size_t heads) const {
    return qkv.Rows(sequence * Steps(), Steps()).Cols(first_head * HeadDim(), heads * HeadDim());
  }
  Mat<T> Q(size_t sequence, size_t head, size_t count = 1) const {
    return Slice(sequence, head, count);
  }
  Mat<T> K(size_t sequence, size_t kv_head) const {
    return Slice(sequence, shape.heads + kv_head, 1);
  }
  Mat<T> V(size_t sequence, size_t kv_head) const {
    return Slice(sequence, shape.heads + shape.kv_heads + kv_head, 1);
  }
};

// Heads `head` .. `head + count` of an [N, heads * head_dim] matrix in one sequence.
template <typename T>
Mat<T> HeadsOf(Mat<T> m, const AttentionShape& shape, size_t sequence, size_t head, size_t count) {
  const size_t steps = m.rows / shape.sequences;
  const size_t head_dim = m.cols / shape.heads;
  return m.Rows(sequence * steps, steps).Cols(head * head_dim, count * head_dim);
}

// Multiplications and additions of `products` products of [steps, steps] with head_dim, all heads.
double Flops(const Tensor& qkv, const AttentionShape& shape, double products) {
  const size_t steps = qkv.rows / shape.sequences;
  return products * static_cast<double>(steps * (steps + 1)) *
         static_cast<double>(shape.HeadDim(qkv.cols)) *
         static_cast<double>(shape.sequences * shape.heads);
}

// Cuts `units` equal pieces of work into tasks that are worth it.
Pieces CutWork(size_t units, double flops) {
  const auto wanted = static_cast<size_t>(flops / kTaskFlops);
  return {units, std::clamp<size_t>(wanted, 1, units)};
}

std::span<float> WorkerScratch(std::span<std::byte> memory, size_t worker, size_t head_dim) {
  const size_t floats = kernels::AttentionScratch(head_dim);
  return std::span(reinterpret_cast<float*>(memory.data()), memory.size() / sizeof(float))
      .subspan(worker * floats, floats);
}

// in: qkv, out, lse, dout. out: dqkv.
class AttentionBackwardOp final : public Op {
 public:
  explicit AttentionBackwardOp(const AttentionShape& shape) : shape_(shape) {}
  std::string_view name() const override { return "attention backward"; }

  // Scratch of the workers, then the sums of out * dout [sequences * heads, steps].
  size_t WorkspaceBytes(std::span<const Tensor> in, std::span<const Tensor>,
                        size_t workers) const override {
    const size_t head_dim = shape_.HeadDim(in[0].cols);
    return (workers * kernels::AttentionScratch(head_dim) + in[0].rows * shape_.heads) *
           sizeof(float);
  }

  void Run(const OpArgs& args) const override {
    const Problem p(args, shape_);
    if (shape_.sequences * shape_.kv_heads >= kEnoughHeads) {
      RunWhole(p);
    } else {
      RunInParts(p);
    }
  }

  OpCost Cost(std::span<const Tensor> in, std::span<const Tensor> out) const override {
    OpCost cost = Op::Cost(in, out);
    cost.flops = Flops(in[0], shape_, 5);
    return cost;
  }

 private:
  struct Problem {
    Problem(const OpArgs& op_args, const AttentionShape& shape)
        : args(op_args),
          qkv{op_args.in[0].F32(), shape},
          dqkv{op_args.out[0].F32(), shape},
          out(op_args.in[1].F32()),
          dout(op_args.in[3].F32()),
          lse(op_args.in[2].F32()),
          delta(lse) {
      const size_t scratch =
          op_args.parallel.max_workers() * kernels::AttentionScratch(qkv.HeadDim());
      delta.data = reinterpret_cast<float*>(op_args.workspace.data()) + scratch;
      delta.stride = lse.cols;
    }
    const OpArgs& args;
    Parts<const float> qkv;
    Parts<float> dqkv;
    Mat<const float> out;
    Mat<const float> dout;
    Mat<float> lse;    // [sequences * heads, steps]
    Mat<float> delta;  // the same
    std::span<float> Scratch(size_t worker) const {
      return WorkerScratch(args.workspace, worker, qkv.HeadDim());
    }
  };

  // Deltas of the query heads of one key/value head.
  void Delta(const Problem& p, size_t sequence, size_t kv_head) const {
    for (size_t g = 0; g < shape_.Group(); ++g) {
      const size_t head = kv_head * shape_.Group() + g;
      kernels::AttentionDelta(HeadsOf(p.out, shape_, sequence, head, 1),
                              HeadsOf(p.dout, shape_, sequence, head, 1),
                              p.delta.RowSpan(sequence * shape_.heads + head));
    }
  }

  // A task does everything for some key/value heads.
  void RunWhole(const Problem& p) const {
    const size_t group = shape_.Group();
    const Pieces tasks =
        CutWork(shape_.sequences * shape_.kv_heads, Flops(p.args.in[0], shape_, 5));
    p.args.parallel.For(tasks.count, [&](size_t task, size_t worker) {
      for (size_t unit = tasks.Begin(task); unit < tasks.Begin(task + 1); ++unit) {
        const size_t s = unit / shape_.kv_heads;
        const size_t kv = unit % shape_.kv_heads;
        const size_t row = s * shape_.heads + kv * group;
        Delta(p, s, kv);
        kernels::AttentionBackward(
            p.qkv.Q(s, kv * group, group), p.qkv.K(s, kv), p.qkv.V(s, kv), p.lse.Rows(row, group),
            p.delta.Rows(row, group), HeadsOf(p.dout, shape_, s, kv * group, group),
            p.dqkv.Q(s, kv * group, group), p.dqkv.K(s, kv), p.dqkv.V(s, kv), p.Scratch(worker));
      }
    });
  }

  // Few heads, long sequences: dk and dv by chunks of keys, dq by tiles of queries, all
  // independent. The tasks with most work come first: the first keys, the last queries.
  void RunInParts(const Problem& p) const {
    const size_t group = shape_.Group();
    const size_t steps = p.qkv.Steps();
    const size_t units = shape_.sequences * shape_.kv_heads;
    p.args.parallel.For(units, [&](size_t unit, size_t) {
      Delta(p, unit / shape_.kv_heads, unit % shape_.kv_heads);
    });
    const size_t chunk = kernels::kAttentionKeyChunk;
    const size_t key_tasks = units * ((steps + chunk - 1) / chunk);
    const size_t tile = kernels::kAttentionQueryTile;
    const size_t tiles = (steps + tile - 1) / tile;
    const size_t query_tasks = shape_.sequences * shape_.heads * tiles;
    p.args.parallel.For(key_tasks + query_tasks, [&](size_t task, size_t worker) {
      if (task < key_tasks) {
        const size_t s = task % units / shape_.kv_heads;
        const size_t kv = task % units % shape_.kv_heads;
        const size_t row = s * shape_.heads + kv * group;
        const size_t begin = task / units * chunk;
        kernels::AttentionBackwardKeys(
            p.qkv.Q(s, kv * group, group), p.qkv.K(s, kv), p.qkv.V(s, kv), p.lse.Rows(row, group),
            p.delta.Rows(row, group), HeadsOf(p.dout, shape_, s, kv * group, group), begin,
            std::min(steps, begin + chunk), p.dqkv.K(s, kv), p.dqkv.V(s, kv), p.Scratch(worker));
        return;
      }
      task -= key_tasks;
      const size_t row = task % (shape_.sequences * shape_.heads);
      const size_t s = row / shape_.heads;
      const size_t head = row % shape_.heads;
      const size_t begin = (tiles - 1 - task / (shape_.sequences * shape_.heads)) * tile;
      kernels::AttentionBackwardQueries(
          p.qkv.Q(s, head), p.qkv.K(s, head / group), p.qkv.V(s, head / group), p.lse.RowSpan(row),
          p.delta.RowSpan(row), HeadsOf(p.dout, shape_, s, head, 1), begin,
          std::min(steps, begin + tile), p.dqkv.Q(s, head), p.Scratch(worker));
    });
  }

  AttentionShape shape_;
};

// in: qkv. out: out, lse [sequences * heads, steps].
class AttentionOp final : public Op {
 public:
  explicit AttentionOp(const AttentionShape& shape) : shape_(shape) {}
  std::string_view name() const override { return "attention"; }

  size_t WorkspaceBytes(std::span<const Tensor> in, std::span<const Tensor>,
                        size_t workers) const override {
    return workers * kernels::AttentionScratch(shape_.HeadDim(in[0].cols)) * sizeof(float);
  }

  void Run(const OpArgs& args) const override {
    const Parts<const float> qkv = {args.in[0].F32(), shape_};
    const Mat<float> out = args.out[0].F32();
    const Mat<float> lse = args.out[1].F32();
    const size_t steps = qkv.Steps();
    const size_t rows = shape_.sequences * shape_.heads;
    // Few heads: a unit is a tile of queries of one head, the last and longest tiles first.
    const bool whole = rows >= kEnoughHeads;
    const size_t tile = whole ? steps : kernels::kAttentionQueryTile;
    const size_t tiles = (steps + tile - 1) / tile;
    const Pieces tasks = CutWork(rows * tiles, Flops(args.in[0], shape_, 2));
    args.parallel.For(tasks.count, [&](size_t task, size_t worker) {
      for (size_t unit = tasks.Begin(task); unit < tasks.Begin(task + 1); ++unit) {
        const size_t row = unit % rows;
        const size_t s = row / shape_.heads;
        const size_t head = row % shape_.heads;
        const size_t begin = (tiles - 1 - unit / rows) * tile;
        kernels::AttentionForward(
            qkv.Q(s, head), qkv.K(s, head / shape_.Group()), qkv.V(s, head / shape_.Group()), begin,
            std::min(steps, begin + tile), HeadsOf(out, shape_, s, head, 1), lse.RowSpan(row),
            WorkerScratch(args.workspace, worker, qkv.HeadDim()));
      }
    });
  }

  void Differentiate(GradBuilder& builder, const Node& node) const override {
    const TensorId dout = builder.Grad(node.outputs[0]);
    if (!dout) return;
    const TensorId dqkv = builder.GradOverwrite(node.inputs[0]);
    builder.Add(std::make_shared<AttentionBackwardOp>(shape_),
                {node.inputs[0], node.outputs[0], node.outputs[1], dout}, {dqkv});
    builder.FinishGrad(node.inputs[0], dqkv);
  }

  OpCost Cost(std::span<const Tensor> in, std::span<const Tensor> out) const override {
    OpCost cost = Op::Cost(in, out);
    cost.flops = Flops(in[0], shape_, 2);
    return cost;
  }

 private:
  AttentionShape shape_;
};

}  // namespace

void AttentionShape::Check(std::string_view name, const TensorInfo& qkv) const {
  LW_CHECK(heads > 0 && kv_heads > 0 && heads % kv_heads == 0, name, ": ", heads,
           " heads cannot share ", kv_heads, " key/value heads");
  LW_CHECK(qkv.cols % (heads + 2 * kv_heads) == 0, name, ": qkv has ", qkv.cols, " columns for ",
           heads, " heads and ", kv_heads, " key/value heads");
  LW_CHECK(sequences > 0 && qkv.rows % sequences == 0, name, ": ", qkv.rows, " rows in ", sequences,
           " sequences");
}

TensorId Attention(Graph& graph, TensorId qkv, const AttentionShape& shape) {
  const TensorInfo info = graph.Info(qkv);
  shape.Check("attention", info);
  graph.CheckType("attention", qkv);
  const TensorId out =
      graph.Activation("attention", info.rows, shape.heads * shape.HeadDim(info.cols));
  const TensorId lse =
      graph.Activation("log-sum-exp", shape.sequences * shape.heads, info.rows / shape.sequences);
  graph.Add(std::make_shared<AttentionOp>(shape), {qkv}, {out, lse});
  return out;
}

}  // namespace lanewise::runtime
