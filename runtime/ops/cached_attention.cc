#include "runtime/ops/cached_attention.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>

#include "kernels/cached_attention.h"
#include "runtime/check.h"

namespace lanewise::runtime {

namespace {

// With fewer (sequence, key/value head) pairs than this the cache is cut into chunks of rows.
constexpr size_t kEnoughHeads = 8;
constexpr size_t kChunk = 512;
// Below this many operations (with a full cache) threads do not pay.
constexpr size_t kSerialFlops = size_t{1} << 19;

// in: qkv, starts, lengths. out: out, k cache, v cache.
class CachedAttentionOp final : public Op {
 public:
  CachedAttentionOp(const AttentionShape& shape, bool slide) : shape_(shape), slide_(slide) {}
  std::string_view name() const override { return "cached attention"; }

  // Scratch of the workers, then the parts of all chunks.
  size_t WorkspaceBytes(std::span<const Tensor> in, std::span<const Tensor> out,
                        size_t workers) const override {
    const size_t head_dim = shape_.HeadDim(in[0].cols);
    const size_t chunks = Chunks(out[1]);
    const size_t parts = chunks == 1 ? 0 : chunks * in[0].rows * shape_.heads * (head_dim + 2);
    return (workers * kernels::CachedAttentionScratch(head_dim) + parts) * sizeof(float);
  }

  void Run(const OpArgs& args) const override {
    Window w(args, shape_);
    bool wraps = false;
    for (size_t s = 0; s < shape_.sequences; ++s) {
      const int32_t start = w.Start(s);
      const int32_t length = w.Length(s);
      LW_CHECK(start >= 0 && length >= 0 && static_cast<size_t>(length) <= w.steps,
               "cached attention: sequence ", s, " has ", length, " of ", w.steps, " steps from ",
               start);
      const bool fits = static_cast<size_t>(start) + static_cast<size_t>(length) <= w.capacity;
      LW_CHECK(fits || slide_, "cached attention: sequence ", s, " has ", start, " tokens and ",
               length, " new ones, its cache holds ", w.capacity);
      wraps = wraps || !fits;
    }
    // A window that overwrites rows which its earlier tokens still see goes token by token.
    w.width = wraps ? 1 : w.steps;
    for (w.begin = 0; w.begin < w.steps; w.begin += w.width) RunPart(args, w);
  }

  OpCost Cost(std::span<const Tensor> in, std::span<const Tensor> out) const override {
    OpCost cost = Op::Cost(in, out);
    cost.flops = 4.0 * static_cast<double>(MostPairs(in[0], out[1])) *
                 static_cast<double>(shape_.HeadDim(in[0].cols));
    return cost;
  }

 private:
  // Some steps of a window: [begin, begin + width) of each sequence.
  struct Window {
    Window(const OpArgs& args, const AttentionShape& shape)
        : qkv(args.in[0].F32()),
          out(args.out[0].F32()),
          k_cache(args.out[1].F32()),
          v_cache(args.out[2].F32()),
          starts(args.in[1]),
          lengths(args.in[2]),
          head_dim(shape.HeadDim(qkv.cols)),
          steps(qkv.rows / shape.sequences),
          capacity(k_cache.rows / shape.sequences) {}

    int32_t Start(size_t s) const { return starts ? starts.Ints()[s] : 0; }
    int32_t Length(size_t s) const {
      return lengths ? lengths.Ints()[s] : static_cast<int32_t>(steps);
    }
    // Valid steps of this part.
    size_t Count(size_t s) const {
      const auto length = static_cast<size_t>(Length(s));
      return std::min(width, length - std::min(length, begin));
    }
    size_t Position(size_t s) const { return static_cast<size_t>(Start(s)) + begin; }
    // The row of the last token that is seen when the cache is full: all rows are seen then.
    size_t Base(size_t s) const { return std::min(Position(s), capacity - 1); }
    size_t FirstRow(size_t s) const { return s * steps + begin; }

    Mat<const float> qkv;
    Mat<float> out;
    Mat<float> k_cache, v_cache;
    Tensor starts, lengths;
    size_t head_dim, steps, capacity;
    size_t begin = 0;
    size_t width = 0;
  };

  size_t Chunks(const Tensor& cache) const {
    if (shape_.sequences * shape_.kv_heads >= kEnoughHeads) return 1;
    return (cache.rows / shape_.sequences + kChunk - 1) / kChunk;
  }
  size_t MostPairs(const Tensor& qkv, const Tensor& cache) const {
    return qkv.rows * shape_.heads * (cache.rows / shape_.sequences);
  }

  void Append(const Window& w, size_t s, size_t kv) const {
    const size_t k_col = (shape_.heads + kv) * w.head_dim;
    const size_t v_col = (shape_.heads + shape_.kv_heads + kv) * w.head_dim;
    for (size_t i = 0; i < w.Count(s); ++i) {
      const float* const row = w.qkv.Row(w.FirstRow(s) + i);
      const size_t to = s * w.capacity + (w.Position(s) + i) % w.capacity;
      std::copy_n(row + k_col, w.head_dim, w.k_cache.Row(to) + kv * w.head_dim);
      std::copy_n(row + v_col, w.head_dim, w.v_cache.Row(to) + kv * w.head_dim);
    }
  }

