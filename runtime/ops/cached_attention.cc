#include "runtime/ops/cached_attention.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>

#include "kernels/bfloat16.h"
#include "kernels/cached_attention.h"
#include "runtime/check.h"

namespace lanewise::runtime {

namespace {

// By tiles, with fewer key/value heads than this the cache is cut into chunks of rows. The number
// of sequences has no say: a sequence has the same bits alone and among others.
constexpr size_t kEnoughHeads = 8;
constexpr size_t kTileChunk = 512;
// When the cache is streamed, a unit reads so many columns of each row or more, and a chunk has
// about so many bytes of keys and values.
constexpr size_t kStreamColumns = 256;
constexpr size_t kStreamChunkBytes = size_t{1} << 19;
// Below this many operations (with a full cache) threads do not pay.
constexpr size_t kSerialFlops = size_t{1} << 19;

// The fewest heads of a unit that fill kStreamColumns, among the numbers that divide all heads.
size_t StreamHeads(size_t kv_heads, size_t head_dim) {
  for (size_t heads = 1; heads < kv_heads; ++heads) {
    if (kv_heads % heads == 0 && heads * head_dim >= kStreamColumns) return heads;
  }
  return kv_heads;
}

// How a window is cut, by shape alone: units of key/value heads in each sequence, and chunks of
// rows.
struct CachedPartition {
  CachedPartition(const AttentionShape& shape, const Tensor& qkv, const Tensor& cache) {
    const size_t steps = qkv.rows / shape.sequences;
    capacity = cache.rows / shape.sequences;
    if (steps * shape.Group() < kernels::kCachedAttentionTileQueries) {
      const size_t head_dim = cache.cols / shape.kv_heads;
      kv_per_unit = StreamHeads(shape.kv_heads, head_dim);
      const size_t rows = kStreamChunkBytes / (2 * SizeOf(cache.dtype) * kv_per_unit * head_dim);
      chunk = std::max<size_t>(64, rows / 64 * 64);
    } else {
      kv_per_unit = 1;
      chunk = shape.kv_heads >= kEnoughHeads ? capacity : kTileChunk;
    }
    chunks = (capacity + chunk - 1) / chunk;
    units = shape.kv_heads / kv_per_unit;
    heads = kv_per_unit * shape.Group();
  }
  size_t capacity;
  size_t kv_per_unit;
  size_t heads;   // query heads of a unit
  size_t units;   // of a sequence
  size_t chunk;   // rows
  size_t chunks;  // of a full cache
};

// in: qkv, starts, lengths. out: out, k cache, v cache.
class CachedAttentionOp final : public Op {
 public:
  CachedAttentionOp(const AttentionShape& shape, bool slide) : shape_(shape), slide_(slide) {}
  std::string_view name() const override { return "cached attention"; }
  bool OptionalInput(size_t input) const override { return input == 1 || input == 2; }

  // Scratch of the workers, then the parts of all chunks.
  size_t WorkspaceBytes(std::span<const Tensor> in, std::span<const Tensor> out,
                        size_t workers) const override {
    const CachedPartition cut(shape_, in[0], out[1]);
    const size_t parts = cut.chunks * in[0].rows * shape_.heads * (shape_.HeadDim(in[0].cols) + 2);
    return (workers * ScratchFloats(in[0], cut) + (cut.chunks == 1 ? 0 : parts)) * sizeof(float);
  }

  void Run(const OpArgs& args) const override {
    if (IsBf16(args.out[1])) {
      RunWindow<kernels::BFloat16>(args, {args.out[1].BF16(), args.out[2].BF16()});
    } else {
      RunWindow<float>(args, {args.out[1].F32(), args.out[2].F32()});
    }
  }

  OpCost Cost(std::span<const Tensor> in, std::span<const Tensor> out) const override {
    OpCost cost = Op::Cost(in, out);
    cost.flops = 4.0 * static_cast<double>(MostPairs(in[0], out[1])) *
                 static_cast<double>(shape_.HeadDim(in[0].cols));
    return cost;
  }

 private:
  template <typename T>
  struct Caches {
    Mat<T> k, v;
  };
  // Some steps of a window: [begin, begin + width) of each sequence that fits its cache, or of each
  // that does not.
  struct Window {
    Window(const OpArgs& args, const AttentionShape& shape)
        : qkv(args.in[0].F32()),
          out(args.out[0].F32()),
          starts(args.in[1]),
          lengths(args.in[2]),
          head_dim(shape.HeadDim(qkv.cols)),
          steps(qkv.rows / shape.sequences),
          capacity(args.out[1].rows / shape.sequences) {}

    int32_t Start(size_t s) const { return starts ? starts.Ints()[s] : 0; }
    int32_t Length(size_t s) const {
      return lengths ? lengths.Ints()[s] : static_cast<int32_t>(steps);
    }
    bool Fits(size_t s) const {
      return static_cast<size_t>(Start(s)) + static_cast<size_t>(Length(s)) <= capacity;
    }
    // Valid steps of this part.
    size_t Count(size_t s) const {
      if (Fits(s) != fitting) return 0;
      const auto length = static_cast<size_t>(Length(s));
      return std::min(width, length - std::min(length, begin));
    }
    size_t Position(size_t s) const { return static_cast<size_t>(Start(s)) + begin; }
    // The row of the last token that is seen when the cache is full: all rows are seen then.
    size_t Base(size_t s) const { return std::min(Position(s), capacity - 1); }
    size_t FirstRow(size_t s) const { return s * steps + begin; }

    Mat<const float> qkv;
    Mat<float> out;
    Tensor starts, lengths;
    size_t head_dim, steps, capacity;
    bool fitting = true;
    size_t begin = 0;
    size_t width = 0;
  };

  size_t ScratchFloats(const Tensor& qkv, const CachedPartition& cut) const {
    return kernels::CachedAttentionScratch(qkv.rows / shape_.sequences, cut.heads,
                                           shape_.HeadDim(qkv.cols));
  }
  size_t MostPairs(const Tensor& qkv, const Tensor& cache) const {
    return qkv.rows * shape_.heads * (cache.rows / shape_.sequences);
  }

  template <typename T>
  void RunWindow(const OpArgs& args, const Caches<T>& caches) const {
    Window w(args, shape_);
    bool some_fit = false;
    bool some_wrap = false;
    for (size_t s = 0; s < shape_.sequences; ++s) {
      const int32_t start = w.Start(s);
      const int32_t length = w.Length(s);
      LW_CHECK(start >= 0 && length >= 0 && static_cast<size_t>(length) <= w.steps,
               "cached attention: sequence ", s, " has ", length, " of ", w.steps, " steps from ",
               start);
      const bool fits = w.Fits(s);
      LW_CHECK(fits || slide_, "cached attention: sequence ", s, " has ", start, " tokens and ",
               length, " new ones, its cache holds ", w.capacity);
      some_fit = some_fit || fits;
      some_wrap = some_wrap || !fits;
    }
    w.width = w.steps;
    if (some_fit) RunPart(args, w, caches);
    if (!some_wrap) return;
    // A window that overwrites rows which its earlier tokens still see goes token by token.
    w.fitting = false;
    w.width = 1;
    for (; w.begin < w.steps; ++w.begin) RunPart(args, w, caches);
  }

  // What one unit works on, in one sequence.
  template <typename T>
  struct Unit {
    Mat<const float> q;
    Mat<const T> k, v;
    Mat<float> out;
  };
  template <typename T>
  Unit<T> Slice(const Window& w, const Caches<T>& caches, const CachedPartition& cut, size_t s,
                size_t unit) const {
    const size_t q_cols = cut.heads * w.head_dim;
    const size_t kv_cols = cut.kv_per_unit * w.head_dim;
    const auto cache = [&](Mat<const T> m) {
      return m.Rows(s * w.capacity, w.capacity).Cols(unit * kv_cols, kv_cols);
    };
    return {w.qkv.Rows(w.FirstRow(s), w.Count(s)).Cols(unit * q_cols, q_cols), cache(caches.k),
            cache(caches.v), w.out.Rows(w.FirstRow(s), w.Count(s)).Cols(unit * q_cols, q_cols)};
  }

  static void Keep(std::span<const float> from, float* to) { std::ranges::copy(from, to); }
  static void Keep(std::span<const float> from, kernels::BFloat16* to) {
    kernels::RoundToBFloat16(from, {to, from.size()});
  }

  // Copies the unit's new keys and values into the caches and clears outputs that nobody computes.
  template <typename T>
  void Append(const Window& w, const Caches<T>& caches, const CachedPartition& cut, size_t s,
              size_t unit) const {
    if (w.Fits(s) != w.fitting) return;
    const size_t cols = cut.kv_per_unit * w.head_dim;
    const size_t k_col = shape_.heads * w.head_dim + unit * cols;
    const size_t v_col = k_col + shape_.kv_heads * w.head_dim;
    for (size_t i = 0; i < w.Count(s); ++i) {
      const float* const row = w.qkv.Row(w.FirstRow(s) + i);
      const size_t to = s * w.capacity + (w.Position(s) + i) % w.capacity;
      Keep({row + k_col, cols}, caches.k.Row(to) + unit * cols);
      Keep({row + v_col, cols}, caches.v.Row(to) + unit * cols);
    }
    const size_t q_cols = cut.heads * w.head_dim;
    for (size_t i = w.Count(s); i < std::min(w.width, w.steps - w.begin); ++i) {
      std::fill_n(w.out.Row(w.FirstRow(s) + i) + unit * q_cols, q_cols, 0.0F);
    }
  }