  Mat<const float> Cache(const Window& w, Mat<float> cache, size_t s, size_t kv) const {
    return cache.Rows(s * w.capacity, w.capacity).Cols(kv * w.head_dim, w.head_dim);
  }
  // The query heads of one key/value head: columns of qkv and of out.
  template <typename T>
  Mat<T> Heads(const Window& w, Mat<T> m, size_t s, size_t kv) const {
    const size_t width = shape_.Group() * w.head_dim;
    return m.Rows(w.FirstRow(s), w.Count(s)).Cols(kv * width, width);
  }
  void ClearInvalid(const Window& w, size_t s, size_t kv) const {
    const size_t width = shape_.Group() * w.head_dim;
    for (size_t i = w.Count(s); i < std::min(w.width, w.steps - w.begin); ++i) {
      std::fill_n(w.out.Row(w.FirstRow(s) + i) + kv * width, width, 0.0F);
    }
  }

  void RunPart(const OpArgs& args, const Window& w) const {
    const Parallel serial;
    const bool small = 4 * MostPairs(args.in[0], args.out[1]) * w.head_dim < kSerialFlops;
    const Parallel& parallel = small ? serial : args.parallel;
    const size_t chunks = Chunks(args.out[1]);
    const size_t units = shape_.sequences * shape_.kv_heads;
    const size_t scratch = kernels::CachedAttentionScratch(w.head_dim);
    auto* const memory = reinterpret_cast<float*>(args.workspace.data());
    const auto whole = [&](size_t unit, size_t worker) {
      const size_t s = unit / shape_.kv_heads;
      const size_t kv = unit % shape_.kv_heads;
      Append(w, s, kv);
      ClearInvalid(w, s, kv);
      if (w.Count(s) == 0) return;
      if (chunks > 1) return;
      kernels::CachedAttentionForward(Heads(w, w.qkv, s, kv), Cache(w, w.k_cache, s, kv),
                                      Cache(w, w.v_cache, s, kv), 0, w.Base(s),
                                      Heads(w, w.out, s, kv), {memory + worker * scratch, scratch});
    };
    parallel.For(units, whole);
    if (chunks == 1) return;

    // Parts [units][chunks][width * group, head_dim + 2].
    const size_t part_rows = w.width * shape_.Group();
    const Mat<float> parts = {memory + args.parallel.max_workers() * scratch,
                              units * chunks * part_rows, w.head_dim + 2, w.head_dim + 2};
    const auto live = [&](size_t s) { return (w.Base(s) + w.Count(s) + kChunk - 1) / kChunk; };
    parallel.For(units * chunks, [&](size_t task, size_t worker) {
      const size_t s = task / chunks / shape_.kv_heads;
      const size_t kv = task / chunks % shape_.kv_heads;
      const size_t chunk = task % chunks;
      if (w.Count(s) == 0 || chunk >= live(s)) return;
      const size_t rows = w.Count(s) * shape_.Group();
      kernels::CachedAttentionPartial(
          Heads(w, w.qkv, s, kv), Cache(w, w.k_cache, s, kv), Cache(w, w.v_cache, s, kv), 0,
          w.Base(s), chunk * kChunk, (chunk + 1) * kChunk,
          parts.Rows(task / chunks * chunks * part_rows + chunk * rows, rows),
          {memory + worker * scratch, scratch});
    });
    parallel.For(units, [&](size_t unit, size_t) {
      const size_t s = unit / shape_.kv_heads;
      if (w.Count(s) == 0) return;
      const size_t rows = live(s) * w.Count(s) * shape_.Group();
      kernels::CachedAttentionMerge(parts.Rows(unit * chunks * part_rows, rows), live(s),
                                    Heads(w, w.out, s, unit % shape_.kv_heads));
    });
  }

  AttentionShape shape_;
  bool slide_;
};

void CheckInts(const Graph& graph, TensorId id, const char* what, size_t sequences) {
  if (!id) return;
  const TensorInfo& info = graph.Info(id);
  LW_CHECK(info.dtype == DType::kInt32 && info.rows == sequences && info.cols == 1,
           "cached attention: ", what, " are [", info.rows, ", ", info.cols, "], not int32 [",
           sequences, ", 1]");
}

}  // namespace

TensorId CachedAttention(Graph& graph, const CachedAttentionArgs& args) {
  const TensorInfo info = graph.Info(args.qkv);
  const AttentionShape& shape = args.shape;
  shape.Check("cached attention", info);
  const size_t head_dim = shape.HeadDim(info.cols);
  const TensorInfo k = graph.Info(args.keys);
  const TensorInfo v = graph.Info(args.values);
  LW_CHECK(k.rows == v.rows && k.rows % shape.sequences == 0 && k.cols == v.cols &&
               k.cols == shape.kv_heads * head_dim,
           "cached attention: caches [", k.rows, ", ", k.cols, "] and [", v.rows, ", ", v.cols,
           "] for ", shape.sequences, " sequences and ", shape.kv_heads, " heads of ", head_dim);
  CheckInts(graph, args.starts, "starts", shape.sequences);
  CheckInts(graph, args.lengths, "lengths", shape.sequences);
  const TensorId out = graph.Activation("attention", info.rows, shape.heads * head_dim);
  graph.Add(std::make_shared<CachedAttentionOp>(shape, args.slide),
            {args.qkv, args.starts, args.lengths}, {out, args.keys, args.values});
  return out;
}

}  // namespace lanewise::runtime