  template <typename T>
  void RunPart(const OpArgs& args, const Window& w, const Caches<T>& caches) const {
    const CachedPartition cut(shape_, args.in[0], args.out[1]);
    const Parallel serial;
    const bool small = 4 * MostPairs(args.in[0], args.out[1]) * w.head_dim < kSerialFlops;
    const Parallel& parallel = small ? serial : args.parallel;
    const size_t scratch = ScratchFloats(args.in[0], cut);
    auto* const memory = reinterpret_cast<float*>(args.workspace.data());
    // Chunks that hold something, in the longest sequence.
    size_t live = 0;
    for (size_t s = 0; s < shape_.sequences; ++s) live = std::max(live, LiveChunks(w, cut, s));

    parallel.For(shape_.sequences * cut.units, [&](size_t task, size_t worker) {
      const size_t s = task / cut.units;
      Append(w, caches, cut, s, task % cut.units);
      if (live > 1) return;
      const Unit<T> u = Slice(w, caches, cut, s, task % cut.units);
      kernels::CachedAttentionForward(u.q, u.k, u.v, cut.kv_per_unit, 0, w.Base(s), u.out,
                                      {memory + worker * scratch, scratch});
    });
    if (live <= 1) return;

    // Parts [sequences * units][chunks][count * heads, head_dim + 2].
    const size_t part_rows = cut.chunks * w.width * cut.heads;
    const Mat<float> parts = {memory + args.parallel.max_workers() * scratch,
                              shape_.sequences * cut.units * part_rows, w.head_dim + 2,
                              w.head_dim + 2};
    parallel.For(shape_.sequences * cut.units * live, [&](size_t task, size_t worker) {
      const size_t chunk = task % live;
      const size_t s = task / live / cut.units;
      if (chunk >= LiveChunks(w, cut, s)) return;
      const Unit<T> u = Slice(w, caches, cut, s, task / live % cut.units);
      const size_t rows = u.q.rows * cut.heads;
      kernels::CachedAttentionPartial(u.q, u.k, u.v, cut.kv_per_unit, 0, w.Base(s),
                                      chunk * cut.chunk, (chunk + 1) * cut.chunk,
                                      parts.Rows(task / live * part_rows + chunk * rows, rows),
                                      {memory + worker * scratch, scratch});
    });
    parallel.For(shape_.sequences * cut.units, [&](size_t task, size_t) {
      const size_t s = task / cut.units;
      const size_t chunks = LiveChunks(w, cut, s);
      const Unit<T> u = Slice(w, caches, cut, s, task % cut.units);
      if (u.q.rows == 0) return;
      const size_t rows = chunks * u.q.rows * cut.heads;
      kernels::CachedAttentionMerge(parts.Rows(task * part_rows, rows), chunks, u.out);
    });
  }

  // Chunks of the cache that some token of sequence s sees.
  static size_t LiveChunks(const Window& w, const CachedPartition& cut, size_t s) {
    const size_t count = w.Count(s);
    return count == 0 ? 0 : (w.Base(s) + count + cut.chunk - 1) / cut.chunk;
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
  graph.CheckType("cached attention", args.qkv);
  const size_t head_dim = shape.HeadDim(info.cols);
  const TensorInfo k = graph.Info(args.keys);
  const TensorInfo v = graph.Info(args.values);
  LW_CHECK(k.rows == v.rows && k.rows % shape.sequences == 0 && k.cols == v.cols &&
               k.cols == shape.kv_heads * head_dim,
           "cached attention: caches [", k.rows, ", ", k.cols, "] and [", v.rows, ", ", v.cols,
           "] for ", shape.sequences, " sequences and ", shape.kv_heads, " heads of ", head_dim);
  LW_CHECK(k.dtype == v.dtype && k.dtype != DType::kInt32,
           "cached attention: caches are both float32 or both bf16");
  CheckInts(graph, args.starts, "starts", shape.sequences);
  CheckInts(graph, args.lengths, "lengths", shape.sequences);
  const TensorId out = graph.Activation("attention", info.rows, shape.heads * head_dim);
  graph.Add(std::make_shared<CachedAttentionOp>(shape, args.slide),
            {args.qkv, args.starts, args.lengths}, {out, args.keys, args.values});
  return out;
}

}  // namespace lanewise::runtime
